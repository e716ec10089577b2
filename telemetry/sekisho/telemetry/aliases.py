"""What each pseudonym stands for, and the key they are made with. Stays on the box: no part of it is ever sent.

A small SQLite file beside the spool, 0600. A pseudonym is noted before an event that carries it may be stored, so
that the owner can always ask (`sekisho telemetry whois`). Beyond the cap the oldest are forgotten; the same address
gets the same pseudonym again.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault

MAX_ALIASES: Final = 100_000
log = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS secret(key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS alias(
  id INTEGER PRIMARY KEY, pseudonym TEXT NOT NULL UNIQUE, plain TEXT NOT NULL, device INTEGER NOT NULL);
"""


class AliasesDamaged(DeviceFault):
    """The file is not a sound database."""


class Aliases:
    """The box's memory of its pseudonyms; one writer."""

    def __init__(self, path: Path) -> None:
        """Open or make it; `open` also copes with a damaged one.

        Raises:
            DeviceFault: the disk refuses.
            AliasesDamaged: the file is no sound database.

        """
        self._path = path
        self._noted: dict[str, tuple[str, bool]] = {}
        with self._faults():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._db.executescript(f"PRAGMA synchronous = FULL; {_SCHEMA}")
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                if not self._db.execute("SELECT 1 FROM secret").fetchone():
                    self._db.execute("INSERT INTO secret VALUES (?)", (secrets.token_bytes(32),))
            self.key = bytes(self._db.execute("SELECT key FROM secret").fetchone()[0])

    @classmethod
    def open(cls, path: Path) -> Aliases:
        """The aliases at `path`; a damaged file is set aside, and a new key makes new pseudonyms from now on.

        Raises:
            DeviceFault: the disk refuses.

        """
        try:
            return cls(path)
        except AliasesDamaged as err:
            aside = path.with_name(f"{path.name}.bad-{secrets.token_hex(4)}")
            log.exception("%s Set aside as %s: devices get new pseudonyms.", err, aside.name)
            with faults(path):
                path.rename(aside)
            return cls(path)

    def devices(self) -> set[str]:
        """Names that devices of the office have had."""
        with self._faults():
            return {str(row[0]) for row in self._db.execute("SELECT plain FROM alias WHERE device")}

    def note(self, pseudonym: str, plain: str, *, of_device: bool = False) -> None:
        """Remember at the next `keep`."""
        known = self._noted.get(pseudonym, ("", False))
        self._noted[pseudonym] = plain, of_device or known[1]

    def keep(self) -> None:
        """Make what was noted durable.

        Raises:
            DeviceFault: the disk refuses; it stays noted.

        """
        if not self._noted:
            return
        rows = [(pseudonym, plain, device) for pseudonym, (plain, device) in self._noted.items()]
        with self._faults(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO alias(pseudonym, plain, device) VALUES (?, ?, ?)"
                " ON CONFLICT(pseudonym) DO UPDATE SET device = MAX(device, excluded.device)",
                rows,
            )
            self._db.execute("DELETE FROM alias WHERE id <= (SELECT MAX(id) FROM alias) - ?", (MAX_ALIASES,))
        self._noted = {}

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        with faults(self._path):
            yield


def whois(path: Path, pseudonym: str) -> str:
    """What a pseudonym stands for, empty where it is none of this box. Reads only.

    Raises:
        DeviceFault: there are no pseudonyms on this box, or they cannot be read.

    """
    with faults(path):
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)
        try:
            found = db.execute("SELECT plain FROM alias WHERE pseudonym = ?", (pseudonym.lower(),)).fetchone()
        finally:
            db.close()
    return str(found[0]) if found else ""


@contextmanager
def faults(path: Path) -> Iterator[None]:
    """The disk's refusals as ours."""
    try:
        yield
    except (sqlite3.Error, OSError) as err:
        if getattr(err, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise AliasesDamaged(f"{path} is damaged: {err}.") from err
        raise DeviceFault(f"Cannot use {path}: {err}.", "Free space on the data partition.") from err
