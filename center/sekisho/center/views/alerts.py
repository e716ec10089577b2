"""What people are told of, one row each, and how much of it there was: one star or more.

`alert` keeps what a list shows and filters by, and the event itself for the page behind it. People's marks are in it
and in `alert_note`, so it is filled up and never emptied when the views are made anew. `alert_hour` counts, so that no
page has to; `inspection` is what each part of a box said last about looking at traffic.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, get_args

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.center.notify.told import Told, tell
from sekisho.center.settings import Days
from sekisho.center.views.model import Row, Slice
from sekisho.telemetry.events import Alert, Bypass, Function, encode

NAMES_CAP: Final = 600
"""Characters of what a list can be searched for."""
WEIGHT_CAP: Final = 1_000_000
"""What one row counts at most: a box may say any number."""
EARLY: Final = dt.timedelta(hours=1)
"""A box's clock may be ahead of ours by this much; what is further in the future counts when it was received."""
BLOCKED: Final = ("blocked", "file_blocked", "neutralised")
FUNCTIONS: Final = ("signature", "file", *get_args(Function), "box")
"""What can have found something, by the words of [function]; box: the UTM about itself."""
_SIGNED: Final = ("alert", "policy")
"""Types of lane 1; the others are of lane 0."""
_NAMES: Final = ("signature", "peer", "site", "url", "file", "inner", "mail_from", "mail_subject", "policy", "sha256")

