"""PostgreSQL keeps events by lane and by the day they were received, so that retention drops a table instead of rows.

A day's partition is made beside the table and attached: that waits for nobody who reads or writes, not even for a
backup that takes an hour. Names are event_LANE_YYYYMMDD.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from sekisho.telemetry.events import LANES

AHEAD_DAYS: Final = 7
LOCK: Final = 7355611
"""Advisory lock of whoever makes or drops partitions."""

_NAME = re.compile(r"event_([0-9])_([0-9]{8})")


def make_lanes(db: sa.Connection) -> None:
    """What follows `CREATE TABLE event ... PARTITION BY LIST (lane)`."""
    for lane in range(LANES):
        of = f"PARTITION OF event FOR VALUES IN ({lane}) PARTITION BY RANGE (received_at)"
        db.execute(sa.text(f"CREATE TABLE event_{lane} {of}"))


def day_of(time: str) -> dt.date:
    """The UTC day of an RFC 3339 time in UTC."""
    return dt.date.fromisoformat(time[:10])


def ahead(today: dt.date) -> list[dt.date]:
    """Today and the days that partitions are made for before they come."""
    return [today + dt.timedelta(days=number) for number in range(AHEAD_DAYS + 1)]


def make(db: sa.Connection, days: Sequence[dt.date]) -> None:
    """Make these days' partitions where they are missing, inside the caller's transaction."""
    db.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    there = set(existing(db))
    for lane in range(LANES):
        for day in days:
            if (lane, day) not in there:
                name, bounds = _name(lane, day), f"FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')"
                db.execute(sa.text(f"CREATE TABLE {name} (LIKE event_{lane} INCLUDING ALL)"))
                db.execute(sa.text(f"ALTER TABLE event_{lane} ATTACH PARTITION {name} FOR VALUES {bounds}"))


def existing(db: sa.Connection) -> list[tuple[int, dt.date]]:
    """(lane, day) of every partition, oldest first."""
    query = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'"
    found = [match for name in db.scalars(sa.text(query)) if (match := _NAME.fullmatch(name))]
    return sorted(
        ((int(match[1]), dt.datetime.strptime(match[2], "%Y%m%d").replace(tzinfo=dt.UTC).date()) for match in found),
        key=lambda partition: partition[1],
    )


def drop(db: sa.Connection, lane: int, day: dt.date, wait_s: float) -> None:
    """Drop a day of a lane, waiting at most `wait_s` for those who read it (ingest waits behind us meanwhile)."""
    db.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    db.execute(sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{int(wait_s * 1000)}ms"})
    db.execute(sa.text(f"DROP TABLE IF EXISTS {_name(lane, day)}"))


def _name(lane: int, day: dt.date) -> str:
    return f"event_{lane}_{day:%Y%m%d}"
