"""Every file operation of what must survive a power cut, as one thin object.

Only what these calls promise may be relied on: a write is safe after `sync` of its file, a name (made, renamed,
removed) after `sync_directory` of its directory, nothing is safe before. Tests put a disk in its place that records
the operations and shows every state a power cut may leave.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from sekisho.appliance.core import fsio


class Disk:
    """The real one. All calls raise OSError; a full disk is ENOSPC."""

    def read(self, path: Path, cap: int) -> bytes:
        """The whole file; EFBIG when it is longer than `cap` bytes, which none of ours is."""
        with path.open("rb") as source:
            data = source.read(cap + 1)
        if len(data) > cap:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return data

    def names(self, directory: Path) -> list[str]:
        """Sorted; none where there is no such directory."""
        try:
            return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths
        except FileNotFoundError:
            return []

    def make_directory(self, path: Path) -> None:
        """For the owner alone; one that exists is left as it is. Its parent must exist."""
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)

    def write(self, path: Path, data: bytes, at: int | None = None, mode: int = 0o600) -> None:
        """Write at a byte offset, keeping the rest; None: make the file anew with just this content."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if at is None else 0)
        fd = os.open(path, flags, mode)
        try:
            done, start = 0, at or 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], start + done)
        finally:
            os.close(fd)

    def truncate(self, path: Path, length: int) -> None:
        os.truncate(path, length)

    def sync(self, path: Path) -> None:
        """Make a file's content and length safe."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Replaces `new`."""
        old.rename(new)

    def symlink(self, target: str, path: Path) -> None:
        path.symlink_to(target)

    def unlink(self, path: Path) -> None:
        """A file that is not there is no error."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make the names in it safe."""
        fsio.sync_directory(path)

    def replace(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        """As `fsio.write_atomic`: the old content or the new, whatever happens; the new is safe at return."""
        aside = path.with_name(f".{path.name}.new")
        try:
            self.write(aside, data, mode=mode)
            self.sync(aside)
            self.rename(aside, path)
        except OSError:
            with suppress(OSError):
                self.unlink(aside)
            raise
        self.sync_directory(path.parent)
