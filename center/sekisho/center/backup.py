"""The centre's database as one file that can be brought back: consistent, read again before it counts, rotated.

Nobody waits for it: SQLite copies under a reader's view, pg_dump reads a snapshot. A backup holds what the database
holds, personal data and the links' signing keys too, and is readable by its owner only. It does *not* hold the CA's
key and certificates of the centre: those are kept apart, offline.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory
from sekisho.center.pgtools import PgTools

KEEP: Final = 14
_NAME = re.compile(r"center-\d{8}T\d{6}Z\.(db|pgdump)")


class Saved(msgspec.Struct, frozen=True):
    """A backup that was made and read again."""

    path: str
    size: int
    removed: list[str]
    """Older ones that went for it."""


def save(url: str, directory: Path, now: dt.datetime, keep: int = KEEP) -> Saved:
    """Make a backup of the database at `url` in `directory`, check it, then let all but the newest `keep` go.

    Raises:
        DeviceFault: the database or the disk refuses, or what was written cannot be read; older ones all stay.

    """
    postgres = url.startswith("postgresql:")
    path = directory / f"center-{now.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}.{'pgdump' if postgres else 'db'}"
    partial = path.with_name(f".{path.name}.partial")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in directory.glob(".center-*.partial"):
            left.unlink()  # of a run that was cut off
        partial.touch(0o600)
        if postgres:
            _save_postgres(url, partial)
        else:
            _save_sqlite(Path(url), partial)
        _sync(partial)
        partial.rename(path)
        sync_directory(directory)
        return Saved(str(path), path.stat().st_size, _rotate(directory, keep))
    except OSError as err:
        raise DeviceFault(f"Cannot keep a backup in {directory}: {err}.", "Check the path and the free space.") from err
    finally:
        partial.unlink(missing_ok=True)


def check_sqlite(path: Path) -> set[str]:
    """Read a whole SQLite backup; returns its tables.

    Raises:
        DeviceFault: it is damaged, or no database.

    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise DeviceFault(f"{path} is damaged.")
            return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error as err:
        raise DeviceFault(f"{path} cannot be read as a backup: {err}.") from err


def check_tables(path: Path, tables: set[str]) -> None:
    """Refuse what holds no centre.

    Raises:
        DeviceFault: the tables of a centre are not there.

    """
    if not {"event", "stream", "box"} <= tables:
        raise DeviceFault(f"{path} holds no centre's database.")


def _save_sqlite(source: Path, partial: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as db,
            closing(sqlite3.connect(partial)) as copy,
        ):
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
    except sqlite3.Error as err:
        raise DeviceFault(f"Cannot copy {source}: {err}.", "Check the path and the free space.") from err
    check_tables(partial, check_sqlite(partial))


def _save_postgres(url: str, partial: Path) -> None:
    tools = PgTools(url)
    tools.dump(partial)
    check_tables(partial, tools.tables(partial))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _rotate(directory: Path, keep: int) -> list[str]:
    old = sorted(path for path in directory.iterdir() if _NAME.fullmatch(path.name))[: -max(1, keep)]
    for path in old:
        path.unlink()
    return [str(path) for path in old]
