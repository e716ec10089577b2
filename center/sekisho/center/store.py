"""Every event of every box, once: SQLite, WAL, synchronous=FULL, one writer.

The key is (box, epoch, seq); a repeated row is ignored. `upto` of a stream is the number to which
nothing is missing, where "not missing" means stored or declared dropped by a `Gap` event; it moves in
the transaction that stores the rows, so an acknowledgement sent after the commit never says too much.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory

REJECTED = "rejected"
"""Type of a row whose body was no valid event: the number is accounted for, the content is not kept."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event(
  id INTEGER PRIMARY KEY AUTOINCREMENT, box TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
  lane INTEGER NOT NULL, type TEXT NOT NULL, at TEXT NOT NULL, received_at TEXT NOT NULL, body BLOB NOT NULL,
  UNIQUE(box, epoch, seq));
CREATE TABLE IF NOT EXISTS gap(
  box TEXT NOT NULL, epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY(box, epoch, first, last)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stream(
  box TEXT NOT NULL, epoch TEXT NOT NULL, tenant TEXT NOT NULL, upto INTEGER NOT NULL DEFAULT 0,
  last_at TEXT NOT NULL, PRIMARY KEY(box, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS box(
  box TEXT PRIMARY KEY, tenant TEXT NOT NULL, state TEXT NOT NULL, birth INTEGER NOT NULL, epoch TEXT NOT NULL,
  next INTEGER NOT NULL, changed_at TEXT NOT NULL) WITHOUT ROWID;
"""


class Stored(msgspec.Struct, frozen=True):
    """One stored event as people and programs see it; `event` is the box's own JSON."""

    id: int
    box: str
    epoch: str
    seq: int
    lane: int
    received_at: str
    event: msgspec.Raw


@dataclass(frozen=True)
class NewRow:
    """One row of a batch, decoded and judged."""

    seq: int
    lane: int
    type: str
    at: str
    body: bytes
    dropped: Sequence[tuple[int, int]] = ()
    """The runs a Gap event declares."""


class Stream(msgspec.Struct, frozen=True):
    """One epoch of one box."""

    box: str
    epoch: str
    tenant: str
    upto: int
    last_at: str


class Missing(msgspec.Struct, frozen=True):
    """Numbers that were never stored and never declared."""

    box: str
    epoch: str
    first: int
    last: int


class Declared(msgspec.Struct, frozen=True):
    """What a box says it had to drop."""

    box: str
    epoch: str
    first: int
    last: int


class BoxState(msgspec.Struct, frozen=True):
    """A box's last birth or last will; `next` is the number its next event would have had then."""

    box: str
    tenant: str
    state: str
    birth: int
    epoch: str
    next: int
    changed_at: str


class Store:
    """The centre's database. One process writes (`read_only=False`); any number read."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the store.

        Raises:
            DeviceFault: absent (when reading), damaged, or the disk refuses.

        """
        self.path = path
        with _faults(path):
            if read_only:
                self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
                self._db.execute("SELECT 1 FROM event LIMIT 1")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create(path)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable on exit.

        Raises:
            DeviceFault: the disk refused; nothing of it was stored.

        """
        with _faults(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def add(self, tenant: str, box: str, epoch: str, rows: Sequence[NewRow], received_at: str) -> int:
        """Store rows inside a `transaction`; returns how many were new."""
        before = self._db.total_changes
        self._db.executemany(
            "INSERT OR IGNORE INTO event(box, epoch, seq, lane, type, at, received_at, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [(box, epoch, r.seq, r.lane, r.type, r.at, received_at, r.body) for r in rows],
        )
        new = self._db.total_changes - before
        self._db.executemany(
            "INSERT OR IGNORE INTO gap VALUES (?, ?, ?, ?)", [(box, epoch, *run) for r in rows for run in r.dropped]
        )
        self._db.execute(
            "INSERT INTO stream(box, epoch, tenant, last_at) VALUES (?, ?, ?, ?)"
            " ON CONFLICT(box, epoch) DO UPDATE SET last_at = excluded.last_at",
            (box, epoch, tenant, received_at),
        )
        return new

    def advance(self, box: str, epoch: str) -> int:
        """Move the stream's `upto` over what is stored or declared by now, inside a `transaction`; returns it."""
        row = self._db.execute("SELECT upto FROM stream WHERE box = ? AND epoch = ?", (box, epoch)).fetchone()
        if row is None:
            return 0
        upto = old = int(row[0])
        while (further := self._over_gaps(box, epoch, self._over_rows(box, epoch, upto))) > upto:
            upto = further
        if upto > old:
            self._db.execute("UPDATE stream SET upto = ? WHERE box = ? AND epoch = ?", (upto, box, epoch))
        return upto

    def _over_rows(self, box: str, epoch: str, upto: int) -> int:
        query = "SELECT seq FROM event WHERE box = ? AND epoch = ? AND seq > ? ORDER BY seq"
        with closing(self._db.cursor()) as cur:
            for (seq,) in cur.execute(query, (box, epoch, upto)):
                if seq != upto + 1:
                    break
                upto = seq
        return upto

    def _over_gaps(self, box: str, epoch: str, upto: int) -> int:
        query = "SELECT MAX(last) FROM gap WHERE box = ? AND epoch = ? AND first <= ? AND last > ?"
        (last,) = self._db.execute(query, (box, epoch, upto + 1, upto)).fetchone()
        return upto if last is None else int(last)

    def set_state(self, state: BoxState) -> None:
        """Keep a birth, or a last will that belongs to the last birth, inside a `transaction`."""
        self._db.execute(
            "INSERT INTO box VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT(box) DO UPDATE SET tenant = excluded.tenant,"
            " state = excluded.state, birth = excluded.birth, changed_at = excluded.changed_at,"
            " epoch = CASE excluded.epoch WHEN '' THEN epoch ELSE excluded.epoch END,"
            " next = CASE excluded.epoch WHEN '' THEN next ELSE excluded.next END"
            " WHERE excluded.birth >= birth",
            msgspec.structs.astuple(state),
        )

    def streams(self) -> list[Stream]:
        query = "SELECT box, epoch, tenant, upto, last_at FROM stream ORDER BY box, last_at"
        return [Stream(*row) for row in self._rows(query)]

    def boxes(self) -> list[BoxState]:
        return [BoxState(*row) for row in self._rows("SELECT * FROM box ORDER BY box")]

    def declared(self) -> list[Declared]:
        return [Declared(*row) for row in self._rows("SELECT * FROM gap ORDER BY box, epoch, first")]

    def last_id(self) -> int:
        """The newest stored event's id, 0 in an empty store."""
        return int(self._rows("SELECT COALESCE(MAX(id), 0) FROM event")[0][0])

    def counts(self) -> list[tuple[str, str, int]]:
        """(box, event type, number) of everything stored."""
        return self._rows("SELECT box, type, COUNT(*) FROM event GROUP BY box, type ORDER BY box, type")

    def missing(self) -> list[Missing]:
        """Numbers below the highest stored one that are neither stored nor declared."""
        found: list[Missing] = []
        for stream in self.streams():
            found += self._missing_in(stream)
        return found

    def _missing_in(self, stream: Stream) -> Iterator[Missing]:
        key = (stream.box, stream.epoch)
        known = "SELECT seq, seq FROM event WHERE box = ? AND epoch = ? AND seq > ?"
        gaps = "SELECT first, last FROM gap WHERE box = ? AND epoch = ? AND last > ?"
        reached = stream.upto
        for first, last in self._rows(f"{known} UNION ALL {gaps} ORDER BY 1", *(*key, stream.upto) * 2):
            if first > reached + 1:
                yield Missing(*key, reached + 1, first - 1)
            reached = max(reached, last)

    def events(self, *, since_id: int = 0, box: str = "", limit: int = 1000) -> list[Stored]:
        """Stored events in the order of their arrival, after `since_id`."""
        query = (
            "SELECT id, box, epoch, seq, lane, received_at, body FROM event"
            " WHERE id > ? AND (? = '' OR box = ?) AND type != ? ORDER BY id LIMIT ?"
        )
        rows = self._rows(query, since_id, box, box, REJECTED, limit)
        return [Stored(i, b, e, s, lane, at, msgspec.Raw(body)) for i, b, e, s, lane, at, body in rows]

    def close(self) -> None:
        self._db.close()

    def _rows(self, query: str, *args: object) -> list[tuple]:  # type: ignore[type-arg]  # rows of any shape
        with _faults(self.path):
            return self._db.execute(query, args).fetchall()


def _create(path: Path) -> None:
    """Make the store aside and rename it: whoever reads it finds it whole or not at all."""
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.executescript(_SCHEMA)
    made.chmod(0o600)
    made.rename(path)
    sync_directory(path.parent)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as err:
        raise DeviceFault(f"Cannot use {path}: {err}.", "Check the path and the free space.") from err
