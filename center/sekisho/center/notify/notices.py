"""From the outbox to the desk: new notices, each taken once; boxes take turns, each in the order of arrival.

Every box with something new has the same share of a page, so that one that floods delays nobody else's alarm.

A notice nobody can read, and one that makes planning fail, is set aside and said; it stops no other.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Database, Unstorable
from sekisho.center.notify.desk import Desk, Notice, planner_lock
from sekisho.center.notify.tables import gathering, text
from sekisho.center.notify.told import tell
from sekisho.center.outbox import NEW, NOTICE
from sekisho.telemetry import events

PAGE: Final = 50
"""Topics taken in one transaction: on SQLite the intake of events waits for it (some 40 ms)."""
REPEATS: Final = 10
"""Notices taken for each of them on average; more would only make a page longer."""

log = logging.getLogger(__name__)


@dataclass
class Turn:
    """Whose turn it is: kept between pages, so that many boxes with much to say delay each other by one round."""

    after: str = ""
    """The box that was served last."""


def waiting(db: sa.Connection, now: dt.datetime) -> bool:
    """Whether there is anything to plan."""
    new = sa.select(NOTICE.c.id).where(NOTICE.c.state == NEW).limit(1)
    closing = sa.select(gathering.c.id).where(gathering.c.until <= text(now)).limit(1)
    return db.execute(new).first() is not None or db.execute(closing).first() is not None


def plan(database: Database, now: dt.datetime, operator: Sequence[str] = (), turn: Turn | None = None) -> int:
    """Take a page of new notices and close what is due; returns how many were taken.

    Raises:
        DeviceFault: the database refused; nothing of it was done.

    """
    turn = turn or Turn()
    try:
        return _plan(database, now, operator, turn)
    except DeviceFault as err:
        if not isinstance(err, Unstorable):
            raise
        log.exception("a notice cannot be stored as a mail; taking them one by one")
    except Exception:
        log.exception("notices could not be planned together; taking them one by one")
    return _plan(database, now, operator, turn, carefully=True)


def _plan(database: Database, now: dt.datetime, operator: Sequence[str], turn: Turn, *, carefully: bool = False) -> int:
    with database.transaction() as db:
        planner_lock(db)
        boxes = _boxes(db, turn.after)
        share = max(1, PAGE // max(1, len(boxes)))
        ids: list[int] = []
        found: dict[int, Notice] = {}
        for box in boxes:
            for id_, notice in _take(db, box, share):
                ids.append(id_)
                if notice is not None:
                    found[id_] = notice
        aside = Desk(db, now, operator).plan(found.values(), carefully=carefully)
        _mark(db, ids, "planned")
        _mark(db, [id_ for id_, notice in found.items() if notice in aside], "aside")
    if boxes:
        turn.after = boxes[-1]
    return len(ids)


def _boxes(db: sa.Connection, after: str) -> list[str]:
    """Whose turn it is: up to `PAGE` boxes with something new, from behind `after` on and round again.

    A jump in the index from box to box, so that what waits of one box costs no time here.
    """

    def behind(box: sa.ColumnElement[str]) -> sa.ScalarSelect[Any]:
        return sa.select(sa.func.min(NOTICE.c.box)).where(NOTICE.c.state == NEW, NOTICE.c.box > box).scalar_subquery()

    def walk(begin: str) -> list[str]:
        step = sa.select(behind(sa.literal(begin)).label("box")).cte(recursive=True)
        step = step.union_all(sa.select(behind(step.c.box)).where(step.c.box.is_not(None)))
        return [box for box in db.scalars(sa.select(step.c.box).limit(PAGE)) if box is not None]

    boxes = walk(after)
    if after and len(boxes) < PAGE:
        boxes += [box for box in walk("") if box <= after][: PAGE - len(boxes)]
    return boxes


def _take(db: sa.Connection, box: str, share: int) -> list[tuple[int, Notice | None]]:
    """The box's oldest new notices: of so many topics, and with them their repeats, which cost next to nothing."""
    which = (NOTICE.c.state == NEW, NOTICE.c.box == box)
    query = sa.select(NOTICE).where(*which).order_by(NOTICE.c.id).limit(share * REPEATS)
    taken: list[tuple[int, Notice | None]] = []
    topics: set[str] = set()
    for row in db.execute(query):
        notice = _read(row)
        if notice is not None:
            topics.add(notice.told.topic)
        if len(topics) > share:
            break
        taken.append((row.id, notice))
    return taken


def _mark(db: sa.Connection, ids: Sequence[int], state: str) -> None:
    if ids:
        db.execute(sa.update(NOTICE).where(NOTICE.c.id.in_(ids)).values(state=state))


def _read(row: sa.Row[Any]) -> Notice | None:
    try:
        told = tell(row.box, events.decode(row.body))
    except (msgspec.DecodeError, RecursionError) as err:
        log.error("notice %d of %s cannot be read: %s", row.id, row.box, err)
        return None
    if told is None or not told.stars:
        return None
    return Notice(f"{row.box}/{row.epoch}/{row.seq}", row.tenant, told)
