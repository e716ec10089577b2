"""Tells appliance which files the engine is to refuse by their hash alone (core.known).

Kept by the recorder's thread: what was found malicious under the rules in force, the newest `MAX_FILES`. Written at
most once in `WRITE_S`, and at the end; a disk that refuses costs the engine's shortcut and nothing else, since the gate
judges every stream in any case.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import known
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import write_atomic

WRITE_S: Final = 0.5

log = logging.getLogger(__name__)


class Refused:
    """The list, in memory and in its file."""

    def __init__(self, path: Path, set_id: str) -> None:
        """Take up what was found under this set before; a list of another set is emptied with the next write."""
        self._path = path
        self._set_id = set_id
        self._files: OrderedDict[str, known.KnownFile] = OrderedDict()
        self._stale = True
        self._written = 0.0
        try:
            self._files.update((file.sha256, file) for file in known.read(path, set_id))
        except RejectedInput as err:
            log.warning("%s It is begun anew.", err)

    def files(self) -> list[known.KnownFile]:
        """Oldest first."""
        return list(self._files.values())

    def add(self, sha256: str, size: int, rules: list[str]) -> None:
        """A file was found malicious."""
        file = known.KnownFile(sha256, size, rules)
        if size < 1 or self._files.get(sha256) == file:
            return
        self._files[sha256] = file
        if len(self._files) > known.MAX_FILES:
            self._files.popitem(last=False)
        self._stale = True

    def begin(self, set_id: str) -> None:
        """Other rules are in force: nothing is known under them yet."""
        self._set_id = set_id
        self._files.clear()
        self._stale = True

    def flush(self, *, now: bool = False) -> None:
        """Write what has changed, not too often unless `now`."""
        if not self._stale or (not now and time.monotonic() - self._written < WRITE_S):
            return
        self._written = time.monotonic()
        try:
            data = msgspec.json.encode(known.KnownFiles(self._set_id, self.files()))
            write_atomic(self._path, data, 0o640)
            self._stale = False
        except OSError as err:
            log.warning("the list of known files cannot be written: %s", err)
