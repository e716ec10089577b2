"""What each box says of itself: its parts' last words, its vital signs by the hour, and what happened when."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Bypass, Event, Firmware, Gap, Health, Signatures, Vitals

WORD_CAP: Final = 64
RELEASE_ENDS: Final = ("succeeded", "reverted", "failed", "rejected", "canceled", "expired")
"""Of an attempt to take a release."""
PARTS_CAP: Final = 64
"""Parts of one box that are told apart."""
DETAIL_CAP: Final = 200
NUMBER_CAP: Final = 1 << 53
EARLY: Final = dt.timedelta(days=60)
LATE: Final = dt.timedelta(hours=1)

PART: Final = sa.Table(
    "box_part",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("rules", sa.BigInteger, nullable=False),
    sa.Column("yara_rules", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
VITALS: Final = sa.Table(
    "box_vitals",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True, doc="UTC, 2026-04-01T09"),
    sa.Column("at", sa.Text, nullable=False, doc="of the newest word; the hottest of the hour stands beside it"),
    sa.Column("temperature", sa.Float, nullable=False, doc="Celsius; 0: not measured"),
    sa.Column("hottest", sa.Float, nullable=False),
    sa.Column("disk_free", sa.BigInteger, nullable=False),
    sa.Column("disk_size", sa.BigInteger, nullable=False),
    sa.Column("memory_free", sa.BigInteger, nullable=False),
    sa.Column("memory_size", sa.BigInteger, nullable=False),
    sa.Column("uptime", sa.BigInteger, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
MOMENT: Final = sa.Table(
    "box_moment",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, primary_key=True),
    sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False, doc="its id"),
    sa.Column("kind", sa.Text, nullable=False, doc="health, bypass, gap, signatures, firmware"),
    sa.Column("part", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column(
        "number", sa.Float, nullable=False, doc="a bypass's seconds, a gap's reports, a health's rules, a set's number"
    ),
    sqlite_with_rowid=False,
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say of their boxes."""
    if moments := [_moment(row, moment) for row in rows if (moment := _told(row.event))]:
        db.execute(insert_new(db, MOMENT), moments)
    if parts := [_part(row, row.event) for row in rows if isinstance(row.event, Health)]:
        if kept := _with_room(db, sorted(parts, key=_order)):
            db.execute(_PART, kept)
    if vitals := [_vitals(row, row.event) for row in rows if isinstance(row.event, Vitals)]:
        db.execute(_VITALS, sorted(vitals, key=_order))


