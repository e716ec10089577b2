"""How much each function has found and stopped, by the hour, for the whole customer and for each device.

Hours of UTC, so that they add up to the viewer's days (in a time zone that is half an hour off an hour belongs to the
day in which it begins). An alert that stands for many counts as many. Files that were judged clean are counted as such.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa

from sekisho.center.database import metadata
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Alert, Event, FileVerdict, Function, Retro

Outcome = Literal["blocked", "detected", "excepted", "clean"]
"""Stopped; found and let through (log-only, or known only after delivery); let through by an exception; nothing."""
FUNCTIONS: Final = ("signature", *get_args(Function), "file")
EARLY: Final = dt.timedelta(days=60)
LATE: Final = dt.timedelta(hours=1)
COUNT_CAP: Final = 1_000_000
"""Of one event: a box may say any number. Sums stop at `SUM_CAP`."""
SUM_CAP: Final = 1 << 50

TALLY: Final = sa.Table(
    "tally",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True, doc="UTC, 2026-04-01T09"),
    sa.Column("function", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
TALLY_DEVICE: Final = sa.Table(
    "tally_device",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("function", sa.Text, primary_key=True),
    sa.Column("outcome", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Count these events: one statement for each table, however many they are."""
    whole: Counter[tuple[str, ...]] = Counter()
    devices: Counter[tuple[str, ...]] = Counter()
    received = dt.datetime.fromisoformat(rows[-1].received_at) if rows else None
    for row in rows:
        if received is None or (found := _found(row.event)) is None:
            continue
        function, outcome, number = found
        hour = _hour(row.at, received)
        whole[row.tenant, hour, function, outcome, row.box] += number
        mac = row.event.flow.mac if isinstance(row.event, Alert | FileVerdict) else ""
        if mac and mac.isprintable() and outcome != "clean":
            devices[row.tenant, hour, row.box, mac[:17], function, outcome] += number
    for table, counts in ((TALLY, whole), (TALLY_DEVICE, devices)):
        if counts:
            _count(db, table, [(*key, number) for key, number in sorted(counts.items())])


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop hours that are past the time of alerts and verdicts."""
    before = str(today - dt.timedelta(days=max(days.alerts, days.verdicts)))
    gone = 0
    for table in (TALLY, TALLY_DEVICE):
        keys = list(table.primary_key)
        old = sa.select(*keys).where(table.c.tenant == tenant, table.c.hour < before).limit(limit)
        gone += db.execute(table.delete().where(sa.tuple_(*keys).in_(old))).rowcount
    return gone


def _found(event: Event) -> tuple[str, Outcome, int] | None:
    """What of the event counts; None for what no function has found."""
    match event:
        case Alert():
            outcome: Outcome = "excepted" if event.exception else "detected"
            number = min(event.count, COUNT_CAP)
            return event.function or "signature", "blocked" if event.action == "blocked" else outcome, number
        case FileVerdict(outcome="clean"):
            return "file", "clean", 1
        case FileVerdict(outcome="blocked"):
            return "file", "blocked", 1
        case FileVerdict() if event.rules or event.outcome == "delivered_then_found":
            return "file", "detected", 1
        case Retro():
            return "file", "detected", 1
        case _:
            return None


def _hour(at: str, received: dt.datetime) -> str:
    try:
        seen = dt.datetime.fromisoformat(at)
    except ValueError:
        seen = received
    seen = seen if received - EARLY <= seen <= received + LATE else received
    return seen.astimezone(dt.UTC).strftime("%Y-%m-%dT%H")


def _count(db: sa.Connection, table: sa.Table, values: list[tuple[Any, ...]]) -> None:
    keys = ", ".join(column.name for column in table.primary_key)
    places = ", ".join(["?" if db.dialect.name == "sqlite" else "%s"] * len(table.c))
    total = f"{table.name}.count"
    db.exec_driver_sql(
        f"INSERT INTO {table.name}({keys}, count) VALUES ({places}) ON CONFLICT({keys}) DO UPDATE SET"  # noqa: S608 - constant text
        f" count = CASE WHEN {total} > {SUM_CAP} THEN {total} ELSE {total} + excluded.count END",
        values,
    )


SLICE: Final = Slice("tally", (TALLY, TALLY_DEVICE), take, forget)
