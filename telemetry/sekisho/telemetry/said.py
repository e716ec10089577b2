"""What the box published besides events: births and last wills, kept for the owner's eyes.

In the spool's database, the newest `MAX_SAID`; each is noted when it is handed to the broker.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS said(id INTEGER PRIMARY KEY, at TEXT NOT NULL, topic TEXT NOT NULL, payload BLOB NOT NULL);
"""
MAX_SAID: Final = 1000


class Said(msgspec.Struct, frozen=True):
    """One message that is no batch of events."""

    at: str
    """When, by the box's clock of then; UTC, RFC 3339."""
    topic: str
    """The last level of the topic; "will" is what the broker says should the connection break."""
    message: msgspec.Raw


def note(db: sqlite3.Connection, at: str, topic: str, payload: bytes) -> None:
    """Remember one message. Inside the caller's transaction."""
    made = db.execute("INSERT INTO said(at, topic, payload) VALUES (?, ?, ?)", (at, topic, payload))
    db.execute("DELETE FROM said WHERE id <= ?", ((made.lastrowid or 0) - MAX_SAID,))


QUERY: Final = "SELECT at, topic, payload FROM said WHERE at >= ? ORDER BY id"
