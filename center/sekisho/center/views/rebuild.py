"""Make the views anew from the stored events: after a fault in one, or with a release that brings a new one.

One transaction: until it ends pages show the old views, and ingest waits (the boxes keep what they have). What people
have entered is in no view's `tables`; events are given to the slices as ones that people know already.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center.database import Database
from sekisho.center.store import EVENT, REJECTED, hold_writers
from sekisho.center.views import FAULT, SLICES
from sekisho.center.views.model import Row
from sekisho.telemetry import events

PAGE: Final = 5000


def rebuild(database: Database, progress: Callable[[int, int], None] = lambda done, last: None) -> int:
    """Do it; returns the number of events. `progress` is told the newest event's id done and the last there is.

    Raises:
        DeviceFault: the database refused; the views are as they were.

    """
    with database.transaction() as db:
        hold_writers(db)
        for slice_ in SLICES:
            for table in slice_.tables:
                db.execute(table.delete())
        db.execute(FAULT.delete())
        last = int(db.execute(sa.select(sa.func.coalesce(sa.func.max(EVENT.c.id), 0))).scalar_one())
        number = done = 0
        while rows := _page(db, done):
            done = rows[-1][0]
            _project(db, [row for _, row in rows if row is not None])
            number += len(rows)
            progress(done, last)
    return number


def _page(db: sa.Connection, after: int) -> list[tuple[int, Row | None]]:
    columns = (EVENT.c[name] for name in ("tenant", "box", "epoch", "seq", "at", "received_at", "type", "body"))
    query = sa.select(EVENT.c.id, *columns).where(EVENT.c.id > after).order_by(EVENT.c.id).limit(PAGE)
    return [(row.id, _row(row)) for row in db.execute(query)]


def _row(row: sa.Row[tuple[object, ...]]) -> Row | None:
    if row.type == REJECTED:
        return None
    try:
        event = events.decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    who = (row.tenant, row.box, row.epoch, row.seq)
    return Row(*who, row.at, row.received_at, row.type, event, again=True, id=row.id)


def _project(db: sa.Connection, rows: list[Row]) -> None:
    """A fault is not swallowed here: a view that cannot be made leaves the old one in place."""
    for _, batch in groupby(rows, key=lambda row: row.received_at):
        taken = list(batch)
        for slice_ in SLICES:
            slice_.take(db, taken)
