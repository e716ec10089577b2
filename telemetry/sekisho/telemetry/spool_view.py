"""The spool for the owner's eyes: read-only, beside the running daemon. Changes nothing, sends nothing.

Reads in short steps: a reader that stays in the database keeps its write-ahead log from being written back.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import batches, hits, said
from sekisho.telemetry.batches import Row
from sekisho.telemetry.clocks import SMALL_S
from sekisho.telemetry.events import LANES
from sekisho.telemetry.hits import Hit
from sekisho.telemetry.said import Said

_STEP: Final = 500
_NEVER: Final = 1 << 62


class _Of(NamedTuple):
    """Where rows of one kind lie."""

    table: str
    """The unpacked ones."""
    blocks: str
    had_at: str


_WAITS: Final = _Of("event", "had_at IS NULL", "0")
_KEPT: Final = _Of("kept", "had_at IS NOT NULL", "had_at")


class LaneStatus(msgspec.Struct, frozen=True):
    """What one lane holds."""

    lane: int
    rows: int = 0
    bytes: int = 0
    """As it lies on the disk: old rows are packed."""
    oldest: str = ""


class SentRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event, as it was or will be sent."""

    seq: int
    lane: int
    event: msgspec.Raw
    off: float = 0.0
    """Seconds that its batch told the centre to add to its times: the clock was wrong."""
    acknowledged: bool = False


class SpoolView:
    """Questions about one spool file."""

    def __init__(self, path: Path) -> None:
        """Open read-only.

        Raises:
            DeviceFault: there is no spool, or it cannot be read.

        """
        self._path = path
        try:
            self._db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        except sqlite3.Error as err:
            raise self._fault(err) from err
        self.epoch()

    def epoch(self) -> str:
        rows = self._rows("SELECT value FROM meta WHERE key = 'epoch'")
        return str(rows[0][0]) if rows else ""

    def connected(self) -> bool:
        return self._rows("SELECT value FROM meta WHERE key = 'link'") == [("up",)]

    def next_seq(self) -> int:
        rows = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'event'")
        return int(rows[0][0]) + 1 if rows else 1

    def waiting(self) -> list[LaneStatus]:
        """Every lane, also the empty ones."""
        query = (
            "SELECT lane, SUM(n), SUM(size), MIN(at) FROM"
            " (SELECT lane, 1 AS n, length(body) AS size, at FROM event"
            " UNION ALL SELECT lane, n, size, at FROM block WHERE had_at IS NULL) GROUP BY lane"
        )
        found = {row[0]: LaneStatus(*row) for row in self._rows(query)}
        return [found.get(lane, LaneStatus(lane)) for lane in range(LANES)]

    def sent(self, limit: int | None = None, since_s: int = 0) -> Iterator[SentRow]:
        """Rows the centre has acknowledged at `since_s` (unix seconds) or later, as far as the box still keeps them.

        Oldest first; with `limit` only the newest so many, which are then held in memory.
        """
        if limit is not None:
            return reversed(list(islice(self._all(_KEPT, since_s, newest_first=True), limit)))
        return self._all(_KEPT, since_s)

    def under_way(self) -> Iterator[SentRow]:
        """Rows that have been published and are not acknowledged yet, oldest first."""
        row = self._rows("SELECT value FROM meta WHERE key = 'reached'")
        reached = [int(number) for number in row[0][0].split()] if row else [0] * LANES
        return (row for row in self.pending() if row.seq <= reached[row.lane])

    def pending(self) -> Iterator[SentRow]:
        """Rows that wait for the centre's acknowledgement, oldest first."""
        return self._all(_WAITS)

    def said(self, since: str = "") -> list[Said]:
        """What was published besides events, from `since` on (UTC, RFC 3339)."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'said'"):
            return []
        return [Said(at, topic, msgspec.Raw(payload)) for at, topic, payload in self._rows(said.QUERY, since)]

    def hits(self) -> list[Hit]:
        """How often each entry and exception of the policy was used; a spool of an older release has none."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'hit'"):
            return []
        return [Hit(*row) for row in self._rows(hits.QUERY)]

    def close(self) -> None:
        self._db.close()

    def _all(self, of: _Of, since_s: int = 0, *, newest_first: bool = False) -> Iterator[SentRow]:
        offs = self._offs()
        lanes = [self._plain(of, since_s, newest_first)]
        lanes += [self._packed(of, lane, since_s, newest_first) for lane in range(LANES)]
        for row, clock in heapq.merge(*lanes, key=lambda found: found[0].seq, reverse=newest_first):
            yield SentRow(row.seq, row.lane, msgspec.Raw(row.body), offs.get(clock, 0.0), of is _KEPT)

    def _plain(self, of: _Of, since_s: int, newest_first: bool) -> Iterator[tuple[Row, int]]:
        order, beyond, last = ("DESC", "<", _NEVER) if newest_first else ("ASC", ">", 0)
        query = (
            f"SELECT seq, lane, body, clock FROM {of.table}"  # noqa: S608 - constant text
            f" WHERE seq {beyond} ? AND {of.had_at} >= ? ORDER BY seq {order} LIMIT {_STEP}"
        )
        while step := self._rows(query, last, since_s):
            yield from ((Row(*row[:3]), row[3]) for row in step)
            last = step[-1][0]

    def _packed(self, of: _Of, lane: int, since_s: int, newest_first: bool) -> Iterator[tuple[Row, int]]:
        order, beyond, last = ("DESC", "<", _NEVER) if newest_first else ("ASC", ">", 0)
        query = (
            f"SELECT first, body, clock FROM block JOIN lines ON lines.block = id WHERE {of.blocks}"  # noqa: S608 - constant text
            f" AND lane = ? AND first {beyond} ? AND {of.had_at} >= ? ORDER BY first {order} LIMIT 1"
        )
        while step := self._rows(query, lane, last, since_s):
            last, body, clock = step[0]
            rows = batches.decode_lines(batches.expand(body))
            yield from ((row, clock) for row in (reversed(rows) if newest_first else rows))

    def _offs(self) -> dict[int, float]:
        """Of each clock, what is added to its times; those that were right are left out."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'clock'"):
            return {}
        query = "SELECT id, ROUND(off, 3) FROM clock WHERE ABS(off) >= ?"
        return dict(self._rows(query, SMALL_S))

    def _rows(self, query: str, *args: float | str) -> list[tuple]:  # type: ignore[type-arg]  # rows of any shape
        try:
            return self._db.execute(query, args).fetchall()
        except sqlite3.Error as err:
            raise self._fault(err) from err

    def _fault(self, err: sqlite3.Error) -> DeviceFault:
        return DeviceFault(f"Cannot read {self._path}: {err}.", "Has telemetry been started on this box?")
