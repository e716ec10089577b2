"""Repeats of an alert leave as one event that says how many there were: the first goes at once, none is lost.

A fold is open for one (device, rule, peer) with the same outcome and importance, so that anything worse, or
anything that passed where it was stopped before, is told at once. It counts for a while, 60 s growing to 15 min
as the repeats go on, then leaves as one alert: `at` of the first it counted, `until` of the last, `count` of all.
Open folds live in the spool's database and change in the transaction that moves the source position: neither a
kill nor a re-read line counts twice or forgets. The sum of all counts is the number of alerts, always.

Files' verdicts are not folded: each is a fact of its own, with a hash, a place in the quarantine and a receiver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from sekisho.telemetry import events
from sekisho.telemetry.events import Alert, Event

FIRST_S: Final = 60.0
LAST_S: Final = 900.0
MAX_OPEN: Final = 4096
"""Beyond it those that close first are closed now: their counts leave early, nothing else changes."""
SLACK_S: Final = 1.0
"""A fold opened further than this in the future was opened by another clock, and closes."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fold(
  key BLOB PRIMARY KEY, opened REAL NOT NULL, closes REAL NOT NULL, count INTEGER NOT NULL, until TEXT NOT NULL,
  body BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass
class _Fold:
    opened: float
    closes: float
    count: int = 0
    until: str = ""
    body: bytes = b""
    """The first repeat."""


def fold(db: sqlite3.Connection, new: Iterable[Event], now: float) -> list[Event]:
    """What must be stored of these events; the rest is counted. `now` in unix seconds; in the caller's transaction."""
    stored = close(db, now)
    touched: dict[bytes, _Fold] = {}
    opened = 0
    for event in new:
        if not isinstance(event, Alert):
            stored.append(event)
            continue
        key = _key(event)
        known = touched.get(key) or _load(db, key)
        if known is None:
            touched[key] = _Fold(now, now + FIRST_S)
            opened += 1
            stored.append(event)
        else:
            touched[key] = _counted(known, event)
    _save(db, touched)
    return stored + (_make_room(db) if opened else [])


def due(db: sqlite3.Connection, now: float) -> bool:
    """Whether `close` has something to do."""
    return db.execute(f"SELECT 1 FROM fold WHERE {_DUE} LIMIT 1", (now, now + SLACK_S)).fetchone() is not None  # noqa: S608 - constant text


def close(db: sqlite3.Connection, now: float) -> list[Event]:
    """The events of all folds whose time is over; those that counted stay open for twice as long."""
    left: list[Event] = []
    rows = db.execute(f"SELECT * FROM fold WHERE {_DUE} ORDER BY closes", (now, now + SLACK_S)).fetchall()  # noqa: S608 - constant text
    for key, *fields in rows:
        ended = _Fold(*fields)
        if ended.count:
            left.append(_event(ended))
            _save(db, {key: _Fold(now, now + min(2 * (ended.closes - ended.opened), LAST_S))})
        else:
            db.execute("DELETE FROM fold WHERE key = ?", (key,))
    return left


_DUE: Final = "closes <= ? OR opened > ?"


def _make_room(db: sqlite3.Connection) -> list[Event]:
    """Close the oldest beyond the cap."""
    left: list[Event] = []
    rows = db.execute("SELECT * FROM fold ORDER BY closes DESC LIMIT -1 OFFSET ?", (MAX_OPEN,)).fetchall()
    for key, *fields in rows:
        ended = _Fold(*fields)
        if ended.count:
            left.append(_event(ended))
        db.execute("DELETE FROM fold WHERE key = ?", (key,))
    return left


def _load(db: sqlite3.Connection, key: bytes) -> _Fold | None:
    row = db.execute("SELECT opened, closes, count, until, body FROM fold WHERE key = ?", (key,)).fetchone()
    return _Fold(*row) if row else None


def _save(db: sqlite3.Connection, changed: dict[bytes, _Fold]) -> None:
    db.executemany(
        "INSERT OR REPLACE INTO fold VALUES (?, ?, ?, ?, ?, ?)",
        [(key, one.opened, one.closes, one.count, one.until, one.body) for key, one in changed.items()],
    )


def _counted(known: _Fold, event: Alert) -> _Fold:
    known.count += event.count
    known.until = max(known.until, event.until or event.at)
    known.body = known.body or events.encode(event)
    return known


def _event(ended: _Fold) -> Event:
    first: Event = events.decode(ended.body)
    until = ended.until if ended.count > 1 else ""
    event: Event = msgspec.structs.replace(first, count=ended.count, until=until)
    return event


def _key(alert: Alert) -> bytes:
    """Device, rule and peer (by name where one was asked for), with what makes a repeat worth telling at once."""
    flow = alert.flow
    ends = sorted((flow.src_ip, flow.dst_ip))
    name = alert.dns_name or alert.host or alert.sni or alert.mail_from
    rule = (str(alert.sid), alert.signature, alert.app, alert.function, alert.policy, alert.exception)
    told = (alert.action, str(alert.stars), alert.why_stars, alert.direction)
    return blake2b("\0".join((flow.mac, *ends, name, *rule, *told)).encode(), digest_size=16).digest()
