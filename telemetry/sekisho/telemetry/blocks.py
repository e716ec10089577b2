"""Old rows packed: 1,000 events of a lane as one compressed block, which is also the batch that goes out.

What waits is in `event` (row by row) and in blocks that nobody has acknowledged; what the centre has is kept
for a while in `kept` and in blocks with a `had_at`. One rule makes acknowledging a run (lane, first, last)
exact, also after the centre was restored and asks for the kept ones again: *the run of a batch or a block
holds no row of its lane that the box has but that is not in it*. Functions here run inside the caller's
transaction.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Final, Literal

import msgspec

from sekisho.telemetry import batches
from sekisho.telemetry.batches import Row
from sekisho.telemetry.events import BATCH_RUNS, LANES

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS event(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, at TEXT NOT NULL, body BLOB NOT NULL,
  clock INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS event_lane ON event(lane, seq);
CREATE TABLE IF NOT EXISTS kept(
  seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, at TEXT NOT NULL, body BLOB NOT NULL, clock INTEGER NOT NULL,
  had_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS kept_lane ON kept(lane, seq);
CREATE TABLE IF NOT EXISTS block(
  id INTEGER PRIMARY KEY, lane INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, n INTEGER NOT NULL,
  size INTEGER NOT NULL, at TEXT NOT NULL, until TEXT NOT NULL, clock INTEGER NOT NULL, had_at INTEGER);
CREATE INDEX IF NOT EXISTS block_lane ON block(lane, first);
CREATE INDEX IF NOT EXISTS block_waits ON block(lane, first) WHERE had_at IS NULL;
CREATE INDEX IF NOT EXISTS block_kept ON block(had_at, first) WHERE had_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS lines(block INTEGER PRIMARY KEY, body BLOB NOT NULL);
DROP TABLE IF EXISTS sent;
"""
BATCH_BYTES: Final = 128 << 10
BATCH_ROWS: Final = 1000
PACK_BEYOND: Final = 2 * BATCH_ROWS
"""Rows of a lane that may lie unpacked: the newest ones, which are about to go or to be joined."""
END: Final = 1 << 62

Table = Literal["event", "kept"]


@dataclass(frozen=True)
class Load:
    """What one batch carries: a run of one lane."""

    lane: int
    first: int
    last: int
    count: int
    lines: bytes
    packed: bool
    """`lines` are compressed."""
    clock: int
    """By which clock the rows' times were told (`clocks`)."""


class _Old(msgspec.Struct, frozen=True):
    """A row with what its table says of it."""

    row: Row
    at: str
    clock: int
    had_at: int | None


@dataclass(frozen=True)
class _Times:
    """What a block's table says of it."""

    at: str
    until: str
    clock: int
    had_at: int | None


def oldest(db: sqlite3.Connection, lane: int, after: int, upto: int = END) -> Load | None:
    """The next run that waits in a lane after a number (and ends at `upto`): a whole block, or rows up to a batch.

    Raises:
        DamagedBlock: the block's bytes are not what was written.

    """
    block = db.execute(
        "SELECT id, first, last, n, clock FROM block WHERE had_at IS NULL AND lane = ? AND first > ? AND first <= ?"
        " ORDER BY first LIMIT 1",
        (lane, after, upto),
    ).fetchone()
    rows = _rows(db, "event", lane, after, min(upto, block[1] if block else END), BATCH_BYTES)
    if rows:
        lines = batches.encode_lines(old.row for old in rows)
        return Load(lane, rows[0].row.seq, rows[-1].row.seq, len(rows), lines, packed=False, clock=rows[0].clock)
    if not block:
        return None
    ident, first, last, count, clock = block
    packed = _lines(db, ident)
    if len(numbers_of(db, ident)) != count:
        raise DamagedBlock(ident)
    return Load(lane, first, last, count, packed, packed=True, clock=clock)


class DamagedBlock(ValueError):
    """A block whose bytes are not what was written."""

    def __init__(self, block: int) -> None:
        super().__init__("a block is damaged")
        self.block = block


