"""From the outbox to the desk: new notices in the order of their arrival, each taken once.

A notice nobody can read, and one that makes planning fail, is set aside and said; it stops no other.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Database
from sekisho.center.notify.desk import Desk, Notice, planner_lock
from sekisho.center.notify.tables import gathering, text
from sekisho.center.notify.told import tell
from sekisho.center.outbox import NEW, NOTICE
from sekisho.telemetry import events

PAGE: Final = 50
"""Taken in one transaction: on SQLite the intake of events waits for it (some 40 ms)."""

log = logging.getLogger(__name__)


def waiting(db: sa.Connection, now: dt.datetime) -> bool:
    """Whether there is anything to plan."""
    new = sa.select(NOTICE.c.id).where(NOTICE.c.state == NEW).limit(1)
    closing = sa.select(gathering.c.id).where(gathering.c.until <= text(now)).limit(1)
    return db.execute(new).first() is not None or db.execute(closing).first() is not None


def plan(database: Database, now: dt.datetime, operator: Sequence[str] = ()) -> int:
    """Take up to `PAGE` new notices and close what is due; returns how many were taken.

    Raises:
        DeviceFault: the database refused; nothing of it was done.

    """
    try:
        return _plan(database, now, operator, PAGE)
    except DeviceFault:
        raise
    except Exception:
        log.exception("notices could not be planned together; taking them one by one")
    return _one_by_one(database, now, operator)


def _plan(database: Database, now: dt.datetime, operator: Sequence[str], most: int) -> int:
    with database.transaction() as db:
        rows = _take(db, most)
        Desk(db, now, operator).plan([notice for row in rows if (notice := _read(row)) is not None])
        if rows:
            done = sa.update(NOTICE).where(NOTICE.c.id.in_([row.id for row in rows]))
            db.execute(done.values(state="planned"))
        return len(rows)


def _one_by_one(database: Database, now: dt.datetime, operator: Sequence[str]) -> int:
    try:
        return _plan(database, now, operator, 1)
    except DeviceFault:
        raise
    except Exception:
        log.exception("a notice could not be planned and is set aside")
    with database.transaction() as db:
        for row in _take(db, 1):
            db.execute(sa.update(NOTICE).where(NOTICE.c.id == row.id).values(state="aside"))
    return 1


def _take(db: sa.Connection, most: int) -> Sequence[sa.Row[Any]]:
    """The oldest new notices."""
    planner_lock(db)
    return db.execute(sa.select(NOTICE).where(NOTICE.c.state == NEW).order_by(NOTICE.c.id).limit(most)).all()


def _read(row: sa.Row[Any]) -> Notice | None:
    try:
        told = tell(row.box, events.decode(row.body))
    except (msgspec.DecodeError, RecursionError) as err:
        log.error("notice %d of %s cannot be read: %s", row.id, row.box, err)
        return None
    if told is None or not told.stars:
        return None
    return Notice(f"{row.box}/{row.epoch}/{row.seq}", row.tenant, told)
