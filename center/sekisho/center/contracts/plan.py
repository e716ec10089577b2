"""What the centre holds of one customer: every table, found by its columns, so that a new room is not forgotten.

A table is the customer's by its column `tenant`; without one by `box` or `account`. What is reached in another way is
said in `_REACHED`. A table that is none of this must be named in `NOT_PERSONAL` with the reason: `parts` refuses to
make a plan otherwise, and so does the test that walks the metadata.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

import sekisho.center
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE
from sekisho.center.database import metadata
from sekisho.center.immunity.tables import FLEET_FILE
from sekisho.center.notify.tables import gathering
from sekisho.center.portal.accounts import ACCOUNT
from sekisho.center.store import BOX, EVENT
from sekisho.center.streams import STREAM

NOT_PERSONAL: Final[Mapping[str, str]] = {
    "customer": "only that there was one of this identifier and that it is over: keeps late arrivals out",
    "deletion": "the deletion itself, while it goes on",
    "deletion_record": "the proof of what was deleted",
    "record_key": "keys of the proofs",
    "store": "the database's own generation and days",
    "attempt": "how often signing in was tried, by digests, for a day",
    "challenge": "numbers that a browser has to sign within minutes",
    "reseller": "the chambers, by name",
    "vendor": "who may be sent for help, the same for every customer",
    "pulse": "when the broker was heard",
    "link_key": "keys of the links in mails",
    "job": "what operators signed, for boxes of many customers at once; whose these are is in job_box",
    "fleet_list": "numbers of the fleet's list",
    "rule_off": "rules that are switched off for all boxes, by the centre's staff",
    "rule_word": "numbers of what the boxes are told of rules",
    "research_count": "counts of a day that many customers share in, none of them most of it, rounded",
    "rollout": "which release goes to how many boxes, by whom",
    "rollout_job": "the jobs of these",
    "rollout_note": "what happened to these, by whom",
    "noise_rule": "how often each rule spoke, all customers together, for a month",
    "partner": "companies that use the API; whose data they may see is in partner_tenant",
    "partner_certificate": "what these companies show",
    "view_fault": "how many events a view has missed",
}
"""Tables in which nothing is a customer's, or what must outlive it; each with the reason."""


class Part(NamedTuple):
    """Rows of one table that are the customer's."""

    table: sa.Table
    mine: sa.ColumnElement[bool]
    key: tuple[sa.Column[Any], ...]
    cleared: Mapping[str, str] | None = None
    """Not removed: these columns are overwritten, after which the row is nobody's."""


Reach = Callable[[sa.Table, str, str], sa.ColumnElement[bool]]
"""(table, tenant, now) -> the customer's rows."""


def named(tenant: str) -> sa.CompoundSelect[tuple[str]]:
    """Every box's name under which the customer has anything."""
    owners = (STREAM, BOX, BOX_IDENTITY, metadata.tables["site"])
    return sa.union(*(sa.select(table.c.box).where(table.c.tenant == tenant) for table in owners))


def boxes(tenant: str) -> sa.Select[tuple[str]]:
    """The same without the names that are another customer's boxes now."""
    mine = named(tenant).subquery()
    others = sa.exists().where(BOX_IDENTITY.c.box == mine.c.box, BOX_IDENTITY.c.tenant != tenant)
    return sa.select(mine.c.box).where(~others)


def accounts(tenant: str) -> sa.Select[tuple[str]]:
    """The accounts of the customer's people."""
    return sa.select(ACCOUNT.c.id).where(ACCOUNT.c.tenant == tenant)


def parts(tenant: str, now: str) -> list[Part]:
    """Everything, in the order in which it can go: what is found by way of another table goes before that.

    Raises:
        ValueError: a table of which nobody has said whose it is.

    """
    know_every_room()
    made = [part for table in metadata.sorted_tables for part in _of(table, tenant, now)]
    return sorted(made, key=lambda part: (_rank(part), part.table.name))


@functools.cache
def know_every_room() -> None:
    """Import every module of the centre: a process knows the tables of those rooms only that it has imported."""
    for module in pkgutil.walk_packages(sekisho.center.__path__, "sekisho.center."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)


