"""The spool for the owner's eyes: read-only, beside the running daemon. Changes nothing, sends nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import hits
from sekisho.telemetry.events import LANES
from sekisho.telemetry.hits import Hit


class LaneStatus(msgspec.Struct, frozen=True):
    """What one lane holds."""

    lane: int
    rows: int = 0
    bytes: int = 0
    oldest: str = ""


class SentRow(msgspec.Struct, frozen=True):
    """One acknowledged event, as it was sent."""

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
        query = "SELECT lane, COUNT(*), SUM(length(body)), MIN(at) FROM event GROUP BY lane"
        found = {row[0]: LaneStatus(*row) for row in self._rows(query)}
        return [found.get(lane, LaneStatus(lane)) for lane in range(LANES)]

    def sent(self, limit: int) -> list[SentRow]:
        """The newest rows the centre has acknowledged, oldest of them first."""
        rows = self._rows("SELECT seq, lane, body FROM sent ORDER BY seq DESC LIMIT ?", limit)
        return [SentRow(seq, lane, msgspec.Raw(body)) for seq, lane, body in reversed(rows)]

    def hits(self) -> list[Hit]:
        """How often each entry and exception of the policy was used; a spool of an older release has none."""
        if not self._rows("SELECT 1 FROM sqlite_master WHERE name = 'hit'"):
            return []
        return [Hit(*row) for row in self._rows(hits.QUERY)]

    def close(self) -> None:
        self._db.close()

    def _rows(self, query: str, *args: int) -> list[tuple]:  # type: ignore[type-arg]  # rows of any shape
        try:
            return self._db.execute(query, args).fetchall()
        except sqlite3.Error as err:
            raise self._fault(err) from err

    def _fault(self, err: sqlite3.Error) -> DeviceFault:
        return DeviceFault(f"Cannot read {self._path}: {err}.", "Has telemetry been started on this box?")
