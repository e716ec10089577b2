"""What the centre has had stays for a while, and waits again when the centre has lost it.

Functions here run inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3

from sekisho.telemetry import blocks
from sekisho.telemetry.events import LANES


def acknowledge(
    db: sqlite3.Connection, lane: int | None, first: int, last: int, had_at: int, *, keep: bool
) -> dict[int, int]:
    """Let unpacked rows of a run (of any lane where it is None) wait no more; how many of each lane."""
    where = "seq BETWEEN ? AND ?" + ("" if lane is None else " AND lane = ?")
    args = (first, last) if lane is None else (first, last, lane)
    counts = dict(db.execute(f"SELECT lane, COUNT(*) FROM event WHERE {where} GROUP BY lane", args).fetchall())  # noqa: S608 - constant text
    if counts and keep:
        copy = f"INSERT INTO kept SELECT seq, lane, at, body, clock, ? FROM event WHERE {where}"  # noqa: S608 - constant text
        db.execute(copy, (had_at, *args))
    if counts:
        db.execute(f"DELETE FROM event WHERE {where}", args)  # noqa: S608 - constant text
    return counts


def wait_again(db: sqlite3.Connection, upto: int) -> list[int]:
    """Let all that is kept beyond a number wait again; of each lane, the number to which it had been had."""
    had = [blocks.had_to(db, lane) for lane in range(LANES)]
    kept = "SELECT seq, lane, at, body, clock FROM kept WHERE seq > ?"
    db.execute(f"INSERT INTO event(seq, lane, at, body, clock) {kept}", (upto,))
    db.execute("DELETE FROM kept WHERE seq > ?", (upto,))
    db.execute("UPDATE block SET had_at = NULL WHERE had_at IS NOT NULL AND last > ?", (upto,))
    return had


def expire(db: sqlite3.Connection, now_s: int, keep_s: int) -> bool:
    """Forget history older than its time, or from a future that is none; whether unpacked rows were among it."""
    old = "had_at NOT BETWEEN ? AND ?"
    args = (now_s - keep_s, now_s + keep_s)
    db.execute(f"DELETE FROM lines WHERE block IN (SELECT id FROM block WHERE {old})", args)  # noqa: S608 - constant text
    db.execute(f"DELETE FROM block WHERE {old}", args)  # noqa: S608 - constant text
    return bool(db.execute(f"DELETE FROM kept WHERE {old}", args).rowcount)  # noqa: S608 - constant text
