"""Looks again at what was delivered, when the rules have changed.

Delivered programs and documents are kept for some days, encrypted, in a store of the quarantine's kind beside it.
A thread opens them one by one, at the pace at which they are looked at; the daemon hands them to the scan workers when
those have nothing else to do. Nothing waits for it.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from dataclasses import dataclass
from typing import Final

from sekisho.appliance.core.errors import SekishoError
from sekisho.inspect.kept import Entry
from sekisho.inspect.quarantine import Quarantine

log = logging.getLogger(__name__)

MAX_BYTES: Final = 8 << 20
"""Larger files are not kept to be looked at again."""
STORE_BYTES: Final = 256 << 20
KEEP_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Again:
    """One kept file; `fd` is the taker's to close."""

    entry: Entry
    fd: int
    length: int


class Rescan:
    """The store's entries, opened ahead of the scanner by at most one."""

    def __init__(self, store: Quarantine) -> None:
        self._store = store
        self._ready: queue.Queue[Again] = queue.Queue(1)
        self._wanted = threading.Event()
        self._stop = False
        self.going = False
        """Files of the last change are still to be looked at."""
        self._thread = threading.Thread(target=self._run, name="rescan", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """The rules have changed: everything is to be looked at (again from the first, if it is under way)."""
        self.going = True
        self._wanted.set()

    def take(self) -> Again | None:
        """The next file, if one is open."""
        try:
            return self._ready.get_nowait()
        except queue.Empty:
            return None

    def close(self) -> None:
        self._stop = True
        self._wanted.set()
        while (again := self.take()) is not None:
            os.close(again.fd)
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop:
            self._wanted.wait()
            self._wanted.clear()
            for entry in reversed(self._store.entries()):
                if self._stop or self._wanted.is_set():
                    break
                self._offer(entry)
            self.going = self._wanted.is_set()

    def _offer(self, entry: Entry) -> None:
        fd = os.memfd_create("again", os.MFD_CLOEXEC)
        length = 0
        try:
            for chunk in self._store.read(entry.id):
                length += os.write(fd, chunk)
        except (SekishoError, OSError) as err:
            log.warning("%s cannot be looked at again: %s", entry.id, err)
            os.close(fd)
            return
        while not self._stop:
            try:
                self._ready.put(Again(entry, fd, length), timeout=1)
                return
            except queue.Full:
                continue
        os.close(fd)
