"""The boxes of all customers as the centre's staff sees them: which state each is in, and what is noisy across them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final, Literal, get_args

import msgspec
import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.customers import CUSTOMER, SERVED
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.views.alerts import INSPECTION
from sekisho.center.views.health import VITALS
from sekisho.center.views.noise import NOISE_RULE, YARA

State = Literal["online", "offline", "bypass", "waiting"]
"""Connected; not connected; connected, but traffic passes uninspected; has a code or a certificate, never heard."""
STATES: Final[tuple[State, ...]] = get_args(State)
PAGE: Final = 100
NOISY: Final = 50


class Placed(msgspec.Struct, frozen=True):
    """One box in the list."""

    box: str
    tenant: str
    customer: str
    site: str
    reseller: str
    since: str


class Noisy(msgspec.Struct, frozen=True):
    """One rule or function."""

    function: str
    sid: int
    name: str
    """A signature's, or a YARA rule's."""
    boxes: int
    """On the day on which it spoke on most."""
    count: int

    @property
    def rule(self) -> str:
        """How it is named to be switched off; empty: a policy's function, which its customer set."""
        return str(self.sid) if self.sid else self.name if self.function == "yara" else ""


def counted(db: sa.Connection, scope: Scope, reseller: str = "") -> dict[State, int]:
    """How many boxes are in each state; one whose traffic passes uninspected is also among those online."""
    return {state: int(db.scalar(_count(_of(scope, state, reseller))) or 0) for state in STATES}


def listed(db: sa.Connection, scope: Scope, state: State, reseller: str = "", after: str = "") -> list[Placed]:
    """Boxes of a state by name; one more than `PAGE` where there are more."""
    of = _of(scope, state, reseller, after).subquery()
    rows = db.execute(sa.select(of).order_by(of.c.box).limit(PAGE + 1)).all()
    return named(db, scope, rows)


def noisy(db: sa.Connection, days: int, today: dt.date) -> list[Noisy]:
    """What spoke most, of all customers together, in these days (UTC) up to today."""
    first = str(today - dt.timedelta(days=days - 1))
    boxes, count = sa.func.max(NOISE_RULE.c.boxes), sa.func.sum(NOISE_RULE.c.count)
    query = sa.select(NOISE_RULE.c.function, NOISE_RULE.c.sid, sa.func.max(NOISE_RULE.c.name), boxes, count)
    query = query.where(NOISE_RULE.c.day >= first, NOISE_RULE.c.day <= str(today))
    query = query.group_by(NOISE_RULE.c.function, NOISE_RULE.c.sid).order_by(boxes.desc(), count.desc()).limit(NOISY)
    return [_noisy(*row) for row in db.execute(query)]


def _noisy(function: str, sid: int, name: str, boxes: Any, count: Any) -> Noisy:
    if function.startswith(YARA):
        function, name = "yara", function.removeprefix(YARA)
    return Noisy(function, sid, name, int(boxes), int(count))


def connected(scope: Scope) -> sa.Select[Any]:
    """(box, tenant, changed_at, reseller) of the boxes that are connected."""
    return _of(scope, "online")


def _of(scope: Scope, state: State, reseller: str = "", after: str = "") -> sa.Select[Any]:
    table = BOX_IDENTITY if state == "waiting" else BOX
    customer = table.join(CUSTOMER, CUSTOMER.c.tenant == table.c.tenant)
    query = sa.select(table.c.box, table.c.tenant, table.c.changed_at, CUSTOMER.c.reseller).select_from(customer)
    query = query.where(scope.of(table.c.tenant), CUSTOMER.c.state.in_(SERVED), table.c.box > after)
    if reseller:
        query = query.where(CUSTOMER.c.reseller == reseller)
    if state == "waiting":
        heard = sa.exists().where(BOX.c.box == BOX_IDENTITY.c.box)
        return query.where(BOX_IDENTITY.c.state != "revoked", ~heard)
    query = query.where(BOX.c.state == ("lost" if state == "offline" else "on"))
    if state == "bypass":
        off = (INSPECTION.c.tenant == BOX.c.tenant, INSPECTION.c.box == BOX.c.box, INSPECTION.c.state != "ended")
        return query.where(sa.exists().where(*off))
    return query


def _count(query: sa.Select[Any]) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(query.subquery())


def named(db: sa.Connection, scope: Scope, rows: list[Any] | Any) -> list[Placed]:
    """Such rows with the names that people know."""
    of = {row.tenant for row in rows}
    names = {tenant.id: tenant.name for tenant in tenants.some(db, scope, sorted(of))}
    sites = {tenant: tenants.sites(db, tenant) for tenant in of}
    return [
        Placed(
            row.box,
            row.tenant,
            names.get(row.tenant) or row.tenant,
            sites[row.tenant].get(row.box, ""),
            row.reseller,
            row.changed_at,
        )
        for row in rows
    ]


class Running(msgspec.Struct, frozen=True):
    """How many boxes run a version; empty: they have not said."""

    version: str
    boxes: int


def versions(db: sa.Connection, scope: Scope) -> list[Running]:
    """What the boxes said last of their version, newest first."""
    said = _of(scope, "online").add_columns(_VERSION).union_all(_of(scope, "offline").add_columns(_VERSION)).subquery()
    version = sa.func.coalesce(said.c.version, "")
    rows = db.execute(sa.select(version, sa.func.count()).group_by(version).limit(1000))
    return sorted((Running(*row) for row in rows), key=lambda one: _order(one.version), reverse=True)


def behind(db: sa.Connection, scope: Scope, newest: str, after: str = "") -> list[tuple[Placed, str]]:
    """Connected boxes that run another version than the newest, by name; one more than `PAGE` where there are more."""
    said = _of(scope, "online", after=after).add_columns(_VERSION).subquery()
    query = sa.select(said).where(said.c.version != newest).order_by(said.c.box).limit(PAGE + 1)
    rows = db.execute(query).all()
    return list(zip(named(db, scope, rows), (row.version for row in rows), strict=True))


_VERSION = (
    sa.select(VITALS.c.version)
    .where(VITALS.c.tenant == BOX.c.tenant, VITALS.c.box == BOX.c.box)
    .order_by(VITALS.c.hour.desc())
    .limit(1)
    .scalar_subquery()
    .label("version")
)


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d{1,9}", version[:64])]
