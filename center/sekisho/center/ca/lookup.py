"""What people look up of the device CA, within a scope: their boxes, the codes made for them, certificates by any clue.

Newest first, one page at a time; every question has its index.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.ca import history, registry
from sekisho.center.ca.history import Certificate
from sekisho.center.ca.registry import Identity
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE, ENROL_CODE
from sekisho.center.ca.times import text
from sekisho.center.scope import Scope

PAGE: Final = 50
BOXES_CAP: Final = 1000
"""Boxes of one customer that are shown."""
CLUE_CAP: Final = 200
_SERIAL_MIN: Final = 4


class Code(msgspec.Struct, frozen=True):
    """A code that was made once; what it said is kept nowhere."""

    box: str
    made_at: str
    made_by: str
    state: Literal["open", "used", "over"]
    used_at: str
    expires_at: str


def boxes(db: sa.Connection, scope: Scope, tenant: str) -> list[Identity]:
    """A customer's boxes that were ever given a code, by name."""
    mine = (BOX_IDENTITY.c.tenant == tenant, scope.of(BOX_IDENTITY.c.tenant))
    rows = db.execute(sa.select(BOX_IDENTITY).where(*mine).order_by(BOX_IDENTITY.c.box).limit(BOXES_CAP))
    return [Identity(row.box, row.tenant, row.state, row.changed_at) for row in rows]


def box(db: sa.Connection, scope: Scope, name: str) -> Identity | None:
    """The box of this name, where it is one of the scope's."""
    found = registry.identities(db, [name]).get(name)
    return found if found is not None and scope.holds(found.tenant) else None


def codes(db: sa.Connection, scope: Scope, tenant: str, now: dt.datetime, before: str = "") -> list[Code]:
    """Codes made for a customer; `before`: older than this `made_at`."""
    wanted = sa.select(ENROL_CODE).where(ENROL_CODE.c.tenant == tenant, scope.of(ENROL_CODE.c.tenant))
    if before:
        wanted = wanted.where(ENROL_CODE.c.made_at < before)
    rows = db.execute(wanted.order_by(ENROL_CODE.c.made_at.desc()).limit(PAGE))
    return [
        Code(row.box, row.made_at, row.made_by, _state(row, text(now)), row.used_at, row.expires_at) for row in rows
    ]


def open_codes(db: sa.Connection, scope: Scope, tenant: str, now: dt.datetime) -> int:
    """How many codes of a customer could still be used."""
    mine = (ENROL_CODE.c.tenant == tenant, scope.of(ENROL_CODE.c.tenant))
    still = (ENROL_CODE.c.used_at == "", ENROL_CODE.c.expires_at > text(now))
    return db.scalar(sa.select(sa.func.count()).select_from(ENROL_CODE).where(*mine, *still)) or 0


def certificates(db: sa.Connection, scope: Scope, box: str, now: dt.datetime) -> list[Certificate]:
    """The newest certificates of a box."""
    return _certificates(db, scope, now, CERTIFICATE.c.box == box)


def search(db: sa.Connection, scope: Scope, clue: str, now: dt.datetime) -> list[Certificate]:
    """Certificates by the beginning of a serial, a public key's SHA-256 or a box's name; colons and spaces are passed.

    A name may look like a serial: what either finds is there.
    """
    clue = clue.strip()[:CLUE_CAP]
    digits = re.sub(r"[:\s]", "", clue).lower()
    found: dict[str, Certificate] = {}
    for which in _readings(clue, digits):
        found |= {one.serial: one for one in _certificates(db, scope, now, *which)}
    return sorted(found.values(), key=lambda one: one.issued_at, reverse=True)[:PAGE]


def _readings(clue: str, digits: str) -> Iterable[Sequence[sa.ColumnElement[bool]]]:
    if clue:
        yield (CERTIFICATE.c.box == clue,)
    if re.fullmatch(r"[0-9a-f]+", digits):
        if len(digits) == 64:
            yield (CERTIFICATE.c.key == digits,)
        serial = digits.lstrip("0")
        if len(serial) >= _SERIAL_MIN:  # "g" follows every digit a serial could go on with
            yield CERTIFICATE.c.serial >= serial, CERTIFICATE.c.serial < serial + "g"


def _certificates(
    db: sa.Connection, scope: Scope, now: dt.datetime, *which: sa.ColumnElement[bool]
) -> list[Certificate]:
    wanted = sa.select(CERTIFICATE).where(*which, scope.of(CERTIFICATE.c.tenant), CERTIFICATE.c.how != "cut")
    rows = db.execute(wanted.order_by(CERTIFICATE.c.issued_at.desc()).limit(PAGE))
    return [history.certificate(row, now) for row in rows]


def _state(row: sa.Row[Any], now: str) -> Literal["open", "used", "over"]:
    if row.used_at:
        return "used"
    return "open" if row.expires_at > now else "over"
