"""Events that have not yet been acknowledged by the centre, on disk, in the order they happened.

SQLite in WAL with synchronous=FULL, one connection, used by one thread. One transaction holds a
chunk's events *and* the source position after them, so neither a kill nor a power cut can lose or
repeat a line. A row's identity is (box, epoch, seq): the epoch is made with the database, the seq is
never reused. Rows leave through `acknowledge` (the centre has them) or, at the byte cap, through
`_make_room`, which declares every run of dropped rows in a `Gap` event of the same transaction.
A damaged database is set aside and a new epoch begins; a full disk is a `DeviceFault`, nothing moves.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import clocks, events, hits
from sekisho.telemetry.events import Event, Gap, Health, lane_of
from sekisho.telemetry.reader import Chunk, Position

SENT_KEPT: Final = 1000
ROW_OVERHEAD: Final = 64
"""Bytes a row costs beside its body (keys, index, page slack), for the cap's arithmetic."""
RESERVE_BYTES: Final = 4 << 20
"""Kept free beside the database, the size its write-ahead log may have."""
_ROOM_SHARE: Final = 20
"""When the cap is reached, 1/20 of it is freed at once."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, at TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS event_lane ON event(lane, seq);
CREATE TABLE IF NOT EXISTS position(
  source TEXT PRIMARY KEY, dev INTEGER NOT NULL, ino INTEGER NOT NULL, offset INTEGER NOT NULL, head BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sent(seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, body BLOB NOT NULL);
"""

_Run = tuple[int, int, int]
"""First and last sequence number, and how many rows were dropped between them."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class Row:
    """One event waiting for the centre's acknowledgement."""

    seq: int
    lane: int
    body: bytes


class SpoolDamaged(DeviceFault):
    """The database file is not a sound database; `Spool.open` sets it aside and starts a new epoch."""


class SpoolFull(DeviceFault):
    """The disk has no room for the transaction."""


