"""Events that have not yet been acknowledged by the centre, on disk, in the order they happened.

One connection, used by one thread. One transaction holds a chunk's events *and* the source position after
them, so neither a kill nor a power cut can lose or repeat a line. A row's identity is (box, epoch, seq): the
epoch is made with the database, the seq is never reused. Rows that wait long are packed (`blocks`). Rows
leave through `acknowledge` (the centre has them; they are kept as history for a while, in case it loses
them) or, at the byte cap, through `room`, which declares every run of dropped rows in the same transaction.
A damaged database is set aside and a new epoch begins; a full disk is a `DeviceFault`, nothing moves.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import blocks, clocks, events, folds, history, hits, room, said
from sekisho.telemetry.blocks import Load
from sekisho.telemetry.events import LANES, Event, Health, lane_of
from sekisho.telemetry.reader import Chunk, Position
from sekisho.telemetry.spool_file import SpoolDamaged, SpoolFile, SpoolFull, newest_aside, set_aside
from sekisho.telemetry.weigh import weigh_own

KEEP_HOURS: Final = 48
ROW_OVERHEAD: Final = 96
"""Bytes a row costs beside its body (keys, index, page slack), when room is made for it."""
_ROOM_SHARE: Final = 100
"""When the cap is reached, 1/100 of it is freed at once, `_ROOM_BYTES` at most."""
_ROOM_BYTES: Final = 4 << 20
_EXPIRE_S: Final = 300
"""How often history that is too old is looked for."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position(
  source TEXT PRIMARY KEY, dev INTEGER NOT NULL, ino INTEGER NOT NULL, offset INTEGER NOT NULL, head BLOB NOT NULL
) WITHOUT ROWID;
"""

_REACHED_S: Final = 1.0

AckRun = tuple[int, int, int]
"""Lane, first and last number."""


class Spool:
    """The box's memory of what the centre does not have yet, and of what it has had lately.

    `generation` is the centre's as last believed, `had` the highest number to which it has had everything.
    """

    def __init__(self, path: Path, cap_bytes: int, boot: str = "", keep_hours: int = KEEP_HOURS) -> None:
        self.path = path
        self._keep_s = keep_hours * 3600
        self._expire_at = 0.0
        self._file = SpoolFile(path, cap_bytes)
        self._db = self._file.db
        try:
            with self._file.faults():
                self._file.check()
                self._db.executescript(
                    _SCHEMA + blocks.SCHEMA + clocks.SCHEMA + folds.SCHEMA + said.SCHEMA + hits.SCHEMA
                )
                self._add_clock_to_an_older_release()
                self.epoch = self._meta("epoch", lambda: secrets.token_hex(8))
                self.generation = int(self._meta("generation", lambda: "0"))
                self.had = int(self._meta("had", lambda: "0"))
                self.again: list[int] = msgspec.json.decode(self._meta("again", lambda: "[0, 0, 0]"))
                """Of each lane, the number to which the centre has had all rows, before it was restored."""
                self._reached = [int(n) for n in self._meta("reached", lambda: "0 0 0").split()]
                self._reached_at = 0.0
                self.clocks = clocks.load(self._db, boot, *clocks.read())
                self._plain = {table: self._count(table) for table in ("event", "kept")}
        except DeviceFault:
            self._db.close()
            raise
        self._file.take_reserve()

    @classmethod
    def open(cls, path: Path, cap_bytes: int, now_utc: str, boot: str = "", keep_hours: int = KEEP_HOURS) -> Spool:
        """The spool at `path`; a damaged one is renamed `.bad-N` and the new one says so in a Health event.

        Raises:
            DeviceFault: the directory cannot be written or the disk is full.

        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            spool = cls(path, cap_bytes, boot, keep_hours)
        except SpoolDamaged:
            set_aside(path)
            spool = cls(path, cap_bytes, boot, keep_hours)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path.parent}: {err.strerror}.") from err
        spool._tell_what_is_aside(now_utc)
        return spool

    def _tell_what_is_aside(self, now_utc: str) -> None:
        """Said once, in the transaction that notes it: a kill since the renaming does not hide it."""
        aside = newest_aside(self.path)
        if aside and self._meta("aside", str) != aside:
            replaced = Health(at=now_utc, part="telemetry", state="spool_replaced", detail=f"set aside as {aside}")
            with self._transaction():
                self._store([weigh_own(replaced)])
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'aside'", (aside,))

    def position(self, source: str) -> Position | None:
        query = "SELECT dev, ino, offset, head FROM position WHERE source = ?"
        with self._file.faults():
            row = self._db.execute(query, (source,)).fetchone()
        return Position(*row) if row else None

    def add(self, new: Iterable[Event], *chunks: Chunk, now: float | None = None) -> None:
        """Make events and the positions after the chunks they came in durable, in one transaction.

        Repeated alerts are counted instead (`folds`); `now`, unix seconds, is for them.

        Raises:
            DeviceFault: disk full or failing; nothing was stored, the position did not move.

        """
        new = [weigh_own(event) for event in new]
        self.clocks.observe(*clocks.read())
        with self._transaction():
            hits.count(self._db, new)
            self.clocks.save(self._db)
            self._store(folds.fold(self._db, new, clocks.read()[0] if now is None else now))
            for chunk in chunks:
                at = chunk.position
                self._db.execute(
                    "INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?, ?)",
                    (chunk.source, at.dev, at.ino, at.offset, at.head),
                )

    def close_folds(self, now: float | None = None) -> None:
        """Let go what was counted for long enough.

        Raises:
            DeviceFault: disk full or failing; the counts stay where they are.

        """
        now = clocks.read()[0] if now is None else now
        with self._file.faults():
            due = folds.due(self._db, now)
        if due:
            with self._transaction():
                self._store(folds.close(self._db, now))

    def next_load(self, lane: int, after: int, upto: int | None = None) -> Load | None:
        """What one batch can carry of a lane's rows after a number (to `upto`), the oldest first.

        A block that the disk has damaged is given up and declared; what comes after it is returned.
        """
        while True:
            with self._file.faults():
                try:
                    return blocks.oldest(self._db, lane, after, blocks.END if upto is None else upto)
                except blocks.DamagedBlock as err:
                    damaged = err.block
            with self._transaction():
                self._declare(utc.of_unix(clocks.read()[0]), "damaged", room.drop_block(self._db, damaged))

    def acknowledge(self, upto: int, have: Sequence[AckRun]) -> int:
        """The centre has all rows to `upto`, and the runs (lane, first, last): none waits any more; how many.

        Raises:
            DeviceFault: disk full or failing; the rows stay and will be acknowledged again.

        """
        try:
            return self._acknowledge(upto, have, keep=self._keep_s > 0)
        except SpoolFull:
            with self._file.reserve_released():
                return self._acknowledge(upto, have, keep=False)

    def _acknowledge(self, upto: int, have: Sequence[AckRun], *, keep: bool) -> int:
        had_at = int(self.clocks.best_time(time.monotonic()))
        gone = 0
        with self._transaction():
            if upto > self.had:
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'had'", (str(upto),))
            for lane, first, last in ((None, 0, upto), *have):
                for of_lane, count in history.acknowledge(self._db, lane, first, last, had_at, keep=keep).items():
                    self._plain["event"][of_lane] -= count
                    self._plain["kept"][of_lane] += count if keep else 0
                    gone += count
                gone += blocks.acknowledge(self._db, lane, first, last, had_at)
            if not keep:
                self._expire(had_at, keep_s=-1)
        self.had = max(self.had, upto)
        return gone

    def resend(self, generation: int, upto: int) -> None:
        """The centre has lost what it had beyond `upto`: what is kept of that waits again, what is not is declared.

        Raises:
            DeviceFault: disk full or failing; nothing has changed.

        """
        try:
            again = self._resend(generation, upto)
        except SpoolFull:
            with self._file.reserve_released():
                again = self._resend(generation, upto)
        self.generation, self.had, self.again = generation, upto, again

    def _resend(self, generation: int, upto: int) -> list[int]:
        with self._transaction():
            again = list(map(max, self.again, history.wait_again(self._db, upto)))
            for key, value in (
                ("generation", generation),
                ("had", upto),
                ("again", msgspec.json.encode(again).decode()),
            ):
                self._db.execute("UPDATE meta SET value = ? WHERE key = ?", (str(value), key))
            self._declare(utc.of_unix(clocks.read()[0]), "not_kept", room.gone(self._db, upto, self._next_seq()))
            self._plain = {table: self._count(table) for table in ("event", "kept")}
        return again

    def tidy(self, sent: Sequence[int], now: float) -> None:
        """One step of what can wait: pack a lane's oldest rows (not those under way, to `sent`), let history expire.

        History expires by the true time only: a wrong clock would take it for old.

        Raises:
            DeviceFault: the disk fails; nothing is lost.

        """
        for lane in range(LANES):
            if self._plain["event"][lane] > blocks.PACK_BEYOND:
                self._pack("event", lane, sent[lane])
            if self._plain["kept"][lane] > blocks.PACK_BEYOND:
                self._pack("kept", lane, 0)
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_S
            with self._transaction():
                true = self.clocks.true_time(time.monotonic())
                if true is not None:
                    self._expire(int(true), self._keep_s)

    def holds(self, lane: int, first: int, last: int) -> bool:
        """Whether any row of the run still waits."""
        plain = "SELECT 1 FROM event WHERE lane = ? AND seq BETWEEN ? AND ? LIMIT 1"
        packed = "SELECT 1 FROM block WHERE had_at IS NULL AND lane = ? AND last >= ? AND first <= ? LIMIT 1"
        with self._file.faults():
            return any(self._db.execute(query, (lane, first, last)).fetchone() for query in (plain, packed))

    def keeps(self, number: int) -> bool:
        """Whether a row is kept as one the centre has."""
        with self._file.faults():
            return blocks.keeps(self._db, number)

    def next_seq(self) -> int:
        with self._file.faults():
            return self._next_seq()

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

    def note_said(self, topic: str, payload: bytes) -> None:
        """Keep a message that is no batch for the owner's eyes, as it was published."""
        with self._transaction():
            said.note(self._db, utc.of_unix(clocks.read()[0]), topic, payload)

    def note_reached(self, reached: Sequence[int], now: float) -> None:
        """Note to which number of each lane rows have been published, a second late at most (the flash)."""
        reached = [max(pair) for pair in zip(reached, self._reached, strict=True)]
        if reached != self._reached and now >= self._reached_at:
            self._reached_at = now + _REACHED_S
            with self._transaction():
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('reached', ?)", (" ".join(map(str, reached)),))
            self._reached = reached

    def close(self) -> None:
        self._db.close()

    def _store(self, made: list[Event]) -> None:
        encoded = [events.encode(event) for event in made]
        if made:
            self._make_room(sum(map(len, encoded)) + ROW_OVERHEAD * len(made), made[-1].at)
        self._insert(zip(made, encoded, strict=True))

    def _insert(self, made: Iterable[tuple[Event, bytes]]) -> None:
        rows = [(lane_of(event), event.at, body, self.clocks.of(event.at)) for event, body in made]
        self._db.executemany("INSERT INTO event(lane, at, body, clock) VALUES (?, ?, ?, ?)", rows)
        for lane, *_ in rows:
            self._plain["event"][lane] += 1

    def _declare(self, at: str, why: str, runs: list[room.Run]) -> None:
        gaps = [weigh_own(gap) for gap in room.declare(at, why, runs)]
        self._insert((gap, events.encode(gap)) for gap in gaps)

    def _make_room(self, need: int, at: str) -> None:
        limit = self._file.limit
        if self._file.used() + need > limit:
            target = max(0, limit - need - min(limit // _ROOM_SHARE, _ROOM_BYTES))
            dropped = room.make(self._db, self._file.used, target)
            self._plain = {table: self._count(table) for table in ("event", "kept")}
            self._declare(at, "spool_full", dropped)

    def _pack(self, table: blocks.Table, lane: int, after: int) -> None:
        """Packing needs a little space to free much: on a full disk the reserve's."""
        try:
            self._pack_once(table, lane, after)
        except SpoolFull:
            with self._file.reserve_released():
                self._pack_once(table, lane, after)

    def _pack_once(self, table: blocks.Table, lane: int, after: int) -> None:
        with self._transaction():
            self._plain[table][lane] -= blocks.pack(self._db, table, lane, after)

    def _expire(self, now_s: int, keep_s: int) -> None:
        if history.expire(self._db, now_s, keep_s):
            self._plain["kept"] = self._count("kept")

    def _count(self, table: str) -> list[int]:
        counts = dict(self._db.execute(f"SELECT lane, COUNT(*) FROM {table} GROUP BY lane").fetchall())  # noqa: S608 - one of two names
        return [int(counts.get(lane, 0)) for lane in range(LANES)]

    def _next_seq(self) -> int:
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
        return int(row[0]) + 1 if row else 1

    def _meta(self, key: str, default: Callable[[], str]) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row:
            return str(row[0])
        value = default()
        self._db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))
        return value

    def _add_clock_to_an_older_release(self) -> None:
        if "clock" not in [row[1] for row in self._db.execute("PRAGMA table_info(event)")]:
            self._db.execute("ALTER TABLE event ADD COLUMN clock INTEGER NOT NULL DEFAULT 0")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        before = {table: list(lanes) for table, lanes in self._plain.items()}
        with self._file.faults():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._plain = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