def whose(table: sa.Table) -> str:
    """By what the customer's rows of a table are found: a column, "reached", "nobody", or empty: unknown."""
    if table.name in NOT_PERSONAL:
        return "nobody"
    if table.name in _REACHED or table.name in _CLEARED:
        return "reached"
    return next((name for name in ("tenant", "box", "account") if name in table.c), "")


def _of(table: sa.Table, tenant: str, now: str) -> list[Part]:
    by, key = whose(table), _key(table)
    if by == "nobody":
        return []
    if not by:
        raise ValueError(f"table {table.name}: whose is it? (contracts/plan.py)")
    if table.name in _CLEARED:
        reach, values = _CLEARED[table.name]
        found = [Part(table, reach(table, tenant, now), key, values)]
        over = _REACHED.get(table.name)
        return [Part(table, over(table, tenant, now), key), *found] if over else found
    if table.name in _REACHED:
        return [Part(table, _REACHED[table.name](table, tenant, now), key)]
    return [Part(table, _by_column(table, by, tenant), key)]


def _by_column(table: sa.Table, by: str, tenant: str) -> sa.ColumnElement[bool]:
    if by == "box":
        return table.c.box.in_(boxes(tenant))
    if by == "account":
        return table.c.account.in_(accounts(tenant))
    mine: sa.ColumnElement[bool] = table.c.tenant == tenant
    if "account" in table.c:  # what a person did before a customer was chosen
        return sa.or_(mine, sa.and_(table.c.tenant == "", table.c.account.in_(accounts(tenant))))
    return mine


def _key(table: sa.Table) -> tuple[sa.Column[Any], ...]:
    return (EVENT.c.id,) if table is EVENT else tuple(table.primary_key.columns)


_LAST: Final = ("site", "stream", "box", "box_identity", "account")
"""By way of these others are found."""


def _rank(part: Part) -> int:
    if part.table.name in _LAST:
        return 2 + _LAST.index(part.table.name)
    return 1 if "tenant" in part.table.c else 0


def _certificates(table: sa.Table, tenant: str, _now: str) -> sa.ColumnElement[bool]:
    """Also those with which the CA cut a box off: they name the box alone."""
    return sa.or_(table.c.tenant == tenant, sa.and_(table.c.tenant == "", table.c.box.in_(boxes(tenant))))


def _over(table: sa.Table, tenant: str, now: str) -> sa.ColumnElement[bool]:
    return sa.and_(_certificates(table, tenant, now), table.c.not_after <= now)


_REACHED: Final[Mapping[str, Reach]] = {
    "tenant": lambda table, tenant, _: table.c.id == tenant,
    "heap": lambda table, tenant, _: table.c.gathering.in_(
        sa.select(gathering.c.id).where(gathering.c.tenant == tenant)
    ),
    "poison": lambda table, tenant, _: table.c.topic.startswith(f"sk/1/{tenant}/", autoescape=True),
    "event": lambda table, tenant, _: sa.and_(table.c.box.in_(named(tenant)), table.c.tenant == tenant),
    "certificate": _over,
    "session": lambda table, tenant, _: table.c.account.in_(accounts(tenant)),
}
_CLEARED: Final[Mapping[str, tuple[Reach, Mapping[str, str]]]] = {
    "certificate": (
        _certificates,
        {name: "" for name in ("box", "tenant", "key", "by", "revoked_by", "reason", "pem")},
    ),
    "session": (lambda table, tenant, _: table.c.tenant == tenant, {"tenant": ""}),
    "fleet_file": (lambda table, tenant, _: table.c.tenant == tenant, {"tenant": "", "box": ""}),
}
"""Kept for the sake of everyone, without whose it was: serials that must stay on the list of the revoked until they are
over, hashes of bad files that other customers are protected from, sessions of the centre's staff."""

assert CERTIFICATE.name in _CLEARED and FLEET_FILE.name in _CLEARED  # noqa: S101 - the names above are these tables'
