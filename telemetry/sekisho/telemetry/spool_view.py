"""The spool for the owner's eyes: read-only, beside the running daemon. Changes nothing, sends nothing.

Reads in short steps: a reader that stays in the database keeps its write-ahead log from being written back.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import batches, hits
from sekisho.telemetry.batches import Row
from sekisho.telemetry.events import LANES
from sekisho.telemetry.hits import Hit

_STEP: Final = 500
_NEVER: Final = 1 << 62
_WAITS: Final = ("event", "had_at IS NULL")
_KEPT: Final = ("kept", "had_at IS NOT NULL")
"""The table of unpacked rows, and which blocks."""


class LaneStatus(msgspec.Struct, frozen=True):
    """What one lane holds."""

    lane: int
    rows: int = 0
    bytes: int = 0
    """As it lies on the disk: old rows are packed."""
    oldest: str = ""


class SentRow(msgspec.Struct, frozen=True):
    """One event, as it was or will be sent."""

    seq: int
    lane: int
    event: msgspec.Raw


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

    def sent(self, limit: int | None = None, since: str = "") -> Iterator[SentRow]:
        """Rows the centre has acknowledged and the box still keeps, of times from `since` on (UTC, RFC 3339).

        Oldest first; with `limit` only the newest so many, which are then held in memory.
        """
        if limit is not None:
            return reversed(list(islice(self._all(_KEPT, since, newest_first=True), limit)))
        return self._all(_KEPT, since)

    def pending(self, since: str = "") -> Iterator[SentRow]:
        """Rows that wait for the centre's acknowledgement, oldest first; the first of each lane may be under way."""
        return self._all(_WAITS, since)

    def hits(self) -> list[Hit]:
        """How often each entry and exception of the policy was used; a spool of an older release has none."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'hit'"):
            return []
        return [Hit(*row) for row in self._rows(hits.QUERY)]

    def close(self) -> None:
        self._db.close()

    def _all(self, of: tuple[str, str], since: str, *, newest_first: bool = False) -> Iterator[SentRow]:
        lanes = [self._plain(of[0], since, newest_first)]
        lanes += [self._packed(of[1], lane, since, newest_first) for lane in range(LANES)]
        for row in heapq.merge(*lanes, key=lambda row: row.seq, reverse=newest_first):
            yield SentRow(row.seq, row.lane, msgspec.Raw(row.body))

    def _plain(self, table: str, since: str, newest_first: bool) -> Iterator[Row]:
        order, beyond, last = ("DESC", "<", _NEVER) if newest_first else ("ASC", ">", 0)
        query = (
            f"SELECT seq, lane, body FROM {table} WHERE seq {beyond} ? AND at >= ?"  # noqa: S608 - constant text
            f" ORDER BY seq {order} LIMIT {_STEP}"
        )
        while step := self._rows(query, last, since):
            yield from (Row(*row) for row in step)
            last = step[-1][0]

    def _packed(self, state: str, lane: int, since: str, newest_first: bool) -> Iterator[Row]:
        order, beyond, last = ("DESC", "<", _NEVER) if newest_first else ("ASC", ">", 0)
        query = (
            f"SELECT first, body FROM block JOIN lines ON lines.block = id WHERE {state}"  # noqa: S608 - constant text
            f" AND lane = ? AND first {beyond} ? AND until >= ?"
            f" ORDER BY first {order} LIMIT 1"
        )
        while step := self._rows(query, lane, last, since):
            last, body = step[0]
            rows = [row for row in batches.decode_lines(batches.expand(body)) if not since or _at(row) >= since]
            yield from reversed(rows) if newest_first else rows

    def _rows(self, query: str, *args: int | str) -> list[tuple]:  # type: ignore[type-arg]  # rows of any shape
        try:
            return self._db.execute(query, args).fetchall()
        except sqlite3.Error as err:
            raise self._fault(err) from err

    def _fault(self, err: sqlite3.Error) -> DeviceFault:
        return DeviceFault(f"Cannot read {self._path}: {err}.", "Has telemetry been started on this box?")


class _Time(msgspec.Struct):
    at: str = ""


_time = msgspec.json.Decoder(_Time).decode


def _at(row: Row) -> str:
    return _time(row.body).at
