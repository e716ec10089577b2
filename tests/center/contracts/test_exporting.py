"""What a customer takes away: everything that would be deleted, nothing of others, no secret, in bounded memory."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent / "drive"))

import filler
from filler import NOW, THEM, US

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.contracts import exporting, plan
from sekisho.center.contracts.tables import EXPORT
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database, metadata
from sekisho.center.portal import accounts
from sekisho.center.portal.access import mails, onetime
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import EVENT


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    plan.know_every_room()
    made = Database(store_url)
    filler.fill(made)
    yield made
    made.close()


def _export(database: Database, files: Path, tenant: str = US) -> exporting.Export:
    with database.transaction() as db:
        made = exporting.ask(db, tenant, "admin@example.com", NOW)
    while exporting.run_next(database, database, files, NOW, lambda: None):
        pass
    with database.reading() as db:
        found = exporting.ready(db, only(tenant), made)
    assert found is not None
    return found


def test_everything_that_would_be_deleted_is_in_it_but_secrets(database: Database, tmp_path: Path) -> None:
    made = _export(database, tmp_path)
    with zipfile.ZipFile(tmp_path / f"{made.id}.zip") as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        whole = b"".join(archive.read(name) for name in names)
        contents = json.loads(archive.read("contents.json"))
        for name, number in contents.items():
            assert len(archive.read(name).splitlines()) == number, name
    assert THEM.encode() not in whole
    wanted = {f"tables/{part.table.name}.jsonl" for part in plan.parts(US, "2026-11-01")} - {"tables/event.jsonl"}
    withheld = wanted - names
    for name in withheld:
        table = metadata.tables[name.removeprefix("tables/").removesuffix(".jsonl")]
        assert table.name in exporting.WITHHELD or plan.whose(table) == "account", f"{name} is not handed out"
    assert sum(number for name, number in contents.items() if name.startswith("events/")) == 3
    assert made.rows == made.total == sum(contents.values())
    digest = hashlib.sha256((tmp_path / f"{made.id}.zip").read_bytes()).hexdigest()
    assert (made.sha256, made.size) == (digest, (tmp_path / f"{made.id}.zip").stat().st_size)


def test_no_link_that_opens_an_account_leaves_with_it(database: Database, tmp_path: Path) -> None:
    with database.transaction() as db:
        account = accounts.make(db, "colleague@example.com", "admin", tenant=US, now=NOW)
        row = db.execute(sa.select(accounts.ACCOUNT).where(accounts.ACCOUNT.c.id == account)).one()
        links = [onetime.make(db, account, kind, NOW) for kind in onetime.LIVES]
        for kind, link in zip(onetime.LIVES, links, strict=True):
            mails.post(db, kind, row, f"https://portal.example{link}", NOW)
        mails.post(db, "account", row, "", NOW)
    made = _export(database, tmp_path)
    with zipfile.ZipFile(tmp_path / f"{made.id}.zip") as archive:
        whole = b"".join(archive.read(name) for name in archive.namelist())
        told = archive.read("tables/mail.jsonl")
    assert not [link for link in links if link.rpartition("/")[2].encode() in whole]
    assert b"colleague@example.com" in told, "mails without a way in are handed out"


def test_no_secret_leaves_with_it(database: Database, tmp_path: Path) -> None:
    made = _export(database, tmp_path)
    with zipfile.ZipFile(tmp_path / f"{made.id}.zip") as archive:
        names = archive.namelist()
        whole = b"".join(archive.read(name) for name in names).decode()
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.name in ("secret", "password", "csrf", "token"):
                assert f"{table.name}-0-{column.name}" not in whole, f"{table.name}.{column.name}"
    assert not {f"tables/{name}.jsonl" for name in ("password", "passkey", "totp", "session")} & set(names)


def test_another_customer_cannot_take_it(database: Database, tmp_path: Path) -> None:
    made = _export(database, tmp_path)
    with database.reading() as db:
        assert exporting.ready(db, only(THEM), made.id) is None
        assert exporting.ready(db, EVERYONE, made.id) is not None


def test_one_at_a_time_and_a_few_a_day(database: Database, tmp_path: Path) -> None:
    with database.transaction() as db:
        first = exporting.ask(db, US, "a", NOW)
        assert exporting.ask(db, US, "a", NOW) == first, "one waits already"
    for _ in range(exporting.PER_DAY):
        exporting.run_next(database, database, tmp_path, NOW, lambda: None)
        with database.transaction() as db:
            try:
                exporting.ask(db, US, "a", NOW)
            except RejectedInput:
                break
    with database.transaction() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(EXPORT).where(EXPORT.c.asked_at > "2026-10-31")) == 5
        exporting.ask(db, US, "a", NOW + dt.timedelta(days=1, seconds=1))


@pytest.mark.parametrize("state", ["deleting", "deleted"])
def test_nothing_is_made_of_what_is_being_deleted(database: Database, state: str) -> None:
    with database.transaction() as db:
        db.execute(CUSTOMER.update().values(state=state))
        with pytest.raises(RejectedInput):
            exporting.ask(db, US, "a", NOW)


def test_files_go_when_their_time_is_over(database: Database, tmp_path: Path) -> None:
    made = _export(database, tmp_path)
    exporting.expire(database, tmp_path, NOW + exporting.KEPT)
    assert (tmp_path / f"{made.id}.zip").exists()
    exporting.expire(database, tmp_path, NOW + exporting.KEPT + dt.timedelta(minutes=1))
    assert not (tmp_path / f"{made.id}.zip").exists()
    with database.reading() as db:
        assert exporting.ready(db, EVERYONE, made.id) is None


def test_after_a_kill_it_is_made_anew_and_no_half_file_stays(database: Database, tmp_path: Path) -> None:
    with database.transaction() as db:
        made = exporting.ask(db, US, "a", NOW)
        db.execute(EXPORT.update().where(EXPORT.c.id == made).values(state="running", rows=7))
    (tmp_path / f".{made}.partial").write_bytes(b"half")
    (tmp_path / f"{made}.zip").write_bytes(b"renamed, not noted")
    (tmp_path / "nobodys.zip").write_bytes(b"?")
    exporting.recover(database, tmp_path)
    assert list(tmp_path.glob("*.zip")) == [] and list(tmp_path.glob(".*.partial")) == []
    assert exporting.run_next(database, database, tmp_path, NOW, lambda: None)
    with database.reading() as db:
        assert exporting.ready(db, only(US), made) is not None


def test_a_full_disk_says_so_and_leaves_nothing(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with database.transaction() as db:
        made = exporting.ask(db, US, "a", NOW)
    with pytest.raises(OSError):
        exporting.run_next(database, database, tmp_path / "file", NOW, lambda: None)
    with database.reading() as db:
        assert db.scalar(sa.select(EXPORT.c.state).where(EXPORT.c.id == made)) == "failed"


def test_memory_does_not_grow_with_the_events(tmp_path: Path) -> None:
    database = Database(str(tmp_path / "big.db"))
    filler.fill(database, rows=1)
    body = b'{"type":"dns","at":"2026-06-01T00:00:00Z","name":"' + b"x" * 400 + b'"}'
    with database.transaction() as db:
        row = {"tenant": US, "box": f"{US}-box-0", "epoch": "e2", "lane": 2, "type": "dns", "at": "", "body": body}
        times = {"received_at": "2026-06-01T00:00:00Z"}
        db.execute(EVENT.insert(), [{**row, **times, "seq": number} for number in range(60_000)])
    tracemalloc.start()
    try:
        made = _export(database, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:  # left on, it makes every test that comes after ten times slower
        tracemalloc.stop()
    database.close()
    assert made.rows > 60_000
    assert peak < 12 << 20, f"{peak >> 20} MiB for {60_000 * len(body) >> 20} MiB of events"


def test_the_process_makes_what_was_asked_for_and_survives_being_killed(tmp_path: Path) -> None:
    store, files = tmp_path / "events.db", tmp_path / "exports"
    plan.know_every_room()
    database = Database(str(store))
    filler.fill(database)
    settings = tmp_path / "center.toml"
    link = 'host = "localhost"\nca = ""\ncert = ""\nkey = ""\n'
    settings.write_text(f'store = "{store}"\nexports = "{files}"\n[broker]\n{link}')
    argv = [sys.executable, "-I", "-m", "sekisho.center.contracts", "--settings", str(settings)]

    def state() -> object:
        with database.reading() as db:
            return db.scalar(sa.select(EXPORT.c.state).where(EXPORT.c.id == made))

    with database.transaction() as db:
        db.execute(CUSTOMER.update().values(state="active"))
        made = exporting.ask(db, US, "a", NOW)
    first = subprocess.Popen(argv)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    second = subprocess.Popen(argv)
    try:
        until = time.monotonic() + 30
        while state() != "ready":
            assert time.monotonic() < until, state()
            time.sleep(0.05)
    finally:
        second.terminate()
        assert second.wait(15) == 0
    assert (files / f"{made}.zip").exists()
    database.close()