def pack(db: sqlite3.Connection, table: Table, lane: int, after: int) -> int:
    """Make a block of a lane's oldest unpacked rows after a number; returns how many rows went into it."""
    rows = _rows(db, table, lane, after, END, batches.LINES_CAP // 2)
    while rows and len(packed := batches.compress(batches.encode_lines(old.row for old in rows))) > BATCH_BYTES:
        if len(rows) == 1:
            break
        rows = rows[: len(rows) // 2]
    if not rows:
        return 0
    times = _Times(rows[0].at, rows[-1].at, rows[0].clock, rows[-1].had_at)
    _insert(db, [old.row for old in rows], packed, times)
    db.execute(
        f"DELETE FROM {table} WHERE lane = ? AND seq BETWEEN ? AND ?",  # noqa: S608 - one of two names
        (lane, rows[0].row.seq, rows[-1].row.seq),
    )
    return len(rows)


def acknowledge(db: sqlite3.Connection, lane: int | None, first: int, last: int, had_at: int) -> int:
    """Let the waiting blocks' rows in a run (of any lane where it is None) count as had; returns how many."""
    count = 0
    overlap = "had_at IS NULL AND first <= ? AND last >= ? AND lane = COALESCE(?, lane)"
    query = f"SELECT id, lane, first, last, n FROM block WHERE {overlap}"  # noqa: S608 - constant text
    for ident, of_lane, begin, end, rows in db.execute(query, (last, first, lane)).fetchall():
        if first <= begin and end <= last:
            db.execute("UPDATE block SET had_at = ? WHERE id = ?", (had_at, ident))
            count += rows
        else:
            count += _split(db, ident, of_lane, first, last, had_at)
    return count


def rows_of(db: sqlite3.Connection, block: int) -> list[Row]:
    """What a block holds.

    Raises:
        DamagedBlock: its bytes are not what was written.

    """
    try:
        return batches.decode_lines(batches.expand(_lines(db, block)))
    except ValueError as err:
        raise DamagedBlock(block) from err


def numbers_of(db: sqlite3.Connection, block: int) -> list[int]:
    """The numbers in a block; none where it is damaged."""
    try:
        return batches.numbers(batches.expand(_lines(db, block)))
    except ValueError:
        return []


def waiting_numbers(db: sqlite3.Connection, after: int, before: int) -> Iterator[int]:
    """Numbers between two, of rows that wait, ascending."""
    plain = db.execute("SELECT seq FROM event WHERE seq > ? AND seq < ? ORDER BY seq", (after, before))
    sources: list[Iterator[int]] = [(seq for (seq,) in plain)]
    sources += [_packed_numbers(db, lane, after, before) for lane in range(LANES)]
    return heapq.merge(*sources)


def _packed_numbers(db: sqlite3.Connection, lane: int, after: int, before: int) -> Iterator[int]:
    query = "SELECT id FROM block WHERE had_at IS NULL AND lane = ? AND last > ? AND first < ? ORDER BY first"
    for (block,) in db.execute(query, (lane, after, before)):
        for number in numbers_of(db, block):
            if after < number < before:
                yield number


def had_to(db: sqlite3.Connection, lane: int) -> int:
    """The number to which the centre has had all of a lane's rows that this box still has."""
    args = {"lane": lane, "end": END}
    had, waits = db.execute(
        "SELECT MAX(COALESCE((SELECT MAX(seq) FROM kept WHERE lane = :lane), 0),"
        " COALESCE((SELECT MAX(last) FROM block WHERE lane = :lane AND had_at IS NOT NULL), 0)),"
        " MIN(COALESCE((SELECT MIN(seq) FROM event WHERE lane = :lane), :end),"
        " COALESCE((SELECT MIN(first) FROM block WHERE lane = :lane AND had_at IS NULL), :end))",
        args,
    ).fetchone()
    return min(int(had), int(waits) - 1)


def keeps(db: sqlite3.Connection, number: int) -> bool:
    """Whether the row of this number is history."""
    if db.execute("SELECT 1 FROM kept WHERE seq = ?", (number,)).fetchone():
        return True
    query = "SELECT id FROM block WHERE had_at IS NOT NULL AND first <= ? AND last >= ?"
    return any(number in numbers_of(db, block) for (block,) in db.execute(query, (number, number)).fetchall())


def remove(db: sqlite3.Connection, block: int) -> None:
    db.execute("DELETE FROM lines WHERE block = ?", (block,))
    db.execute("DELETE FROM block WHERE id = ?", (block,))


def _split(db: sqlite3.Connection, block: int, lane: int, first: int, last: int, had_at: int) -> int:
    """Cut a block where an acknowledgement begins or ends inside it; a damaged one stays as it is."""
    times = _Times(*db.execute("SELECT at, until, clock, had_at FROM block WHERE id = ?", (block,)).fetchone())
    try:
        rows = rows_of(db, block)
    except DamagedBlock:
        return 0
    remove(db, block)
    count = 0
    for begin, end, had in ((0, first - 1, None), (first, last, had_at), (last + 1, END, None)):
        part = [row for row in rows if begin <= row.seq <= end]
        if part:
            _insert(db, part, batches.compress(batches.encode_lines(part)), replace(times, had_at=had))
            count += len(part) if had is not None else 0
    return count


def _insert(db: sqlite3.Connection, rows: list[Row], packed: bytes, times: _Times) -> None:
    made = db.execute(
        "INSERT INTO block(lane, first, last, n, size, at, until, clock, had_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (rows[0].lane, rows[0].seq, rows[-1].seq, len(rows), len(packed), *astuple(times)),
    )
    db.execute("INSERT INTO lines VALUES (?, ?)", (made.lastrowid, packed))


def _rows(db: sqlite3.Connection, table: Table, lane: int, after: int, upto: int, max_bytes: int) -> list[_Old]:
    """A lane's oldest unpacked rows of one clock after a number, up to the next row or block that lies between."""
    other: Table = "kept" if table == "event" else "event"
    had_at = "NULL" if table == "event" else "had_at"
    start = db.execute(
        f"SELECT MIN(seq) FROM {table} WHERE lane = ? AND seq > ?",  # noqa: S608 - one of two names
        (lane, after),
    ).fetchone()[0]
    if start is None or start > upto:
        return []
    between = (
        f"SELECT MIN(seq) FROM {other} WHERE lane = ? AND seq > ?",  # noqa: S608 - one of two names
        "SELECT MIN(first) FROM block WHERE lane = ? AND first > ?",
    )
    ends = [db.execute(query, (lane, start)).fetchone()[0] for query in between]
    stop = min([end - 1 for end in ends if end is not None], default=END)
    query = (
        f"SELECT seq, at, body, clock, {had_at} FROM {table}"  # noqa: S608 - one of two names
        " WHERE lane = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
    )
    taken: list[_Old] = []
    size = runs = 0
    for seq, at, body, clock, had in db.execute(query, (lane, start, min(upto, stop), BATCH_ROWS)):
        size += len(body) + 32
        runs += body.count(b"],[") + 1  # not less than what a gap's body declares
        if taken and (size > max_bytes or runs > BATCH_RUNS or clock != taken[0].clock):
            break
        taken.append(_Old(Row(seq, lane, body), at, clock, had))
    return taken


def _lines(db: sqlite3.Connection, block: int) -> bytes:
    found = db.execute("SELECT body FROM lines WHERE block = ?", (block,)).fetchone()
    return bytes(found[0]) if found else b""
