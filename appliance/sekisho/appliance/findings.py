"""Appliance's own journal: bypass, health and device events, kept in memory while the disk refuses them."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.journal import JournalWriter
from sekisho.telemetry import events

MAX_WAITING: Final = 1000
"""Findings kept while the disk is full; beyond it the oldest goes, and the log says so."""

log = logging.getLogger(__name__)


class Findings:
    """Thread-safe writer of events; never raises, never loses one while memory lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: JournalWriter | None = None
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._lock = threading.Lock()

    def report(self, event: events.Event) -> None:
        """Write `event`, or keep it for the next `flush`."""
        with self._lock:
            if len(self._waiting) == MAX_WAITING:
                log.error("the disk has refused findings for so long that the oldest is dropped")
            self._waiting.append(events.encode(event))
            self._flush()

    def flush(self) -> None:
        """Try again what the disk refused."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._waiting:
                if self._writer is None:
                    self._writer = JournalWriter(self._path)
                self._writer.append(self._waiting[0])
                self._waiting.popleft()
        except (DeviceFault, OSError) as err:
            log.warning("finding kept in memory: %s", err)
