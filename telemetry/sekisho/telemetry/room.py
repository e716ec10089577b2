"""What goes when the spool reaches its cap, and the exact word about it.

History first: the centre has it. Then what waits, the oldest of the lowest lane, each dropped run declared in
a `Gap`. A run ends where a row survives, so "everything in first..last is either at the centre or dropped"
holds exactly and the centre may count the run as accounted for. Inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from sekisho.telemetry import blocks, events
from sekisho.telemetry.batches import Row
from sekisho.telemetry.events import GAP_RUNS, LANES, Gap

Run = tuple[int, int, int]
"""First and last number, and how many rows were dropped between them."""

_STEP: Final = 50
"""Unpacked rows that go at once, before the space is measured again."""
_HISTORY_STEP: Final = 500


def make(db: sqlite3.Connection, used: Callable[[], int], target: int) -> list[Run]:
    """Drop until `used` says that `target` bytes are left, or nothing is; the runs to declare."""
    while used() > target and _forget_history(db):
        pass
    dropped: list[Run] = []
    for lane in reversed(range(LANES)):
        while used() > target and (more := _drop_oldest(db, lane)):
            dropped += more
    return _join(db, dropped)


def drop_block(db: sqlite3.Connection, block: int) -> list[Run]:
    """Give up one block that cannot be read; the runs to declare."""
    first, last, count = db.execute("SELECT first, last, n FROM block WHERE id = ?", (block,)).fetchone()
    blocks.remove(db, block)
    runs = [(begin, end, 0) for begin, end in _absent(db, first - 1, last + 1, last - first + 1)]
    return [(*runs[0][:2], count), *runs[1:]]


def gone(db: sqlite3.Connection, upto: int, next_seq: int) -> list[Run]:
    """What the box does not have any more of the numbers after `upto`, all others waiting to be sent."""
    (plain,) = db.execute("SELECT COUNT(*) FROM event WHERE seq > ?", (upto,)).fetchone()
    (packed,) = db.execute("SELECT TOTAL(n) FROM block WHERE had_at IS NULL AND first > ?", (upto,)).fetchone()
    across = db.execute("SELECT id FROM block WHERE had_at IS NULL AND first <= ? AND last > ?", (upto, upto))
    partly = sum(number > upto for (block,) in across.fetchall() for number in blocks.numbers_of(db, block))
    missing = next_seq - 1 - upto - plain - int(packed) - partly
    return [(first, last, last - first + 1) for first, last in _absent(db, upto, next_seq, missing)]


def declare(at: str, why: str, runs: list[Run]) -> Iterator[Gap]:
    """The events that say it, `GAP_RUNS` runs in each."""
    for start in range(0, len(runs), GAP_RUNS):
        part = runs[start : start + GAP_RUNS]
        yield Gap(
            at=at,
            first=part[0][0],
            last=part[-1][1],
            count=sum(count for _, _, count in part),
            runs=[(first, last) for first, last, _ in part] if len(part) > 1 else [],
            why=why,
        )


def _forget_history(db: sqlite3.Connection) -> bool:
    block = db.execute("SELECT id FROM block WHERE had_at IS NOT NULL ORDER BY had_at, first LIMIT 1").fetchone()
    if block:
        blocks.remove(db, block[0])
        return True
    oldest = "SELECT seq FROM kept ORDER BY seq LIMIT ?"
    return bool(db.execute(f"DELETE FROM kept WHERE seq IN ({oldest})", (_HISTORY_STEP,)).rowcount)  # noqa: S608 - constant text


def _drop_oldest(db: sqlite3.Connection, lane: int) -> list[Run]:
    """Drop a lane's oldest block or its oldest unpacked rows, whichever come first."""
    block = db.execute(
        "SELECT id, first FROM block WHERE had_at IS NULL AND lane = ? ORDER BY first LIMIT 1", (lane,)
    ).fetchone()
    before = block[1] if block else 1 << 62
    query = "SELECT seq, body FROM event WHERE lane = ? AND seq < ? ORDER BY seq LIMIT ?"
    rows = [Row(seq, lane, body) for seq, body in db.execute(query, (lane, before, _STEP))]
    if rows:
        db.execute("DELETE FROM event WHERE lane = ? AND seq <= ?", (lane, rows[-1].seq))
        return _runs(rows)
    if not block:
        return []
    try:
        rows = blocks.rows_of(db, block[0])
    except blocks.DamagedBlock:
        return drop_block(db, block[0])
    blocks.remove(db, block[0])
    return _runs(rows)


def _runs(rows: list[Row]) -> list[Run]:
    """Runs that go with rows: each row itself, and what a Gap among them had declared."""
    runs: list[Run] = []
    for row in rows:
        runs.append((row.seq, row.seq, 1))
        if row.lane == Gap.lane and isinstance(gap := events.decode(row.body), Gap):
            runs += [(first, last, 0) for first, last in gap.dropped()]
            runs.append((gap.first, gap.dropped()[0][1], gap.count))
    return runs


def _join(db: sqlite3.Connection, dropped: list[Run]) -> list[Run]:
    """Neighbouring runs as one where no row between them survives."""
    if not dropped:
        return []
    dropped = sorted(dropped)
    survivors = list(blocks.waiting_numbers(db, dropped[0][0], dropped[-1][0]))
    runs: list[Run] = []
    for first, last, count in dropped:
        if runs and not _any(survivors, runs[-1][1], first):
            runs[-1] = (runs[-1][0], max(last, runs[-1][1]), runs[-1][2] + count)
        else:
            runs.append((first, last, count))
    return runs


def _any(survivors: list[int], after: int, before: int) -> bool:
    place = bisect_right(survivors, after)
    return place < len(survivors) and survivors[place] < before


def _absent(db: sqlite3.Connection, after: int, before: int, enough: int) -> list[tuple[int, int]]:
    """Runs between two numbers in which nothing waits, lowest first, until they hold `enough` numbers."""
    runs: list[tuple[int, int]] = []
    reached = after
    for number in chain(blocks.waiting_numbers(db, after, before), [before]):
        if enough <= 0:
            break
        if number > reached + 1:
            runs.append((reached + 1, number - 1))
            enough -= number - 1 - reached
        reached = number
    return runs
