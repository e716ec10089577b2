"""Files that are either the old or the new content after a power cut, never a mixture."""

from __future__ import annotations

import errno
import os
import stat as kinds
from io import BufferedReader
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` durably: write aside, fsync, rename, fsync the directory.

    Raises:
        OSError: disk full or read-only; the old content is untouched.

    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        tmp.replace(path)
    except OSError:
        tmp.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def open_plain(path: Path, cap_bytes: int) -> BufferedReader:
    """For reading what another daemon wrote: a pipe, a device or a file without end would keep the reader for ever.

    Raises:
        OSError: not there, not a plain file, or longer than `cap_bytes`.

    """
    source = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")
    found = os.fstat(source.fileno())
    wrong = 0 if kinds.S_ISREG(found.st_mode) else errno.EINVAL
    if found.st_size > cap_bytes:
        wrong = errno.EFBIG
    if wrong:
        source.close()
        raise OSError(wrong, os.strerror(wrong), str(path))
    return source


def stamp(path: Path) -> tuple[int, int]:
    """Changes when `path` is replaced; (0, 0) while it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)


def sync_directory(path: Path) -> None:
    """Make a rename or unlink in `path` survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
