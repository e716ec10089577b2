"""How often each entry and exception of the policy was used, counted with the events that say so.

The counts live in the spool's database and change in the transaction that stores the events: neither a kill nor a
re-read line counts twice. They outlive the events, which leave for the centre.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

import msgspec

from sekisho.telemetry.events import Alert, Event

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hit(
  function TEXT NOT NULL, entry TEXT NOT NULL, exception TEXT NOT NULL, action TEXT NOT NULL,
  count INTEGER NOT NULL, last TEXT NOT NULL, PRIMARY KEY(function, entry, exception, action)
) WITHOUT ROWID;
"""
MAX_KINDS: Final = 20_000
"""Entries that no policy has any more are forgotten beyond this, those unused for longest first."""


class Hit(msgspec.Struct, frozen=True):
    """One line of the account."""

    function: str
    entry: str
    exception: str
    action: str
    count: int
    last: str
    """UTC, RFC 3339."""


def count(db: sqlite3.Connection, events: Iterable[Event]) -> None:
    """Add what these events say. Inside the caller's transaction."""
    new = False
    for event in events:
        if isinstance(event, Alert) and (event.function or event.exception):
            key = (event.function, event.policy, event.exception, event.action)
            db.execute(
                "INSERT INTO hit VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT DO UPDATE SET count = count + 1, last = ?",
                (*key, event.at, event.at),
            )
            new = True
    if new:
        keys = "SELECT function, entry, exception, action FROM hit ORDER BY last DESC LIMIT -1 OFFSET ?"
        db.execute(
            f"DELETE FROM hit WHERE (function, entry, exception, action) IN ({keys})",  # noqa: S608 - constant text
            (MAX_KINDS,),
        )


QUERY: Final = "SELECT function, entry, exception, action, count, last FROM hit ORDER BY function, entry, exception"
