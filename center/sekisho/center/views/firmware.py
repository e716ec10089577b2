"""What became of each release of the box's own software on each box, and which one is in use: its newest words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
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
_KEYS: Final = ("tenant", "box", "counter")


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say; an older word replaces no newer one."""
    told = [(row, row.event) for row in rows if isinstance(row.event, Firmware)]
    told.sort(key=lambda one: (one[0].tenant, one[0].box, time_of(one[0]), one[0].id))
    for (tenant, box), some in itertools.groupby(told, lambda one: (one[0].tenant, one[0].box)):
        said = list(some)
        words = {event.counter: _word(row, event) for row, event in said if event.state != "status" and event.counter}
        for counter, values in words.items():
            _keep(db, {"tenant": tenant, "box": box, "counter": counter}, values)
        if words:
            _forget(db, tenant, box)
        _runs(db, {"tenant": tenant, "box": box}, *said[-1])


def _word(row: Row, event: Firmware) -> dict[str, Any]:
    return {
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


def _keep(db: sa.Connection, key: dict[str, Any], values: dict[str, Any]) -> None:
    if not db.execute(insert_new(db, RELEASE), {**key, **values}).rowcount:
        which = [RELEASE.c[name] == value for name, value in key.items()]
        db.execute(RELEASE.update().where(*which, RELEASE.c.at <= values["at"]).values(**values))


def _forget(db: sa.Connection, tenant: str, box: str) -> None:
    """Numbers are the box's word: only the newest stay."""
    mine = (RELEASE.c.tenant == tenant, RELEASE.c.box == box)
    kept = sa.select(RELEASE.c.counter).where(*mine).order_by(RELEASE.c.at.desc(), RELEASE.c.counter.desc())
    beyond = list(db.scalars(kept.offset(KEPT).limit(1000)))
    if beyond:
        db.execute(RELEASE.delete().where(*mine, RELEASE.c.counter.in_(beyond)))


def _runs(db: sa.Connection, key: dict[str, str], row: Row, event: Firmware) -> None:
    about = event.counter == event.running
    values = {"at": time_of(row), "counter": event.running, "version": word(event.version, SHORT_CAP) if about else ""}
    if not db.execute(insert_new(db, RUNNING), {**key, **values}).rowcount:
        mine = (RUNNING.c.tenant == key["tenant"], RUNNING.c.box == key["box"], RUNNING.c.at <= values["at"])
        if not about:
            same = RUNNING.c.counter == event.running
            values["version"] = sa.case((same, RUNNING.c.version), else_="")
        db.execute(RUNNING.update().where(*mine).values(**values))


SLICE: Final = Slice("firmware", (RELEASE, RUNNING), take)
