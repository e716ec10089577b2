"""The centre's database: durable, shared by several writers, honest about what it cannot do."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database, insert_new


def _names(database: Database) -> list[str]:
    with database.reading() as db:
        return list(db.scalars(sa.select(CUSTOMER.c.tenant).order_by(CUSTOMER.c.tenant)))


def test_all_or_nothing(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    with pytest.raises(ZeroDivisionError), database.transaction() as db:
        db.execute(CUSTOMER.insert(), {"tenant": "a", "reseller": ""})
        raise ZeroDivisionError
    assert _names(database) == []
    with database.transaction() as db:
        db.execute(CUSTOMER.insert(), {"tenant": "a", "reseller": ""})
    assert _names(Database(str(tmp_path / "center.db"), read_only=True)) == ["a"]


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "center.db"))
    for text in ("first", "second"):
        with database.transaction() as db:
            db.execute(insert_new(db, CUSTOMER), [{"tenant": "a", "reseller": text}])
    with database.reading() as db:
        assert list(db.scalars(sa.select(CUSTOMER.c.reseller))) == ["first"]


def test_two_writers_take_turns(tmp_path: Path) -> None:
    databases = [Database(str(tmp_path / "center.db")) for _ in range(2)]

    def write(number: int) -> None:
        for count in range(20):
            with databases[number].transaction() as db:
                db.execute(CUSTOMER.insert(), {"tenant": f"{number}-{count}", "reseller": ""})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_names(databases[0])) == 40


def test_a_reader_changes_nothing_and_needs_a_database(tmp_path: Path) -> None:
    with pytest.raises(DeviceFault, match="Cannot use"):
        Database(str(tmp_path / "absent.db"), read_only=True)
    path = tmp_path / "center.db"
    Database(str(path)).close()
    reader = Database(str(path), read_only=True)
    with pytest.raises(DeviceFault, match="readonly"), reader.transaction() as db:
        db.execute(CUSTOMER.insert(), {"tenant": "a", "reseller": ""})
    assert path.stat().st_mode & 0o007 == 0


def test_what_a_statement_was_to_store_is_not_told(store_url: str) -> None:
    database = Database(store_url)
    with pytest.raises(DeviceFault) as told, database.transaction() as db:
        db.execute(sa.text("SELECT :value FROM nowhere"), {"value": str(77**9)})
    assert str(77**9) not in "".join(traceback.format_exception(told.value))
    if not database.embedded:
        with pytest.raises(DeviceFault, match="no room") as told, database.transaction() as db:
            db.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION 'no room' USING DETAIL = 's3cret'; END $$"))
        assert "s3cret" not in str(told.value)
    database.close()


def test_a_password_is_not_told() -> None:
    with pytest.raises(DeviceFault) as told:
        Database("postgresql://someone:s3cret@127.0.0.1:1/none")
    assert "s3cret" not in str(told.value)