class Spool:
    """The box's memory of what the centre does not have yet."""

    def __init__(self, path: Path, cap_bytes: int, boot: str = "") -> None:
        self.path = path
        self._cap = cap_bytes
        self._reserve = path.with_name(path.name + ".reserve")
        self._db = _connect(path)
        try:
            with _faults(path):
                self._db.executescript(_SCHEMA + clocks.SCHEMA + hits.SCHEMA)
                if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                    raise SpoolDamaged(f"{path} is damaged.")
                self.epoch = self._meta("epoch", lambda: secrets.token_hex(8))
                self.clocks = clocks.load(self._db, boot, *clocks.read())
                self._bytes = self._scalar("SELECT COALESCE(SUM(length(body) + ?), 0) FROM event", ROW_OVERHEAD)
        except DeviceFault:
            self._db.close()
            raise
        self._take_reserve()

    @classmethod
    def open(cls, path: Path, cap_bytes: int, now_utc: str, boot: str = "") -> Spool:
        """The spool at `path`; a damaged one is renamed `.bad-N` and the new one says so in a Health event.

        Raises:
            DeviceFault: the directory cannot be written or the disk is full.

        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, cap_bytes, boot)
        except SpoolDamaged:
            aside = _set_aside(path)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path.parent}: {err.strerror}.") from err
        spool = cls(path, cap_bytes, boot)
        spool.add([Health(at=now_utc, part="telemetry", state="spool_replaced", detail=f"set aside as {aside.name}")])
        return spool

    def position(self, source: str) -> Position | None:
        query = "SELECT dev, ino, offset, head FROM position WHERE source = ?"
        with _faults(self.path):
            row = self._db.execute(query, (source,)).fetchone()
        return Position(*row) if row else None

    def add(self, new: Iterable[Event], *chunks: Chunk) -> None:
        """Make events and the positions after the chunks they came in durable, in one transaction.

        Raises:
            DeviceFault: disk full or failing; nothing was stored, the position did not move.

        """
        new = list(new)
        rows = [(lane_of(event), event.at, events.encode(event)) for event in new]
        with self._transaction():
            hits.count(self._db, new)
            self.clocks.save(self._db)
            for row in rows:
                self._insert(*row)
            for chunk in chunks:
                at = chunk.position
                self._db.execute(
                    "INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?, ?)",
                    (chunk.source, at.dev, at.ino, at.offset, at.head),
                )
            if rows and self._bytes > self._cap:
                self._make_room(rows[-1][1])

    def take(self, lane: int, after: int, upto: int | None, max_rows: int, max_bytes: int) -> list[Row]:
        """The oldest rows of a lane after `after` (to `upto`), at least one if there is one."""
        taken: list[Row] = []
        size = 0
        query = "SELECT seq, body FROM event WHERE lane = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        with _faults(self.path), closing(self._db.cursor()) as cur:
            for seq, body in cur.execute(query, (lane, after, (1 << 62) if upto is None else upto, max_rows)):
                size += len(body) + 32
                if taken and size > max_bytes:
                    break
                taken.append(Row(seq, lane, body))
        return taken

    def acknowledge(self, upto: int, have: Sequence[tuple[int, int, int]]) -> int:
        """Forget what the centre has: all rows to `upto`, and (lane, first, last) runs; returns how many.

        Raises:
            DeviceFault: disk full or failing; the rows stay and will be acknowledged again.

        """
        try:
            return self._acknowledge(upto, have)
        except SpoolFull:
            with self._reserve_released():
                return self._acknowledge(upto, have)

    def _acknowledge(self, upto: int, have: Sequence[tuple[int, int, int]]) -> int:
        gone = 0
        with self._transaction():
            gone += self._forget("seq <= ?", (upto,))
            for run in have:
                gone += self._forget("lane = ? AND seq BETWEEN ? AND ?", run)
            if gone:
                keep = "SELECT seq FROM sent ORDER BY seq DESC LIMIT -1 OFFSET ?"
                self._db.execute(f"DELETE FROM sent WHERE seq IN ({keep})", (SENT_KEPT,))  # noqa: S608 - constant text
        return gone

    def holds(self, lane: int, first: int, last: int) -> bool:
        """Whether any row of the run still waits."""
        query = "SELECT 1 FROM event WHERE lane = ? AND seq BETWEEN ? AND ? LIMIT 1"
        with _faults(self.path):
            return self._db.execute(query, (lane, first, last)).fetchone() is not None

    def next_seq(self) -> int:
        with _faults(self.path):
            row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        return int(row[0]) + 1 if row else 1

    def next_birth(self, unix_s: int) -> int:
        """A number that grows with every start: the time, so that it also grows when the spool was replaced."""
        with self._transaction():
            number = max(int(self._meta("birth", lambda: "0")) + 1, unix_s)
            self._db.execute("UPDATE meta SET value = ? WHERE key = 'birth'", (str(number),))
        return number

    def keep_time(self) -> None:
        """Note both clocks; what was learnt of them goes to disk with the next events, or now where it is news."""
        self.clocks.observe(*clocks.read())
        if self.clocks.learnt:
            with self._transaction():
                self.clocks.save(self._db)

    def set_link(self, *, up: bool) -> None:
        """Note for the owner's eyes whether the centre's broker is connected."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('link', ?)", ("up" if up else "down",))

    def close(self) -> None:
        self._db.close()

    def _insert(self, lane: int, at: str, body: bytes) -> None:
        self._db.execute("INSERT INTO event(lane, at, body) VALUES (?, ?, ?)", (lane, at, body))
        self._bytes += len(body) + ROW_OVERHEAD

    def _forget(self, where: str, args: tuple[int, ...]) -> int:
        count, size = self._db.execute(
            f"SELECT COUNT(*), COALESCE(SUM(length(body) + {ROW_OVERHEAD}), 0) FROM event WHERE {where}",  # noqa: S608 - constant text
            args,
        ).fetchone()
        if count:
            self._db.execute(
                f"INSERT OR REPLACE INTO sent SELECT seq, lane, body FROM event WHERE {where}"  # noqa: S608 - constant text
                f" ORDER BY seq DESC LIMIT {SENT_KEPT}",
                args,
            )
            self._db.execute(f"DELETE FROM event WHERE {where}", args)  # noqa: S608 - constant text
            self._bytes -= size
        return int(count)

    def _make_room(self, at: str) -> None:
        """Drop the oldest of the lowest lane until a share of the cap is free; declare each dropped run.

        A run ends where a row survives, so "everything in first..last is either at the centre or
        dropped" holds exactly and the centre may count the run as accounted for.
        """
        target = self._cap - self._cap // _ROOM_SHARE
        dropped: list[_Run] = []
        for lane in reversed(range(events.LANES)):
            if self._bytes > target:
                dropped += self._drop_oldest(lane, target)
        runs = self._join(sorted(dropped))
        for start in range(0, len(runs), events.GAP_RUNS):
            gap = _gap(at, runs[start : start + events.GAP_RUNS])
            self._insert(gap.lane, at, events.encode(gap))

    def _drop_oldest(self, lane: int, target: int) -> list[_Run]:
        """Runs that go with the rows dropped: each row itself, and what a dropped Gap had declared."""
        dropped: list[_Run] = []
        upto = 0
        with closing(self._db.cursor()) as cur:
            for seq, body in cur.execute("SELECT seq, body FROM event WHERE lane = ? ORDER BY seq", (lane,)):
                if self._bytes <= target:
                    break
                upto = seq
                dropped.append((seq, seq, 1))
                if lane == Gap.lane and isinstance(gap := events.decode(body), Gap):
                    dropped += [(first, last, 0) for first, last in gap.dropped()]
                    dropped.append((gap.first, gap.dropped()[0][1], gap.count))
                self._bytes -= len(body) + ROW_OVERHEAD
        self._db.execute("DELETE FROM event WHERE lane = ? AND seq <= ?", (lane, upto))
        return dropped

    def _join(self, dropped: list[_Run]) -> list[_Run]:
        """Neighbouring runs as one where no row between them survives."""
        runs: list[_Run] = []
        for first, last, count in dropped:
            if runs and not self._survivor(runs[-1][1], first):
                runs[-1] = (runs[-1][0], max(last, runs[-1][1]), runs[-1][2] + count)
            else:
                runs.append((first, last, count))
        return runs

    def _survivor(self, after: int, before: int) -> bool:
        if before <= after + 1:
            return False
        query = "SELECT 1 FROM event WHERE seq > ? AND seq < ? LIMIT 1"
        return self._db.execute(query, (after, before)).fetchone() is not None

    def _meta(self, key: str, default: Callable[[], str]) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row:
            return str(row[0])
        value = default()
        self._db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
        return value

    def _scalar(self, query: str, *args: int) -> int:
        return int(self._db.execute(query, args).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = self._bytes
        with _faults(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._bytes = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reserve_released(self) -> Iterator[None]:
        """Deleting needs space too: on a full disk the reserve makes it possible, and is taken back after."""
        self._reserve.unlink(missing_ok=True)
        self._empty_log()
        yield
        self._empty_log()
        self._take_reserve()

    def _empty_log(self) -> None:
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _take_reserve(self) -> None:
        with suppress(OSError):
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)


def _gap(at: str, runs: list[_Run]) -> Gap:
    return Gap(
        at=at,
        first=runs[0][0],
        last=runs[-1][1],
        count=sum(count for _, _, count in runs),
        runs=[(first, last) for first, last, _ in runs] if len(runs) > 1 else [],
        why="spool_full",
    )


def _connect(path: Path) -> sqlite3.Connection:
    with _faults(path):
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.execute("PRAGMA cache_size = -2048")
        path.chmod(0o600)
    return db


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise SpoolDamaged(f"{path} is damaged: {err}.") from err
        kind = SpoolFull if code == sqlite3.SQLITE_FULL else DeviceFault
        raise kind(f"Cannot use {path}: {err}.", "Free space on the data partition.") from err


def _set_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.bad-{number}")).exists():
        number += 1
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside
