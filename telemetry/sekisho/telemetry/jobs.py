"""Keeps the jobs that came by the broker for the jobs daemon: one file each, on the disk, not looked into.

Nothing is parsed here, in the process that holds the box's key. A message is capped before it is kept, and so is their
number: what has no place comes again, since the centre sends until the box itself has answered. That answer is the
only acknowledgement; a broker's says nothing about this disk.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import ENVELOPE_CAP

INBOX_CAP: Final = 64
"""Messages that wait for the jobs daemon."""
_NAME: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")

log = logging.getLogger(__name__)


def is_name(text: str) -> bool:
    """Whether it is a job's name (a ULID)."""
    return _NAME.fullmatch(text) is not None


class Inbox:
    """The folder, and what was turned away."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.refused = 0
        """Messages that had no job's name, were empty or too large, or found no place."""

    def take(self, name: str, data: bytes) -> bool:
        """Durable at return; whether it is kept.

        Raises:
            DeviceFault: the disk refused it.

        """
        try:
            if not is_name(name) or not 0 < len(data) <= ENVELOPE_CAP or not self._room(name):
                self.refused += 1
                return False
            write_atomic(self._folder / name, data, 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._folder}: {err.strerror}.") from err
        return True

    def _room(self, name: str) -> bool:
        self._folder.mkdir(mode=0o770, parents=True, exist_ok=True)
        there = {path.name for path in self._folder.iterdir()}
        return name in there or len(there) < INBOX_CAP
