"""What was given to whom: the certificates, and the attempts to get one, as an operator searches them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.ca.tables import ATTEMPT, CERTIFICATE
from sekisho.center.ca.times import text

State = Literal["valid", "renewed", "expired", "revoked"]


class Certificate(msgspec.Struct, frozen=True):
    """One certificate; `how` and `by`: with a code and whose, by renewal and of which serial, or to cut a box off."""

    serial: str
    box: str
    tenant: str
    state: State
    not_before: str
    not_after: str
    issued_at: str
    how: str
    by: str
    renewed_by: str
    revoked_at: str
    revoked_by: str
    reason: str
    cut_at: str
    key: str


class Attempt(msgspec.Struct, frozen=True):
    """Somebody asked for a certificate."""

    at: str
    source: str
    how: str
    box: str
    outcome: str


class Search(msgspec.Struct, frozen=True):
    """What to look for; empty = everything. `expiring_by`: of use now and over by then, and not renewed yet."""

    box: str = ""
    tenant: str = ""
    serial: str = ""
    revoked: bool = False
    expiring_by: dt.datetime | None = None


def certificates(db: sa.Connection, search: Search, now: dt.datetime, limit: int) -> Iterator[Certificate]:
    """Newest first; of the serial, the beginning is enough, with colons or without."""
    wanted = sa.select(CERTIFICATE).order_by(CERTIFICATE.c.issued_at.desc()).limit(limit)
    if search.box:
        wanted = wanted.where(CERTIFICATE.c.box == search.box)
    if search.tenant:
        wanted = wanted.where(CERTIFICATE.c.tenant == search.tenant)
    if search.serial:
        serial = search.serial.replace(":", "").lower().lstrip("0")
        wanted = wanted.where(CERTIFICATE.c.serial.startswith(serial, autoescape=True))
    if search.revoked:
        wanted = wanted.where(CERTIFICATE.c.revoked_at != "")
    if search.expiring_by:
        alive = (CERTIFICATE.c.revoked_at == "", CERTIFICATE.c.renewed_by == "", CERTIFICATE.c.how != "cut")
        between = CERTIFICATE.c.not_after.between(text(now), text(search.expiring_by))
        wanted = wanted.where(between, *alive)
    for row in db.execute(wanted):
        yield certificate(row, now)


def certificate(row: sa.Row[Any], now: dt.datetime) -> Certificate:
    """A row of the table as people read it."""
    fields = {name: getattr(row, name) for name in Certificate.__struct_fields__ if name != "state"}
    return Certificate(state=_state(row, text(now)), **fields)


def attempts(db: sa.Connection, box: str, limit: int) -> Iterator[Attempt]:
    """Newest first."""
    columns = [ATTEMPT.c[name] for name in Attempt.__struct_fields__]
    wanted = sa.select(*columns).order_by(ATTEMPT.c.id.desc()).limit(limit)
    for row in db.execute(wanted.where(ATTEMPT.c.box == box) if box else wanted):
        yield Attempt(*row)


def _state(row: sa.Row[tuple[str]], now: str) -> State:
    if row.revoked_at:
        return "revoked"
    if row.not_after <= now:
        return "expired"
    return "renewed" if row.renewed_by else "valid"
