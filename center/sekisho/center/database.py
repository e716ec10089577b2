"""The centre's database: one schema in SQLAlchemy Core for SQLite (embedded) and PostgreSQL (scale).

Every room of the centre declares its tables on `metadata`, in its own module, and writes only in a `transaction`:
all or nothing, durable on exit. On SQLite that is WAL with synchronous=FULL (a power cut loses nothing that was
committed) and BEGIN IMMEDIATE, so that several daemons may write one file; any number may read meanwhile.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory

BUSY_S: Final = 10.0
"""How long a writer waits for another one's commit."""

_SILENCE: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""After how long a silent server counts as gone (libpq's words; seconds, the last in ms)."""
_DRIVERS: Final = (sqlite3.Error, psycopg.Error)
_VALUES: Final = (sqlite3.DataError, sqlite3.IntegrityError, psycopg.DataError, psycopg.IntegrityError)

metadata = sa.MetaData()


class Unstorable(DeviceFault):
    """The database is well; it is this value that it cannot hold. Trying again does not help."""


class Database:
    """Connections to one database; safe to use from several threads."""

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        """Open it: `url` is a path of an SQLite file, or `postgresql://...`; tables that are absent are made.

        Raises:
            DeviceFault: absent (when reading), damaged, unreachable, or the disk refuses.

        """
        self.name = _without_password(url)
        with self._faults():
            self.engine = _engine(url, read_only=read_only)
            if not read_only:
                self._create()
            else:
                with self.engine.connect() as db:
                    db.execute(sa.text("SELECT 1"))

    @property
    def embedded(self) -> bool:
        """Whether it is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """All or nothing, durable on exit.

        Raises:
            DeviceFault: the database refused; nothing of it was stored.

        """
        with self._faults(), self.engine.begin() as db:
            yield db

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view; whatever is written in it is thrown away.

        Raises:
            DeviceFault: the database cannot be read.

        """
        with self._faults(), self.engine.connect() as db:
            yield db

    def close(self) -> None:
        self.engine.dispose()

    def _create(self) -> None:
        with self.engine.begin() as db:
            if db.dialect.name == "postgresql":
                db.execute(sa.text("SELECT pg_advisory_xact_lock(7355608)"))
            metadata.create_all(db)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.SQLAlchemyError, *_DRIVERS, OSError) as err:
            why = getattr(err, "orig", None) or err
            if isinstance(why, _VALUES):
                raise Unstorable(f"{self.name} cannot hold a value: {type(why).__name__}.") from err
            raise DeviceFault(f"Cannot use {self.name}: {_said(why)}.", "Check the path and the free space.") from err


def insert_new(db: sa.Connection, table: sa.Table) -> Any:
    """`INSERT` that passes over rows whose key is there already, in the dialect at hand."""
    if db.dialect.name == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert(table).on_conflict_do_nothing()


def _said(why: BaseException) -> str:
    """What the driver said, without the rows that PostgreSQL quotes in its details and context."""
    return (why.diag.message_primary if isinstance(why, psycopg.Error) else None) or str(why)


def _engine(url: str, *, read_only: bool) -> sa.Engine:
    if url.startswith("postgresql:"):
        return _postgresql(url)
    path = Path(url)
    if not read_only:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _make_file(path)

    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rw"
        db = sqlite3.connect(
            f"file:{path}?mode={mode}", uri=True, isolation_level=None, timeout=BUSY_S, check_same_thread=False
        )
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        return db

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.pool.QueuePool, hide_parameters=True)
    begin = "BEGIN" if read_only else "BEGIN IMMEDIATE"
    sa.event.listen(engine, "begin", lambda db: db.exec_driver_sql(begin))
    return engine


def _postgresql(url: str) -> sa.Engine:
    """Connections that notice a server that is gone, and wait for another one's lock no longer than SQLite does."""
    engine = sa.create_engine(
        url.replace("postgresql:", "postgresql+psycopg:", 1),
        pool_pre_ping=True,
        connect_args=_SILENCE,
        hide_parameters=True,
    )
    busy_ms = int(BUSY_S * 1000)

    def prepare(db: psycopg.Connection[Any], _record: object) -> None:
        db.execute(f"SET lock_timeout = {busy_ms}")
        db.commit()

    sa.event.listen(engine, "connect", prepare)
    return engine


def _make_file(path: Path) -> None:
    """Make the tables aside and give them their name: whoever looks finds them all or no file."""
    made = path.with_name(f".{path.name}.{threading.get_native_id()}")
    made.unlink(missing_ok=True)
    made.touch(0o660)  # the centre's daemons are one group, each its own user
    engine = sa.create_engine(f"sqlite:///{made}", hide_parameters=True)
    # The driver begins none before a CREATE: each would be a transaction of its own, a hundred waits for the disk.
    sa.event.listen(engine, "begin", lambda db: db.exec_driver_sql("BEGIN"))
    try:
        metadata.create_all(engine)
        engine.dispose()
        with suppress(FileExistsError):  # another daemon was first; its file stays
            path.hardlink_to(made)
    finally:
        made.unlink()
    sync_directory(path.parent)


def _without_password(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True) if url.startswith("postgresql:") else url