def _with_room(db: sa.Connection, parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the parts beyond a box's `PARTS_CAP`: their names are the box's word, and are never forgotten."""
    places = sorted({(one["tenant"], one["box"]) for one in parts})
    columns = (PART.c.tenant, PART.c.box, PART.c.part)
    known = {tuple(row) for row in db.execute(sa.select(*columns).where(sa.tuple_(*columns[:2]).in_(places)))}
    full = Counter(key[:2] for key in known)
    kept = []
    for one in parts:
        key = (one["tenant"], one["box"], one["part"])
        if key not in known:
            if full[key[:2]] >= PARTS_CAP:
                continue
            full[key[:2]] += 1
            known.add(key)
        kept.append(one)
    return kept


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop what is past its time."""
    gone = 0
    kept = ((MOMENT, MOMENT.c.at, days.verdicts), (VITALS, VITALS.c.hour, days.metadata))
    for table, time, number in kept:
        keys = list(table.primary_key)
        late = time < str(today - dt.timedelta(days=number))
        old = sa.select(*keys).where(table.c.tenant == tenant, late).limit(limit)
        gone += db.execute(table.delete().where(sa.tuple_(*keys).in_(old))).rowcount
    return gone


def _order(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["tenant"], row["box"], row["at"]


def _told(event: Event) -> dict[str, Any] | None:
    match event:
        case Bypass():
            said = {"part": event.part, "state": event.state, "reason": word(event.reason, WORD_CAP)}
            return {"kind": "bypass", **said, "number": _number(event.seconds)}
        case Health():
            said = {"part": word(event.part, WORD_CAP), "state": word(event.state, WORD_CAP)}
            return {"kind": "health", **said, "reason": word(event.detail, DETAIL_CAP), "number": _number(event.rules)}
        case Gap():
            said = {"part": "telemetry", "state": "dropped", "reason": word(event.why, WORD_CAP)}
            return {"kind": "gap", **said, "number": _number(event.count)}
        case Signatures() if event.state != "freshness":
            number = event.refused if event.state in ("refused", "rolled_back") else event.number
            said = {"part": "rules", "state": event.state, "reason": word(event.detail, DETAIL_CAP)}
            return {"kind": "signatures", **said, "number": _number(number)}
        case Firmware() if event.state in ("staged", "activating", *RELEASE_ENDS):
            said = {"part": "software", "state": event.state, "reason": word(event.why, WORD_CAP)}
            return {"kind": "firmware", **said, "number": _number(event.counter)}
        case _:
            return None


def _moment(row: Row, told: dict[str, Any]) -> dict[str, Any]:
    return {"tenant": row.tenant, "box": row.box, "at": time_of(row), "event": row.id, **told}


def _part(row: Row, event: Health) -> dict[str, Any]:
    key = {"tenant": row.tenant, "box": row.box, "part": word(event.part, WORD_CAP), "at": time_of(row)}
    said = {"state": word(event.state, WORD_CAP), "detail": word(event.detail, DETAIL_CAP)}
    return {**key, **said, "rules": int(_number(event.rules)), "yara_rules": int(_number(event.yara_rules))}


def _vitals(row: Row, event: Vitals) -> dict[str, Any]:
    at = time_of(row)
    degrees = min(max(event.temperature, 0.0), 999.0)
    sizes = ("disk_free", "disk_size", "memory_free", "memory_size", "uptime")
    numbers = {name: int(_number(getattr(event, name))) for name in sizes}
    key = {"tenant": row.tenant, "box": row.box, "hour": at[:13], "at": at}
    return {**key, "temperature": degrees, **numbers, "version": word(event.version, WORD_CAP)}


def time_of(row: Row) -> str:
    """When it was; that of receipt where the box's word cannot be believed."""
    try:
        at, received = dt.datetime.fromisoformat(row.at), dt.datetime.fromisoformat(row.received_at)
        return row.at if received - EARLY <= at <= received + LATE else row.received_at
    except (ValueError, TypeError):
        return row.received_at


def word(text: str, cap: int) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:cap])


def _number(number: float) -> float:
    return min(max(number, 0), NUMBER_CAP)


_PART: Final = sa.text(
    "INSERT INTO box_part(tenant, box, part, at, state, detail, rules, yara_rules)"
    " VALUES (:tenant, :box, :part, :at, :state, :detail, :rules, :yara_rules)"
    " ON CONFLICT(tenant, box, part) DO UPDATE SET at = excluded.at, state = excluded.state, detail = excluded.detail,"
    " rules = excluded.rules, yara_rules = excluded.yara_rules WHERE excluded.at >= box_part.at"
)
_NEWER: Final = ", ".join(
    f"{c} = CASE WHEN excluded.at >= box_vitals.at THEN excluded.{c} ELSE box_vitals.{c} END"
    for c in ("temperature", "disk_free", "disk_size", "memory_free", "memory_size", "uptime", "version", "at")
)
_VITALS: Final = sa.text(
    "INSERT INTO box_vitals(tenant, box, hour, at, temperature, hottest, disk_free, disk_size,"  # noqa: S608 - constant text
    " memory_free, memory_size, uptime, version) VALUES (:tenant, :box, :hour, :at, :temperature, :temperature,"
    " :disk_free, :disk_size, :memory_free, :memory_size, :uptime, :version)"
    f" ON CONFLICT(tenant, box, hour) DO UPDATE SET {_NEWER}, hottest ="
    " CASE WHEN excluded.hottest > box_vitals.hottest THEN excluded.hottest ELSE box_vitals.hottest END"
)

SLICE: Final = Slice("health", (PART, VITALS, MOMENT), take, forget)
