"""Follows growing line files without losing or repeating a line, across rotation, truncation and restarts.

A position is (device, inode, offset, fingerprint of the file's beginning); the spool keeps it in the
transaction that keeps the events. `read` proposes the next position, `step` goes there in memory, and
`remove_rolled` is for after the commit. A line without its newline is not there yet. Rotation is by
rename to `NAME.1`: the rolled file is read to its end *after* the new one exists (the writer has let
go), then removed. Inodes are reused and /run starts anew at boot, which is why the fingerprint is
compared before an offset is trusted.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 512 << 10
_HEAD_BYTES: Final = 128


@dataclass(frozen=True)
class Position:
    """Everything before `offset` of this file is in the spool."""

    dev: int = 0
    ino: int = 0
    offset: int = 0
    head: bytes = b""


@dataclass(frozen=True)
class Chunk:
    """Whole lines that follow a position, and the position after them."""

    source: str
    position: Position
    lines: list[bytes] = field(default_factory=list)
    too_long: int = 0
    """Lines that exceeded the cap and were skipped."""
    remove: bool = False
    """The rolled file is used up and goes once the position is durable."""


class Tail:
    """One followed file. Not thread-safe; never blocks on the file."""

    def __init__(self, path: Path, position: Position | None, line_cap: int) -> None:
        self.source = path.name
        self._path = path
        self._rolled = path.with_name(path.name + ".1")
        self._cap = line_cap
        self._position = position or Position()
        self._resuming = True
        self._fd = -1
        self._skipping = False
        self.trouble = ""
        """Why the file that is there cannot be opened; empty while it can."""

    def read(self) -> Chunk | None:
        """The next lines, or None when there is nothing new; the same again until `step`."""
        if self._fd < 0 and not self._open():
            return None
        if os.fstat(self._fd).st_size < self._position.offset:
            self._restart_file()
        current = self._identity(self._path)
        chunk = self._read_lines()
        if chunk or current is None or current == self._key():
            return chunk
        return self._next_file(current)

    def step(self, chunk: Chunk) -> None:
        """Go on after this chunk."""
        if (chunk.position.dev, chunk.position.ino) != self._key():
            self.close()
        self._position, self._resuming = chunk.position, False

    def remove_rolled(self) -> None:
        """Remove the rolled file: the position after its last line is durable.

        Raises:
            OSError: the directory cannot be written.

        """
        self._rolled.unlink(missing_ok=True)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _key(self) -> tuple[int, int]:
        return self._position.dev, self._position.ino

    def _open(self) -> bool:
        """Open the file the position names, else the oldest there is; False when there is none."""
        rolled, current = self._identity(self._rolled), self._identity(self._path)
        if rolled and rolled == self._key() and self._open_at(self._rolled, self._position):
            return True
        if current and current == self._key() and self._open_at(self._path, self._position):
            if self._resuming:
                # A rolled file beside it was used up: the last run ended between commit and removal.
                with suppress(OSError):
                    self.remove_rolled()
            return True
        if rolled:
            return self._open_at(self._rolled, Position(*rolled))
        return self._open_at(self._path, Position(*current)) if current else False

    def _open_at(self, path: Path, position: Position) -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as err:
            self.trouble = f"Cannot read {path}: {err.strerror}."
            return False
        self.trouble = ""
        if not _continues(fd, position):
            os.close(fd)
            return False
        self._fd, self._position = fd, position
        self._skipping = position.offset > 0 and os.pread(fd, 1, position.offset - 1) != b"\n"
        return True

    def _restart_file(self) -> None:
        self._position = replace(self._position, offset=0, head=b"")
        self._skipping = False

    def _next_file(self, current: tuple[int, int]) -> Chunk:
        """The opened file has been renamed or removed, and read to its end: step to its successor."""
        rolled = self._identity(self._rolled)
        if rolled == self._key():
            return Chunk(self.source, Position(*current), remove=True)
        return Chunk(self.source, Position(*(rolled or current)))

    def _read_lines(self) -> Chunk | None:
        data = os.pread(self._fd, CHUNK_BYTES, self._position.offset)
        end = data.rfind(b"\n") + 1
        if not end:
            return self._skip(data) if len(data) > self._cap or (self._skipping and data) else None
        lines = data[:end].split(b"\n")
        lines.pop()
        if self._skipping:
            lines.pop(0)
            self._skipping = False
        kept = [line for line in lines if len(line) <= self._cap]
        return Chunk(self.source, self._after(end), [line for line in kept if line], len(lines) - len(kept))

    def _skip(self, data: bytes) -> Chunk:
        """Pass over part of a line that is already longer than the cap."""
        first, self._skipping = not self._skipping, True
        return Chunk(self.source, self._after(len(data)), too_long=int(first))

    def _after(self, length: int) -> Position:
        offset = self._position.offset + length
        head = self._position.head
        if self._position.offset < _HEAD_BYTES:
            head = _fingerprint(self._fd, offset)
        return replace(self._position, offset=offset, head=head)

    @staticmethod
    def _identity(path: Path) -> tuple[int, int] | None:
        try:
            found = path.lstat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def _continues(fd: int, position: Position) -> bool:
    """The open file is the one the position was taken in (same inode is not enough, see above)."""
    if not position.offset:
        return True
    if os.fstat(fd).st_size < position.offset:
        return False
    return _fingerprint(fd, position.offset) == position.head


def _fingerprint(fd: int, offset: int) -> bytes:
    return blake2b(os.pread(fd, min(offset, _HEAD_BYTES), 0), digest_size=8).digest()