ALERT: Final = sa.Table(
    "alert",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("box", sa.Text, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Text, nullable=False, doc="when it was seen on the wire, by the box's clock"),
    sa.Column("received_at", sa.Text, nullable=False),
    sa.Column("stars", sa.SmallInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False, doc="the event's: alert, policy, file, retro, bypass, signatures, ..."),
    sa.Column("why", sa.Text, nullable=False, doc="the rubric's code (telemetry.reasons)"),
    sa.Column("mac", sa.Text, nullable=False, doc="the LAN device's; empty: not known, or the box itself"),
    sa.Column("device", sa.Text, nullable=False, doc="its address at that time"),
    sa.Column("function", sa.Text, nullable=False, doc="one of FUNCTIONS"),
    sa.Column("sid", sa.BigInteger, nullable=False),
    sa.Column("done", sa.Text, nullable=False, doc="notify.told.Done"),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("topic", sa.Text, nullable=False, doc="equal for repeats of one thing"),
    sa.Column("names", sa.Text, nullable=False, doc="what it can be found by, lower case"),
    sa.Column("body", sa.LargeBinary, nullable=False, doc="the event's JSON"),
    sa.Column("state", sa.Text, nullable=False, server_default="open", doc="open, done"),
    sa.Column("seen_at", sa.Text, nullable=False, server_default="", doc="when somebody of the customer's opened it"),
    sa.Column("handled_by", sa.Text, nullable=False, server_default=""),
    sa.Column("handled_at", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("box", "epoch", "seq"),
    sa.Index("alert_by_tenant", "tenant", "id"),
    sa.Index("alert_by_stars", "tenant", "stars", "id"),
    sa.Index("alert_by_mac", "tenant", "mac", "id"),
    sa.Index("alert_by_state", "tenant", "state", "stars", "id"),
    sa.Index("alert_by_topic", "tenant", "topic", "id"),
    sa.Index("alert_by_time", "tenant", "received_at", "id"),
    sqlite_autoincrement=True,
)
ALERT_NOTE: Final = sa.Table(
    "alert_note",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("alert", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False, doc="the person's name at that time"),
    sa.Column("kind", sa.Text, nullable=False, doc="seen, note, done, open"),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("alert_note_by_alert", "tenant", "alert", "id"),
    sqlite_autoincrement=True,
)
ALERT_HOUR: Final = sa.Table(
    "alert_hour",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("hour", sa.Text, primary_key=True, doc="UTC, 2026-04-01T09"),
    sa.Column("detections", sa.BigInteger, nullable=False),
    sa.Column("blocked", sa.BigInteger, nullable=False),
    sa.Column("important", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
INSPECTION: Final = sa.Table(
    "inspection",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("part", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False, doc="began, lasts, ended"),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("order", sa.Text, nullable=False, doc="epoch and number, so that an older word never replaces a newer"),
    sqlite_with_rowid=False,
)
TABLES: Final = (ALERT_HOUR, INSPECTION)
"""What can be made anew from events alone."""

_COUNT: Final = sa.text(
    "INSERT INTO alert_hour(tenant, hour, detections, blocked, important)"
    " VALUES (:tenant, :hour, :detections, :blocked, :important) ON CONFLICT(tenant, hour) DO UPDATE SET"
    " detections = alert_hour.detections + excluded.detections, blocked = alert_hour.blocked + excluded.blocked,"
    " important = alert_hour.important + excluded.important"
)
_INSPECT: Final = sa.text(
    'INSERT INTO inspection(tenant, box, part, state, at, "order") VALUES (:tenant, :box, :part, :state, :at, :order)'
    " ON CONFLICT(tenant, box, part) DO UPDATE SET state = excluded.state, at = excluded.at,"
    ' "order" = excluded."order" WHERE excluded."order" >= inspection."order"'
)


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what people are told of, count it, and note what boxes say about their own looking."""
    told = [(row, found) for row in rows if getattr(row.event, "stars", 0) and (found := tell(row.box, row.event))]
    if told:
        db.execute(insert_new(db, ALERT), [_alert(row, found) for row, found in told])
        db.execute(_COUNT, _counted(told))
    if states := [_inspection(row, row.event) for row in rows if isinstance(row.event, Bypass)]:
        db.execute(_INSPECT, sorted(states, key=lambda one: [one[key] for key in ("tenant", "box", "part", "order")]))


def forget(db: sa.Connection, tenant: str, days: Days, today: dt.date, limit: int) -> int:
    """Drop what is past its time, with what people wrote about it."""
    gone = 0
    kept = {days.alerts: ALERT.c.type.in_(_SIGNED), days.verdicts: ALERT.c.type.not_in(_SIGNED)}
    for number, which in kept.items():
        late = ALERT.c.received_at < str(today - dt.timedelta(days=number))
        mine = [ALERT.c.tenant == tenant, late, *([which] if len(kept) > 1 else [])]
        query = sa.select(ALERT.c.id).where(*mine)
        ids = db.scalars(query.order_by(ALERT.c.received_at, ALERT.c.id).limit(limit)).all()
        if ids:
            db.execute(ALERT_NOTE.delete().where(ALERT_NOTE.c.tenant == tenant, ALERT_NOTE.c.alert.in_(ids)))
            db.execute(ALERT.delete().where(ALERT.c.tenant == tenant, ALERT.c.id.in_(ids)))
            gone += len(ids)
    before = str(today - dt.timedelta(days=max(kept)))
    gone += db.execute(ALERT_HOUR.delete().where(ALERT_HOUR.c.tenant == tenant, ALERT_HOUR.c.hour < before)).rowcount
    return gone


SLICE: Final = Slice("alerts", TABLES, take, forget)


def _alert(row: Row, told: Told) -> dict[str, Any]:
    event = row.event
    function = event.function or "signature" if isinstance(event, Alert) else ""
    facts = dict(told.facts)
    names = " ".join([told.device, *(facts[label] for label in _NAMES if label in facts)])
    return {
        "tenant": row.tenant,
        "box": row.box,
        "epoch": row.epoch,
        "seq": row.seq,
        "at": told.at,
        "received_at": row.received_at,
        "stars": told.stars,
        "type": told.code,
        "why": told.why,
        "mac": told.mac,
        "device": told.device,
        "function": function or ("file" if told.code in ("file", "retro") else "box"),
        "sid": event.sid if isinstance(event, Alert) and 0 <= event.sid < 1 << 62 else 0,
        "done": told.done,
        "count": told.count,
        "topic": told.topic,
        "names": searchable(names),
        "body": encode(event),
    }


def searchable(text: str) -> str:
    """How names are kept and looked for: lower case, one line, nothing a database refuses."""
    return "".join(char if char.isprintable() else " " for char in text[:NAMES_CAP]).casefold()


def _counted(told: Iterable[tuple[Row, Told]]) -> list[dict[str, Any]]:
    detections: Counter[tuple[str, str]] = Counter()
    blocked: Counter[tuple[str, str]] = Counter()
    important: Counter[tuple[str, str]] = Counter()
    for row, one in told:
        key, weight = (row.tenant, _hour(row, one)), min(one.count, WEIGHT_CAP)
        detections[key] += weight if one.code in ("alert", "policy", "file", "retro") else 0
        blocked[key] += weight if one.done in BLOCKED else 0
        important[key] += 1 if one.stars >= 3 else 0
    keys = sorted(detections)  # in one order, so that two writers never wait for each other
    names = {"detections": detections, "blocked": blocked, "important": important}
    return [{"tenant": key[0], "hour": key[1], **{name: sums[key] for name, sums in names.items()}} for key in keys]


def _hour(row: Row, told: Told) -> str:
    try:
        at, received = dt.datetime.fromisoformat(told.at), dt.datetime.fromisoformat(row.received_at)
        seen = at if at <= received + EARLY else received
        return seen.astimezone(dt.UTC).strftime("%Y-%m-%dT%H")
    except (ValueError, TypeError, OverflowError):
        return row.received_at[:13]


def _inspection(row: Row, event: Bypass) -> dict[str, Any]:
    order = f"{row.received_at} {row.seq:020d}"
    key = {"tenant": row.tenant, "box": row.box, "part": event.part}
    return {**key, "state": event.state, "at": row.at[:40], "order": order}
