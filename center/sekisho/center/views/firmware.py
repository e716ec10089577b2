"""What became of each release of the box's own software on each box, and which one is in use: its newest words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import metadata
from sekisho.center.views.health import time_of, word
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Firmware

DETAIL_CAP: Final = 500
SHORT_CAP: Final = 64
KEPT: Final = 24
"""Releases of one box that are remembered: the newest."""
SECONDS_CAP: Final = 1e9

RELEASE: Final = sa.Table(
    "box_release",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("counter", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False, doc="of its newest word, by the box's clock"),
    sa.Column("received_at", sa.Text, nullable=False, doc="the same by the centre's"),
    sa.Column("state", sa.Text, nullable=False, doc="telemetry.events.Firmware.state"),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("tier", sa.SmallInteger, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("expected_s", sa.Float, nullable=False),
    sa.Column("took_s", sa.Float, nullable=False),
    sa.Column("deadline", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
RUNNING: Final = sa.Table(
    "box_running",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False, doc="of the release in use; 0: it came with the machine"),
    sa.Column("version", sa.Text, nullable=False, doc="as it was named where that was said; else empty"),
    sqlite_with_rowid=False,
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say; an older word replaces no newer one."""
    told = [(row, row.event) for row in rows if isinstance(row.event, Firmware)]
    if not told:
        return
    told.sort(key=lambda one: (one[0].tenant, one[0].box, time_of(one[0]), one[0].id))
    words = [_word(row, event) for row, event in told if event.state != "status" and event.counter]
    if words:
        db.execute(_RELEASE, words)
        _forget(db, sorted({(one["tenant"], one["box"]) for one in words}))
    db.execute(_RUNNING, [_runs(row, event) for row, event in told])


def _word(row: Row, event: Firmware) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "box": row.box,
        "counter": event.counter,
        "at": time_of(row),
        "received_at": row.received_at,
        "state": event.state,
        "version": word(event.version, SHORT_CAP),
        "tier": event.tier,
        "why": word(event.why, SHORT_CAP),
        "by": word(event.by, SHORT_CAP),
        "expected_s": min(event.expected_s, SECONDS_CAP),
        "took_s": min(event.took_s, SECONDS_CAP),
        "deadline": word(event.deadline, SHORT_CAP),
        "detail": word(event.detail, DETAIL_CAP),
    }


def _runs(row: Row, event: Firmware) -> dict[str, Any]:
    name = word(event.version, SHORT_CAP) if event.counter == event.running else ""
    return {"tenant": row.tenant, "box": row.box, "at": time_of(row), "counter": event.running, "version": name}


def _forget(db: sa.Connection, places: list[tuple[str, str]]) -> None:
    """Numbers are the box's word: only the newest stay."""
    of = (RELEASE.c.tenant, RELEASE.c.box)
    full = sa.select(*of).where(sa.tuple_(*of).in_(places)).group_by(*of).having(sa.func.count() > KEPT)
    for tenant, box in db.execute(full).all():
        mine = (RELEASE.c.tenant == tenant, RELEASE.c.box == box)
        order = sa.select(RELEASE.c.counter).where(*mine).order_by(RELEASE.c.at.desc(), RELEASE.c.counter.desc())
        beyond = list(db.scalars(order.offset(KEPT)))
        db.execute(RELEASE.delete().where(*mine, RELEASE.c.counter.in_(beyond)))


def _upsert(table: sa.Table, changed: str) -> sa.TextClause:
    names = [column.name for column in table.c]
    keys = ", ".join(column.name for column in table.primary_key)
    return sa.text(
        f"INSERT INTO {table.name}({', '.join(map(_quoted, names))}) VALUES ({', '.join(f':{one}' for one in names)})"  # noqa: S608 - constant text
        f" ON CONFLICT({keys}) DO UPDATE SET {changed} WHERE excluded.at >= {table.name}.at"
    )


def _quoted(name: str) -> str:
    return f'"{name}"'


_RELEASE: Final = _upsert(
    RELEASE, ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in RELEASE.c if not c.primary_key)
)
_RUNNING: Final = _upsert(
    RUNNING,
    "at = excluded.at, counter = excluded.counter, version = CASE WHEN excluded.version <> '' OR excluded.counter"
    " <> box_running.counter THEN excluded.version ELSE box_running.version END",
)

SLICE: Final = Slice("firmware", (RELEASE, RUNNING), take)
