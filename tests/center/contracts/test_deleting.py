"""Deleting a customer's data: all of it, nobody else's, not a day early, and whatever is killed at whichever step."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parent / "drive"))

import filler
from filler import NOW, THEM, US

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import belonging
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE
from sekisho.center.contracts import book, deleting, plan, records, state
from sekisho.center.contracts.tables import DELETION, EXPORT, RECORD
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database, metadata
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import STORE


@pytest.fixture
def database(store_url: str, tmp_path: Path) -> Iterator[Database]:
    plan.know_every_room()
    made = Database(store_url)
    filler.fill(made)
    for tenant in (US, THEM):
        (tmp_path / f"{tenant}-file.zip").write_bytes(b"zip")
    yield made
    made.close()


def _delete(database: Database, files: Path, tenant: str = US) -> int:
    with database.transaction() as db:
        deleting.begin(db, tenant, "operator@example.com", NOW)
    steps = 1
    while deleting.step(database, files, tenant, NOW):
        steps += 1
    return steps


def _kept_names(database: Database, tenant: str) -> dict[str, list[object]]:
    """Where the customer's identifier (or anything made with it) still is."""
    return {
        name: [row for row in rows if tenant in repr(row)]
        for name, rows in filler.everything(database).items()
        if any(tenant in repr(row) for row in rows)
    }


def test_every_table_is_somebodys_or_named_as_nobodys() -> None:
    plan.know_every_room()
    unknown = [table.name for table in metadata.sorted_tables if not plan.whose(table)]
    assert not unknown, f"contracts/plan.py must say whose these are: {unknown}"
    assert set(plan.NOT_PERSONAL) <= set(metadata.tables), "a table is named that is not there"
    nobodys = [name for name in plan.NOT_PERSONAL if "tenant" in metadata.tables[name].c]
    assert sorted(nobodys) == ["customer", "deletion", "deletion_record"], "each of these needs its reason looked at"


def test_a_table_nobody_spoke_for_makes_no_plan() -> None:
    forgotten = sa.Table("forgotten_room", metadata, sa.Column("secret", sa.Text, primary_key=True))
    try:
        with pytest.raises(ValueError, match="forgotten_room"):
            plan.parts(US, "")
    finally:
        metadata.remove(forgotten)


def test_nothing_of_the_customer_is_left_and_everything_of_the_other_is(database: Database, tmp_path: Path) -> None:
    before = filler.everything(database)
    for name in set(before) - set(plan.NOT_PERSONAL) - {"tenant"}:
        assert any(US in repr(row) for row in before[name]), f"{name} was not filled: this proves nothing of it"
    _delete(database, tmp_path)
    assert set(_kept_names(database, US)) == {"customer", "deletion_record"}
    after = filler.everything(database)
    for name, rows in before.items():
        theirs = [row for row in rows if THEM in repr(row)]
        assert [row for row in after[name] if THEM in repr(row)] == theirs, name
    assert (tmp_path / f"{THEM}-file.zip").exists() and not (tmp_path / f"{US}-file.zip").exists()


def test_the_record_says_what_was_there_and_is_genuine(database: Database, tmp_path: Path) -> None:
    counted = {part.table.name: 0 for part in plan.parts(US, "2026-11-01") if part.cleared is None}
    with database.reading() as db:
        for part in plan.parts(US, "2026-11-01"):
            if part.cleared is None:
                query = sa.select(sa.func.count()).select_from(part.table).where(part.mine)
                counted[part.table.name] = db.scalar(query) or 0
    _delete(database, tmp_path)
    with database.reading() as db:
        (kept,) = records.found(db, EVERYONE)
        assert list(records.found(db, only(THEM))) == []
    assert kept.genuine and kept.record.files == 1
    counted.pop("export")
    assert kept.record.removed == {name: number for name, number in counted.items() if number}
    assert kept.record.cleared == {"certificate": 2, "fleet_file": 3}
    assert (kept.record.ended_on, kept.record.kept_until) == ("2026-07-01", "2026-10-01")
    assert kept.record.backups_until == "2026-11-15" and kept.record.revocations_until == "2027-01-01"


def test_a_contract_that_is_taken_up_again_at_that_moment_is_not_deleted(database: Database) -> None:
    refused: list[Exception] = []

    def begin() -> None:
        try:
            with database.transaction() as db:
                deleting.begin(db, US, "operator@example.com", NOW)
        except RejectedInput as err:
            refused.append(err)

    with database.transaction() as db:
        contract = book.load(db, EVERYONE, US, hold=True)
        assert contract is not None
        other = threading.Thread(target=begin)
        other.start()
        other.join(0.5)
        assert other.is_alive(), "it waits for whoever is at the contract"
        book.save(db, state.resume(contract), NOW)
    other.join(30)
    with database.reading() as db:
        assert len(refused) == 1 and deleting.under_way(db) == []


