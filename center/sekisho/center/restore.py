"""A backup becomes an empty centre's database, and the boxes are asked for what the backup does not have.

The store's generation grows, past whatever any box has heard: a box that hears it sends again what it still keeps
beyond the centre's `upto`. Nobody is told twice: what waited to be told when the backup was made is taken as told, and
what a box sends again after it was acknowledged comes marked as such (`outbox.RESTORED`). What was revoked since the
backup the CA takes from its list (`ca/revoking.py`). All or nothing.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory
from sekisho.center.backup import check_sqlite, check_tables
from sekisho.center.database import Database, metadata
from sekisho.center.outbox import NEW, RESTORED
from sekisho.center.pgtools import PgTools


class Restored(msgspec.Struct, frozen=True):
    """What was brought back."""

    generation: int
    streams: int
    events: int


def restore(url: str, file: Path, now: dt.datetime) -> Restored:
    """Bring `file` into the empty place at `url`; no daemon of the centre runs meanwhile.

    Raises:
        DeviceFault: there is a database already, the file is no sound backup, or the disk or server refuses;
            nothing is there then.

    """
    if url.startswith("postgresql:"):
        _restore_postgres(url, file, now)
    else:
        _restore_sqlite(Path(url), file, now)
    database = Database(url, read_only=True)
    with database.reading() as db:
        generation, streams, events = (
            int(db.scalar(sa.text(query)) or 0)
            for query in (
                "SELECT generation FROM store",
                "SELECT COUNT(*) FROM stream",
                "SELECT COUNT(*) FROM event",
            )
        )
    database.close()
    return Restored(generation, streams, events)


def _restore_sqlite(path: Path, file: Path, now: dt.datetime) -> None:
    if path.exists():
        raise DeviceFault(f"{path} is there already.", "Move it away first: a restore never overwrites a database.")
    tables = check_sqlite(file)
    check_tables(file, tables)
    made = path.with_name(f".{path.name}.restored")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made.unlink(missing_ok=True)
        made.touch(0o660)
        shutil.copyfile(file, made)
        with closing(sqlite3.connect(made)) as db, db:
            for statement in _then(tables, now):
                db.execute(statement)
        path.hardlink_to(made)
        sync_directory(path.parent)
    except FileExistsError as err:
        raise DeviceFault(f"{path} is there already.", "A daemon made it meanwhile: stop it first.") from err
    except (OSError, sqlite3.Error) as err:
        raise DeviceFault(f"Cannot restore to {path}: {err}.", "Check the path and the free space.") from err
    finally:
        made.unlink(missing_ok=True)


def _restore_postgres(url: str, file: Path, now: dt.datetime) -> None:
    tools = PgTools(url)
    tables = tools.tables(file)
    check_tables(file, tables)
    database = Database(url, read_only=True)
    try:
        with database.reading() as db:
            there = set(sa.inspect(db).get_table_names()) & set(metadata.tables)
    finally:
        database.close()
    if there:
        raise DeviceFault("There is a centre in this database already.", "Restore into one that was just created.")
    tools.restore(file, *_then(tables, now))


def _then(tables: set[str], now: dt.datetime) -> list[str]:
    """What makes a copy a restored centre, in SQL that both databases understand; all values are ours."""
    grown = "CASE WHEN store.generation >= excluded.generation THEN store.generation + 1 ELSE excluded.generation END"
    told = "'failed', reply = 'restored from a backup: most likely sent before'"
    before = now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    statements = [
        f"INSERT INTO store(id, generation) VALUES (1, {int(now.timestamp())})"  # noqa: S608 - a number
        f" ON CONFLICT (id) DO UPDATE SET generation = {grown}",
        f"UPDATE notice SET state = '{RESTORED}' WHERE state = '{NEW}'",  # noqa: S608 - constants
    ]
    if "fleet_list" in tables:
        # Past every number a box has heard: it refuses an older list. Without a base the next list is a whole one.
        number = "CASE WHEN fleet_list.n >= excluded.n THEN fleet_list.n + 1 ELSE excluded.n END"
        statements.append(
            f"INSERT INTO fleet_list(one, n, base, based_at) VALUES (1, {int(now.timestamp())}, 0, 0)"  # noqa: S608
            f" ON CONFLICT (one) DO UPDATE SET n = {number}, base = 0, based_at = 0"
        )
    if "rule_word" in tables:
        # Likewise: every box hears once more what is switched off, and that what was since is not.
        number = "CASE WHEN rule_word.n >= excluded.n THEN rule_word.n + 1 ELSE excluded.n END"
        statements.append(
            f"INSERT INTO rule_word(one, n, newest, sent_n, sent_at) VALUES (1, {int(now.timestamp())}, 0, 0, '')"  # noqa: S608
            f" ON CONFLICT (one) DO UPDATE SET n = {number}"
        )
    if "orders" in tables:
        # What is decided about a box goes to it once more, past every number it has heard: box and centre agree again.
        now_s = int(now.timestamp())
        statements.append(
            f"UPDATE orders SET n = CASE WHEN n >= {now_s} THEN n + 1 ELSE {now_s} END, sent_n = 0"  # noqa: S608 - a number
        )
    if "mail" in tables:
        due = f"state IN ('due', 'sending') AND due_at <= '{before}'"
        statements.append(f"UPDATE mail SET state = {told} WHERE {due}")  # noqa: S608 - constants and a time
    return statements
