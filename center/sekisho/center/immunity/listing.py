"""What is to be said to the fleet now: the change since the last whole list, or a whole list when that is due."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.fleet import All, Change
from sekisho.appliance.core.known import MAX_FILES
from sekisho.center import tenants
from sekisho.center.database import Database
from sekisho.center.immunity.judge import next_number
from sekisho.center.immunity.tables import FLEET_AWAY, FLEET_FILE, FLEET_LIST
from sekisho.center.store import BOX

WHOLE_S: Final = 24 * 3600
"""A whole list is made again after this, so that a box's copy does not run out."""
VALID_S: Final = 14 * 24 * 3600
"""How long a box that hears nothing goes on using what it has."""
LIFE_S: Final = 14 * 24 * 3600
"""A file that no box's own rules have found for so long leaves the list: rules that erred are mended within days."""
CROWD: Final = 64
"""Changes from which a whole list is made instead."""


def current(database: Database, now: float) -> tuple[All | Change, ...]:
    """The lists in force, as whoever connects must find them; makes a whole list where one is due.

    Raises:
        DeviceFault: the database refused.

    """
    with database.transaction() as db:
        n, base, based_at = _numbers(db)
        since = db.execute(
            sa.select(FLEET_FILE.c.sha256, FLEET_FILE.c.state)
            .where(FLEET_FILE.c.n > base, FLEET_FILE.c.state != "waiting")
            .order_by(FLEET_FILE.c.n)
            .limit(CROWD)
        ).all()
        until = int(now) + VALID_S
        if not base or len(since) >= CROWD or now - based_at >= WHOLE_S:
            base = next_number(db)
            db.execute(FLEET_LIST.update().values(base=base, based_at=int(now)))
            return (_whole(db, base, now),)
        if not since:
            return (_whole(db, base, now),)
        add = [sha256 for sha256, state in since if state == "listed"]
        remove = [sha256 for sha256, state in since if state == "withdrawn"]
        return (_whole(db, base, now), Change(n, base, until, add, remove))


def due(database: Database, seen: int, now: float) -> bool:
    """Whether there is something newer than number `seen` to be said, or a whole list to be made again."""
    with database.reading() as db:
        n, _, based_at = _numbers(db)
    return n != seen or now - based_at >= WHOLE_S


def _numbers(db: sa.Connection) -> tuple[int, int, int]:
    """The newest number, the last whole list's, and when that was made."""
    found = db.execute(sa.select(FLEET_LIST.c.n, FLEET_LIST.c.base, FLEET_LIST.c.based_at)).one_or_none()
    return (0, 0, 0) if found is None else (found.n, found.base, found.based_at)


def away(database: Database) -> dict[str, str]:
    """Box -> tenant of those that take no part."""
    with database.reading() as db:
        out = {tenant.id for tenant in tenants.every(db) if not tenant.immunity}
        rows = db.execute(sa.select(BOX.c.box, BOX.c.tenant)) if out else ()
        return {row.box: row.tenant for row in rows if row.tenant in out}


def said_away(database: Database) -> dict[str, str]:
    """Box -> tenant of those that have been told so."""
    with database.reading() as db:
        return {row.box: row.tenant for row in db.execute(sa.select(FLEET_AWAY))}


def note_away(database: Database, box: str, tenant: str, *, gone: bool) -> None:
    """A box has been told that it takes no part, or that it does again."""
    with database.transaction() as db:
        db.execute(FLEET_AWAY.delete().where(FLEET_AWAY.c.box == box))
        if gone:
            db.execute(FLEET_AWAY.insert().values(box=box, tenant=tenant))


def _whole(db: sa.Connection, number: int, now: float) -> All:
    """The list as it was numbered, without what was withdrawn since (the change behind it says so too)."""
    rows = db.scalars(
        sa.select(FLEET_FILE.c.sha256)
        .where(FLEET_FILE.c.n <= number, FLEET_FILE.c.state == "listed")
        .where(sa.or_(FLEET_FILE.c.box == "", FLEET_FILE.c.at >= utc.of_unix(now - LIFE_S)))
        .order_by(FLEET_FILE.c.n.desc())
        .limit(MAX_FILES)
    )
    return All(number, int(now) + VALID_S, b"".join(sorted(map(bytes.fromhex, rows))))