def test_a_changed_or_missing_record_is_seen(database: Database, tmp_path: Path) -> None:
    _delete(database, tmp_path, US)
    _delete(database, tmp_path, THEM)
    with database.transaction() as db:
        assert [one.genuine for one in records.found(db, EVERYONE)] == [True, True]
        body = msgspec.json.decode(db.execute(sa.select(RECORD.c.body).where(RECORD.c.number == 2)).scalar_one())
        body["removed"]["event"] = 0
        db.execute(RECORD.update().where(RECORD.c.number == 2).values(body=msgspec.json.encode(body)))
        assert [one.genuine for one in records.found(db, EVERYONE)] == [False, True]
        db.rollback()
    with database.transaction() as db:
        db.execute(RECORD.delete().where(RECORD.c.number == 1))
        assert [one.genuine for one in records.found(db, EVERYONE)] == [False], "the one before it is missing"


@pytest.mark.parametrize("day", ["2026-07-01", "2026-09-30", "2026-10-01"])
def test_nothing_goes_before_the_three_months_are_over(database: Database, tmp_path: Path, day: str) -> None:
    early = dt.datetime.fromisoformat(f"{day}T14:59:00+00:00")  # the end of that day in Japan is at 15:00
    with database.transaction() as db:
        assert deleting.due(db, early) == []
        with pytest.raises(RejectedInput, match="kept until"):
            deleting.begin(db, US, "x", early)
    assert not deleting.step(database, tmp_path, US, early)
    with database.reading() as db:
        assert deleting.due(db, dt.datetime(2026, 10, 2, 3, tzinfo=dt.UTC)) == [US, THEM]


def test_a_clock_that_leaps_deletes_nothing(database: Database) -> None:
    with database.transaction() as db:
        db.execute(STORE.update().values(swept="2026-09-30"))
        leapt = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
        assert deleting.due(db, leapt) == []
        with pytest.raises(RejectedInput):
            deleting.begin(db, US, "x", leapt)


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_nothing_goes_while_an_export_is_made(database: Database, state: str) -> None:
    with database.transaction() as db:
        db.execute(EXPORT.update().where(EXPORT.c.tenant == US).values(state=state))
        assert deleting.due(db, NOW) == [THEM]
        with pytest.raises(RejectedInput, match="export"):
            deleting.begin(db, US, "x", NOW)


@pytest.mark.parametrize("state", ["active", "ending", "deleting", "deleted"])
def test_a_contract_in_another_state_is_not_deleted(database: Database, state: str) -> None:
    with database.transaction() as db:
        db.execute(CUSTOMER.update().where(CUSTOMER.c.tenant == US).values(state=state))
        with pytest.raises(RejectedInput):
            deleting.begin(db, US, "x", NOW)


def test_a_step_without_a_begin_does_nothing(database: Database, tmp_path: Path) -> None:
    before = filler.everything(database)
    assert not deleting.step(database, tmp_path, US, NOW)
    assert filler.everything(database) == before


def test_it_waits_until_revoked_certificates_are_on_the_list(database: Database, tmp_path: Path) -> None:
    with database.transaction() as db:
        db.execute(CERTIFICATE.update().where(CERTIFICATE.c.tenant == US).values(cut_at=""))
    _delete(database, tmp_path)
    with database.transaction() as db:
        assert deleting.under_way(db) == [US]
        assert db.scalar(sa.select(sa.func.count()).select_from(CERTIFICATE).where(CERTIFICATE.c.tenant == US)) == 3
        db.execute(CERTIFICATE.update().where(CERTIFICATE.c.tenant == US).values(cut_at="2026-11-01"))
    while deleting.step(database, tmp_path, US, NOW):
        pass
    with database.reading() as db:
        assert deleting.under_way(db) == []


def test_what_a_box_sends_after_the_end_is_not_believed(database: Database, tmp_path: Path) -> None:
    """Not even a box that never enrolled, and not after its row is gone."""
    claims = [(f"{US}-box-1", US), ("a-stranger", US)]
    with database.transaction() as db:
        assert belonging.strangers(db, claims) == sorted(claims)
    _delete(database, tmp_path)
    with database.reading() as db:
        assert belonging.strangers(db, claims) == sorted(claims)


