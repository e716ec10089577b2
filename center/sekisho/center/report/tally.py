"""What a month's report counts, kept by the hour as events are stored: how often what happened, how long boxes watched.

Hours are UTC, so that every customer's month can be cut out of them. `number` is what a row of an event stands for,
repeats included.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, get_args

import sqlalchemy as sa

from sekisho.center.database import metadata
from sekisho.center.notify.told import Done, tell
from sekisho.center.settings import Days
from sekisho.center.views.model import Row
from sekisho.telemetry import reasons
from sekisho.telemetry.events import Coverage

WEIGHT_CAP: Final = 1_000_000
"""What one event counts at most: a box may say any number."""
SECONDS_CAP: Final = 40 * 86400
EARLY: Final = dt.timedelta(hours=1)
"""A box's clock may be ahead of ours by this much; what is further in the future counts when it was received."""
UNKNOWN: Final = "weak_sign"
"""Stands for reasons this release does not know, as in every text about them."""
_OWN: Final = ("bypass", "health", "gap", "signatures", "firmware", "job")
"""What boxes tell about themselves is no detection."""
_MAC: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_HOUR: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:00:00Z")

COUNT: Final = sa.Table(
    "report_count",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("hour", sa.String(13), primary_key=True, doc="UTC, 2026-04-01T09"),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True, doc="of the LAN device; empty: not known"),
    sa.Column("why", sa.Text, primary_key=True, doc="a code of telemetry.reasons"),
    sa.Column("stars", sa.SmallInteger, primary_key=True),
    sa.Column("done", sa.Text, primary_key=True, doc="notify.told.Done"),
    sa.Column("number", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
WATCH: Final = sa.Table(
    "report_watch",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("hour", sa.String(13), primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, doc="of the box's last word about this hour"),
    sa.Column("seconds", sa.BigInteger, nullable=False, doc="of which the box has counted the traffic"),
    sa.Column("off", sa.BigInteger, nullable=False, doc="in which inspection was off, tenths of a second"),
    sqlite_with_rowid=False,
)
TABLES: Final = (COUNT, WATCH)
_COUNTED: Final = ("tenant", "hour", "box", "mac", "why", "stars", "done")
_WATCHED: Final = ("tenant", "hour", "box", "at", "seconds", "off")


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Count these rows."""
    counted: Counter[tuple[Any, ...]] = Counter()
    watched: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for row in rows:
        if isinstance(row.event, Coverage):
            if _is_hour(row.event.hour, row.received_at):
                key = (row.tenant, row.event.hour[:13], row.box, row.at)
                seconds, off = watched.get(key, (0, 0))
                watched[key] = (max(seconds, _cut(row.event.seconds)), max(off, _cut(10 * row.event.off_seconds)))
        elif getattr(row.event, "stars", 0):
            _count(counted, row)
    if counted:
        db.execute(_ADD, [{**dict(zip(_COUNTED, key, strict=True)), "number": counted[key]} for key in sorted(counted)])
    if watched:
        told = [(*key, *spans) for key, spans in sorted(watched.items())]
        db.execute(_TELL, [dict(zip(_WATCHED, values, strict=True)) for values in told])


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop about so many rows of hours that are past the time alerts are kept; 0 when none is left."""
    gone, before = 0, str(today - dt.timedelta(days=days.alerts))
    for table in TABLES:
        keys = list(table.primary_key)
        old = sa.select(*keys).where(table.c.tenant == tenant, table.c.hour < before).limit(limit)
        gone += db.execute(table.delete().where(sa.tuple_(*keys).in_(old))).rowcount
    return gone


def _count(counted: Counter[tuple[Any, ...]], row: Row) -> None:
    told = tell(row.box, row.event)
    if told is None or not told.stars or told.code in _OWN:
        return
    mac = told.mac if _MAC.fullmatch(told.mac) else ""
    why = told.why if told.why in reasons.codes() else UNKNOWN
    done = told.done if told.done in get_args(Done) else ""
    key = (row.tenant, _hour(row), row.box, mac, why, told.stars, done)
    counted[key] = min(counted[key] + max(1, min(told.count, WEIGHT_CAP)), 1 << 40)


def _hour(row: Row) -> str:
    """When it happened; when it was received where the box's clock cannot be believed."""
    received = dt.datetime.fromisoformat(row.received_at)
    try:
        at = dt.datetime.fromisoformat(row.at)
        believed = at if at.tzinfo and at <= received + EARLY else received
    except ValueError:
        believed = received
    return believed.astimezone(dt.UTC).strftime("%Y-%m-%dT%H")


def _is_hour(hour: str, received_at: str) -> bool:
    """Whether a box may tell of this hour now; what lies far in the future would never be forgotten."""
    if not _HOUR.fullmatch(hour):
        return False
    try:
        told, received = dt.datetime.fromisoformat(hour), dt.datetime.fromisoformat(received_at)
    except ValueError:
        return False
    return told <= received + dt.timedelta(days=1)


def _cut(seconds: float) -> int:
    return round(min(max(seconds, 0), 10 * SECONDS_CAP))


def hours(first: dt.datetime, until: dt.datetime) -> tuple[str, str]:
    """The first hour of [first, until), and the first behind it, as they are stored."""
    return _text(first), _text(until)


def _text(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H")


_ADD: Final = sa.text(
    "INSERT INTO report_count(tenant, hour, box, mac, why, stars, done, number)"
    " VALUES (:tenant, :hour, :box, :mac, :why, :stars, :done, :number)"
    " ON CONFLICT(tenant, hour, box, mac, why, stars, done) DO UPDATE SET"
    " number = report_count.number + excluded.number"
)
_TWICE: Final = "CASE WHEN report_watch.at = excluded.at THEN"
_TELL: Final = sa.text(
    "INSERT INTO report_watch(tenant, hour, box, at, seconds, off)"  # noqa: S608 - constant text
    " VALUES (:tenant, :hour, :box, :at, :seconds, :off) ON CONFLICT(tenant, hour, box) DO UPDATE SET"
    f" seconds = {_TWICE} report_watch.seconds ELSE report_watch.seconds + excluded.seconds END,"
    f" off = {_TWICE} report_watch.off ELSE report_watch.off + excluded.off END, at = excluded.at"
)
