"""Who got which file: the account that a later discovery is held against.

One SQLite file, written by the recorder's thread in one commit a second. It holds what the outcomes hold (hash,
names, device), never content, and never leaves the box but as the deliveries of a `Retro` event. Bounded in rows and
days; what cannot be written is counted and the recorder goes on.
"""

from __future__ import annotations

import logging
import mmap
import sqlite3
import time
from pathlib import Path
from typing import Literal

from sekisho.inspect.hashes import contains
from sekisho.telemetry import events
from sekisho.telemetry.clocks import RELEASED, may_expire

log = logging.getLogger(__name__)

MAX_ROWS = 200_000
KEEP_DAYS = 30
COMMIT_S = 1.0
TRIM_EVERY = 1000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery (
  id INTEGER PRIMARY KEY, day INTEGER, sha256 BLOB,
  at TEXT, ip TEXT, mac TEXT, app TEXT, name TEXT, url TEXT, host TEXT);
CREATE INDEX IF NOT EXISTS delivery_sha256 ON delivery (sha256);
CREATE TABLE IF NOT EXISTS told (sha256 BLOB, rules TEXT, PRIMARY KEY (sha256, rules)) WITHOUT ROWID;
"""

Why = Literal["rules", "hash_list", "seen_bad"]


class Ledger:
    """Deliveries, and what has been told about them. One thread writes."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; one that is damaged is put aside as `NAME.damaged` and begun anew."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._store = _open(path)
        except sqlite3.DatabaseError:
            log.warning("%s is damaged; it was put aside and begun anew", path)
            path.replace(path.with_name(path.name + ".damaged"))
            self._store = _open(path)
        path.chmod(0o600)
        self.lost = 0
        """Deliveries that could not be written."""
        self._committed = time.monotonic()
        self._since_trim = 0

    def deliver(self, verdict: events.FileVerdict, ip: str) -> None:
        """Enter one file that reached the device with this address."""
        row = (
            int(time.time() // 86400), bytes.fromhex(verdict.sha256), verdict.at, ip, verdict.flow.mac, verdict.app,
            verdict.file_name, verdict.url, verdict.host,
        )  # fmt: skip
        try:
            self._store.execute(
                "INSERT INTO delivery (day, sha256, at, ip, mac, app, name, url, host) VALUES (?,?,?,?,?,?,?,?,?)", row
            )
            self._since_trim += 1
            if self._since_trim >= TRIM_EVERY:
                self._trim()
        except sqlite3.Error as err:
            self._failed(err)

    def _trim(self) -> None:
        self._since_trim = 0
        now = time.time()
        first = "SELECT MIN(day) FROM delivery WHERE day >= ?"
        (day,) = self._store.execute(first, (int(RELEASED // 86400),)).fetchone()
        if may_expire(now, () if day is None else (day * 86400.0,)):
            self._store.execute("DELETE FROM delivery WHERE day < ?", (int(now // 86400) - KEEP_DAYS,))
        self._store.execute("DELETE FROM delivery WHERE id <= (SELECT max(id) FROM delivery) - ?", (MAX_ROWS,))

    def flush(self, *, now: bool = False) -> None:
        """Commit what was entered, at most once in `COMMIT_S` unless `now`."""
        if not self._store.in_transaction or (not now and time.monotonic() - self._committed < COMMIT_S):
            return
        try:
            self._store.commit()
        except sqlite3.Error as err:
            self._failed(err)
        self._committed = time.monotonic()

    def _failed(self, err: sqlite3.Error) -> None:
        self.lost += 1
        log.error("the ledger of deliveries cannot be written: %s", err)
        if self._store.in_transaction:
            self._store.rollback()

    def found_bad(self, sha256: str, rules: list[str], why: Why, at: str) -> events.Retro | None:
        """The event for devices that got this file before; None when nobody did or it has been told."""
        key = bytes.fromhex(sha256)
        rows = self._store.execute(
            "SELECT at, ip, mac, app, name, url, host FROM delivery WHERE sha256 = ? ORDER BY id DESC LIMIT ?",
            (key, events.MAX_DELIVERIES),
        ).fetchall()
        if not rows:
            return None
        names = ",".join(sorted(rules))
        try:
            fresh = self._store.execute("INSERT OR IGNORE INTO told VALUES (?, ?)", (key, names)).rowcount
            self.flush(now=True)
        except sqlite3.Error as err:
            self._failed(err)
            fresh = 1
        if fresh < 1:
            return None
        (count,) = self._store.execute("SELECT count(*) FROM delivery WHERE sha256 = ?", (key,)).fetchone()
        deliveries = [events.Delivery(*row) for row in rows]
        return events.Retro(at=at, sha256=sha256, rules=rules, why=why, deliveries=deliveries, more=count - len(rows))

    def among(self, known: Path) -> list[str]:
        """Delivered files whose hash is in a sorted list of 32-byte hashes."""
        try:
            if not known.stat().st_size:
                return []
            with known.open("rb") as source, mmap.mmap(source.fileno(), 0, prot=mmap.PROT_READ) as hashes:
                rows = self._store.execute("SELECT DISTINCT sha256 FROM delivery")
                return [key.hex() for (key,) in rows if contains(hashes, key)]
        except OSError as err:
            log.error("the list of known files cannot be read: %s", err)
            return []

    def close(self) -> None:
        self.flush(now=True)
        self._store.close()


def _open(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path, check_same_thread=False, timeout=5)
    store.execute("PRAGMA journal_mode=WAL")
    store.execute("PRAGMA synchronous=NORMAL")
    store.executescript(_SCHEMA)
    return store