def test_another_customers_box_of_the_same_name_keeps_its_rows(database: Database, tmp_path: Path) -> None:
    with database.transaction() as db:
        box = f"{US}-box-1"
        db.execute(BOX_IDENTITY.update().where(BOX_IDENTITY.c.box == box).values(tenant=THEM))
        before = [tuple(row) for row in db.execute(sa.text("SELECT * FROM run ORDER BY box"))]
        mine = [row for row in before if row[0] == box]
    assert mine
    _delete(database, tmp_path)
    with database.reading() as db:
        assert [tuple(r) for r in db.execute(sa.text("SELECT * FROM run ORDER BY box")) if r[0] == box] == mine


class _Killed(Exception):
    pass


def _a_deletion(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int], object]:
    """A centre before it, the last write of each of its transactions, and what it ends with."""
    monkeypatch.setattr(deleting, "STEP_ROWS", 4)
    whole = folder / "whole.db"
    plan.know_every_room()
    made = Database(str(whole))
    filler.fill(made, rows=1)
    made.close()
    with_end = Path(shutil.copy(whole, folder / "end.db"))
    ends = _run(with_end, folder, None)
    assert len(ends) > 8
    return whole, ends, _facts(with_end)


def test_killed_in_every_step_it_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before a transaction's last statement, in one transaction after the other."""
    path, ends, wanted = _a_deletion(tmp_path, monkeypatch)
    for at, number in enumerate(ends):
        written = ends[at - 2] + 1 if at > 1 else 0  # the one before was killed at its end, and is done again first
        with pytest.raises(_Killed):
            _run(path, tmp_path, number - written)
    _run(path, tmp_path, None)
    assert _facts(path) == wanted


@pytest.mark.full
@pytest.mark.timeout(300)
def test_killed_once_in_any_step_it_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likewise once, for every transaction there is."""
    whole, ends, wanted = _a_deletion(tmp_path, monkeypatch)
    for number in ends:
        path = Path(shutil.copy(whole, tmp_path / "killed.db"))
        for leftover in tmp_path.glob("killed.db-*"):
            leftover.unlink()
        with pytest.raises(_Killed):
            _run(path, tmp_path, number)
        _run(path, tmp_path, None)
        assert _facts(path) == wanted, f"killed before write {number}"


def _run(path: Path, files: Path, kill_at: int | None) -> list[int]:
    """Delete from wherever it stands; returns the number of each transaction's last writing statement."""
    (files / f"{US}-file.zip").write_bytes(b"zip")
    database, count, ends = Database(str(path)), 0, list[int]()

    def before(_db: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal count
        if statement.split()[0] in ("INSERT", "UPDATE", "DELETE"):
            if kill_at is not None and count == kill_at:
                raise _Killed
            count += 1

    sa.event.listen(database.engine, "before_cursor_execute", before)
    sa.event.listen(database.engine, "commit", lambda _db: ends.append(count - 1))
    try:
        with database.reading() as db:
            begun = db.execute(sa.select(DELETION)).first() is not None
            done = db.scalar(sa.select(CUSTOMER.c.state).where(CUSTOMER.c.tenant == US)) == "deleted"
        if not begun and not done:
            with database.transaction() as db:
                deleting.begin(db, US, "op", NOW)
        while deleting.step(database, files, US, NOW):
            pass
    finally:
        database.close()
    return sorted(set(ends))


def _facts(path: Path) -> object:
    database = Database(str(path))
    with database.reading() as db:
        found = [one.record for one in records.found(db, EVERYONE)]
    facts = filler.everything(database)
    database.close()
    volatile = ("deletion_record", "record_key")
    assert [record.tenant for record in found] == [US]
    return {name: rows for name, rows in facts.items() if name not in volatile}, found[0].removed, found[0].cleared


def test_contracts_whose_day_is_over_end_and_their_boxes_are_revoked(database: Database) -> None:
    with database.transaction() as db:
        db.execute(CUSTOMER.update().values(state="ending"))
        db.execute(BOX_IDENTITY.update().values(state="active"))
        assert [one.tenant for one in book.end_due(db, NOW)] == [US, THEM]
        assert set(db.scalars(sa.select(BOX_IDENTITY.c.state))) == {"revoked"}
        ended = book.load(db, EVERYONE, US)
        assert ended is not None and (ended.state, ended.kept_until) == ("ended", "2027-02-01")
        assert book.load(db, only(THEM), US) is None
