"""The spool's file: opened the safe way, its faults told apart, its size known, its reserve on the disk.

SQLite in WAL with synchronous=FULL: a transaction that has returned survives a power cut. What the spool
may use is counted as the disk sees it: database, write-ahead log and reserve together stay under the cap.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory

LOG_BYTES: Final = 4 << 20
"""Size at which the write-ahead log is written back, and to which it is cut."""
RESERVE_BYTES: Final = 4 << 20
"""Kept free beside the database: deleting on a full disk needs space for the write-ahead log."""
_SHARE: Final = 16
"""Of a small cap, log and reserve take 1/16 each."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SpoolDamaged(DeviceFault):
    """The database file is not a sound database; `Spool.open` sets it aside and starts a new epoch."""


class SpoolFull(DeviceFault):
    """The disk has no room for the transaction."""


class SpoolFile:
    """One open database file under a byte cap."""

    def __init__(self, path: Path, cap_bytes: int) -> None:
        self.path = path
        self._log = min(LOG_BYTES, cap_bytes // _SHARE)
        self._reserved = min(RESERVE_BYTES, cap_bytes // _SHARE)
        self._reserve = path.with_name(path.name + ".reserve")
        self.db = self._connect()
        self.limit = cap_bytes - 3 * self._log - self._reserved
        """Bytes the database may have: the log passes its own by a transaction, which is never split."""

    def used(self) -> int:
        """Bytes of the database in use; the file is as large as this ever was, and fills its free pages first."""
        pages, free, size = (self._pragma(name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def check(self) -> None:
        """Read the whole file.

        Raises:
            SpoolDamaged: it is not what was written.

        """
        if self.db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise SpoolDamaged(f"{self.path} is damaged.")

    @contextmanager
    def faults(self) -> Iterator[None]:
        with faults(self.path):
            yield

    @contextmanager
    def reserve_released(self) -> Iterator[None]:
        """For what makes room: on a full disk the reserve makes it possible, and is taken back after."""
        self._reserve.unlink(missing_ok=True)
        self._empty_log()
        yield
        self._empty_log()
        self.take_reserve()

    def take_reserve(self) -> None:
        with suppress(OSError):
            fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._reserved)
                os.ftruncate(fd, self._reserved)
            finally:
                os.close(fd)

    def _empty_log(self) -> None:
        with suppress(sqlite3.Error):
            self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _pragma(self, name: str) -> int:
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])

    def _connect(self) -> sqlite3.Connection:
        with self.faults():
            db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA secure_delete = OFF")
            db.execute(f"PRAGMA wal_autocheckpoint = {max(8, self._log // 4096)}")
            db.execute(f"PRAGMA journal_size_limit = {self._log}")
            db.execute("PRAGMA cache_size = -2048")
            self.path.chmod(0o600)
        return db


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as err:
        code = getattr(err, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            raise SpoolDamaged(f"{path} is damaged: {err}.") from err
        kind = SpoolFull if code == sqlite3.SQLITE_FULL else DeviceFault
        raise kind(f"Cannot use {path}: {err}.", "Free space on the data partition.") from err


def set_aside(path: Path) -> None:
    """Rename a damaged file, durably, in place of one set aside before: two of them would fill the disk.

    The database goes first: SQLite throws away a log that it finds beside an empty one, but would go back to the
    state before the log, and use its numbers again, if only the log were gone.
    """
    earlier = _asides(path)
    number = max(earlier, default=0) + 1
    path.rename(path.with_name(f"{path.name}.bad-{number}"))
    sync_directory(path.parent)
    for leftover in (f"{path.name}-wal", f"{path.name}-shm", *(old.name for old in earlier.values())):
        path.with_name(leftover).unlink(missing_ok=True)


def newest_aside(path: Path) -> str:
    """The name of the file last set aside; empty where there is none."""
    asides = _asides(path)
    return asides[max(asides)].name if asides else ""


def _asides(path: Path) -> dict[int, Path]:
    found = ((aside.name.rpartition("-")[2], aside) for aside in path.parent.glob(f"{path.name}.bad-*"))
    return {int(number): aside for number, aside in found if number.isdecimal()}
