"""Keeps the file store from filling: what nobody will ask for any more is removed, on a thread of its own.

Judging a file removes it. What is left is rare: the same content stored again in the instant it was
removed, or parts of connections that the engine forgot. The store is memory, so it must not add up.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)

EVERY_S = 60.0
STORED_S = 300.0
"""Far longer than any file waits for its verdict."""
OPEN_S = 3600.0
"""A file still being received is not older than this without growing."""


def sweep(store: Path, now: float) -> int:
    """Remove what is stale; how many files. `now` is wall-clock seconds, as file times are."""
    removed = 0
    for folder, _, names in os.walk(store):
        limit = OPEN_S if Path(folder).name == "tmp" else STORED_S
        for name in names:
            path = Path(folder) / name
            try:
                if now - path.stat().st_mtime > limit:
                    path.unlink()
                    removed += 1
            except OSError:
                continue  # judged and removed meanwhile
    return removed


class Janitor:
    """Sweeps every minute until stopped."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            removed = sweep(self._store, time.time())
            if removed:
                log.info("%d stale files removed from the store", removed)
