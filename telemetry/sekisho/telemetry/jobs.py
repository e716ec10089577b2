"""Keeps the jobs that came by the broker for the jobs daemon: one file each, on the disk, not looked into.

Nothing is parsed here, in the process that holds the box's key. A message is capped before it is kept, and so are their
number and how many are written in a time, for the flash's sake: what has no place comes again, since the centre sends
until the box itself has answered. That answer is the only acknowledgement; a broker's says nothing about this disk.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import ENVELOPE_CAP

INBOX_CAP: Final = 64
"""Messages that wait for the jobs daemon; as many are written at once."""
EVERY_S: Final = 6.0
"""After these one more may be written."""
_NAME: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")

log = logging.getLogger(__name__)


def is_name(text: str) -> bool:
    """Whether it is a job's name (a ULID)."""
    return _NAME.fullmatch(text) is not None


class Inbox:
    """The folder, and what was turned away."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._may, self._counted = float(INBOX_CAP), clock()
        self.refused = 0
        """Messages that had no job's name, were empty or too large, found no place, or came too fast."""

    def take(self, name: str, data: bytes) -> bool:
        """Durable at return; whether it is kept.

        Raises:
            DeviceFault: the disk refused it.

        """
        try:
            if not is_name(name) or not 0 < len(data) <= ENVELOPE_CAP or not (self._slow() and self._room(name)):
                self.refused += 1
                return False
            self._may -= 1
            write_atomic(self._folder / name, data, 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._folder}: {err.strerror}.") from err
        return True

    def _slow(self) -> bool:
        """Whether one more may be written by now."""
        now = self._clock()
        self._may, self._counted = min(self._may + (now - self._counted) / EVERY_S, float(INBOX_CAP)), now
        return self._may >= 1

    def _room(self, name: str) -> bool:
        self._folder.mkdir(mode=0o770, parents=True, exist_ok=True)
        there = set()
        for path in self._folder.iterdir():
            if is_name(path.name):
                there.add(path.name)
            elif path.name.endswith(".tmp"):  # the power failed while it was written, and nobody writes now
                path.unlink(missing_ok=True)
        return name in there or len(there) < INBOX_CAP
