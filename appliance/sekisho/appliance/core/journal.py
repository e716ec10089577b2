"""A room's findings, one JSON line each, on disk before anyone is told.

The writer appends whole lines; the reader (telemetry) remembers (device, inode, offset) in the
same transaction as the events it made of them. A line without its newline is not there yet.
When the file passes `roll_bytes` and no rolled file is waiting, it is renamed to `NAME.1`; the
reader drains and removes `NAME.1` first. Nothing is ever overwritten: while a rolled file waits,
the current one grows, and telemetry's own cap decides what is dropped and declares it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault

NEWEST_BYTES: Final = 256 << 10
"""Far more than one journal of a machine can hold untold."""


def newest_lines(path: Path, most: int = NEWEST_BYTES) -> Iterator[bytes]:
    """The last lines of the rolled file and of the current one, `most` bytes of each; a first may be half a line."""
    for one in (path.with_name(path.name + ".1"), path):
        with suppress(OSError), one.open("rb") as source:
            source.seek(max(0, one.stat().st_size - most))
            yield from source


class JournalWriter:
    """Appends findings durably. One writer per file; safe against kill -9 at any instant."""

    def __init__(self, path: Path, *, roll_bytes: int = 8 << 20) -> None:
        self.path = path
        self._roll_bytes = roll_bytes
        self._fd = -1
        self._open()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")

    def append(self, line: bytes, *, durable: bool = True) -> None:
        """Write one finding (JSON without newline) and return when it is on disk (`durable`) or with the kernel.

        Raises:
            DeviceFault: the disk refused it (full, read-only); the caller keeps the finding and retries.

        """
        try:
            self._append(line + b"\n", durable)
        except OSError as err:
            raise DeviceFault(
                f"Cannot write {self.path}: {err.strerror}.", "Free space on the data partition."
            ) from err

    def _append(self, data: bytes, durable: bool) -> None:
        start = os.fstat(self._fd).st_size
        written = os.write(self._fd, data)
        if written != len(data):
            os.ftruncate(self._fd, start)
            raise OSError(28, "No space left on device")
        if durable:
            os.fdatasync(self._fd)
        if start + written >= self._roll_bytes:
            self._roll()

    def _roll(self) -> None:
        rolled = self.path.with_name(self.path.name + ".1")
        if rolled.exists():
            return
        former = self._fd
        self.path.rename(rolled)
        try:
            self._open()
        except OSError:  # no room for another file: the one that was rolled is it again
            rolled.rename(self.path)
            return
        os.close(former)

    def close(self) -> None:
        os.close(self._fd)
