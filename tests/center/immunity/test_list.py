"""Which bad files the fleet stops: judged with distrust, numbered, said as a change or as a whole."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import pytest
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fleet import All, Change
from sekisho.appliance.core.known import BY_FLEET
from sekisho.center import tenants
from sekisho.center.database import Database
from sekisho.center.immunity import commands, listing
from sekisho.center.immunity.judge import PER_BOX, judge
from sekisho.center.outbox import BAD_FILE
from sekisho.center.rules import switching
from sekisho.center.store import NewRow, Store
from sekisho.center.tenants import Tenant
from sekisho.telemetry.events import FileVerdict, encode

AT = "2026-11-21T10:00:00.000000Z"
NOW = dt.datetime.fromisoformat(AT).timestamp()


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


class Centre:
    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.database = Database(str(path))
        self._seq = 0

    def found(self, name: str, *, box: str = "box-1", tenant: str = "t1", rules: tuple[str, ...] = ("EVIL",)) -> str:
        """A box has stopped a file; what the centre thinks of it."""
        self._seq += 1
        verdict = FileVerdict(at=AT, outcome="blocked", rules=list(rules), sha256=sha(name), size=10)
        row = NewRow(self._seq, 0, "file", AT, encode(verdict))
        with self.store.transaction():
            self.store.add(tenant, box, "a" * 16, [row], AT)
        assert judge(self.database) == 1
        with self.database.reading() as db:
            return str(db.scalar(sa.select(BAD_FILE.c.state).where(BAD_FILE.c.seq == self._seq)))

    def stopped(self, now: float = NOW) -> set[str]:
        """What a box that has been told everything stops."""
        lists = listing.current(self.database, now)
        files: set[str] = set()
        for made in lists:
            if isinstance(made, All):
                files = {made.files[at : at + 32].hex() for at in range(0, len(made.files), 32)}
            else:
                files = (files | set(made.add)) - set(made.remove)
        return files


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path / "center.db")


def test_what_one_box_has_found_is_stopped_by_all(centre: Centre) -> None:
    assert centre.stopped() == set()
    assert centre.found("a") == "listed"
    assert centre.stopped() == {sha("a")}
    whole, change = listing.current(centre.database, NOW)
    assert isinstance(whole, All) and isinstance(change, Change)
    assert (change.base, change.add, whole.files) == (whole.n, [sha("a")], b"")


def test_a_whole_list_is_made_when_much_or_long_has_changed(centre: Centre) -> None:
    centre.stopped()
    for number in range(PER_BOX):
        centre.found(f"m{number}")
    for number in range(listing.CROWD - PER_BOX):
        centre.found(f"n{number}", box="box-2")
    (whole,) = listing.current(centre.database, NOW)
    assert isinstance(whole, All) and len(whole.files) == 32 * listing.CROWD
    (later,) = listing.current(centre.database, NOW + listing.WHOLE_S)
    assert isinstance(later, All) and later.n > whole.n and later.until > whole.until


def test_nothing_is_due_until_something_changes(centre: Centre) -> None:
    newest = max(made.n for made in listing.current(centre.database, NOW))
    assert not listing.due(centre.database, newest, NOW)
    centre.found("a")
    assert listing.due(centre.database, newest, NOW)


@pytest.mark.protocol("P28")
def test_hearsay_is_no_finding(centre: Centre) -> None:
    assert centre.found("a", rules=(BY_FLEET,)) == "hearsay"
    assert centre.found("b", rules=("known_file",)) == "hearsay"
    assert centre.stopped() == set()


@pytest.mark.protocol("P28")
def test_one_box_cannot_stop_everything(centre: Centre) -> None:
    words = [centre.found(f"n{number}") for number in range(PER_BOX + 5)]
    assert words == ["listed"] * PER_BOX + ["too_many"] * 5
    assert centre.found("other", box="box-2") == "listed"


def test_nothing_at_all_is_never_stopped(centre: Centre) -> None:
    assert centre.found("") == "never"
    assert centre.stopped() == set()


def test_boxes_of_more_tenants_can_be_asked_for(centre: Centre) -> None:
    finds = [("t1", "box-1", set()), ("t1", "box-1", set()), ("t1", "box-2", set()), ("t2", "box-3", {sha("a")})]
    for count, (tenant, box, listed) in enumerate(finds):
        row = NewRow(1, 0, "file", AT, encode(FileVerdict(at=AT, outcome="blocked", rules=["E"], sha256=sha("a"))))
        epoch = f"{count:016x}"
        with centre.store.transaction():
            centre.store.add(tenant, box, epoch, [row], AT)
        judge(centre.database, boxes=2)
        assert centre.stopped() == listed


def test_a_tenant_that_stays_away_gives_nothing_and_its_boxes_are_told(centre: Centre) -> None:
    with centre.database.transaction() as db:
        tenants.save(db, Tenant("t2", immunity=False))
    assert centre.found("a", box="box-9", tenant="t2") == "not_shared"
    assert centre.stopped() == set()


def test_what_an_operator_withdraws_stays_withdrawn(centre: Centre) -> None:
    centre.found("a")
    centre.stopped()
    commands.withdraw(centre.database, sha("a"), "a customer's own program")
    assert centre.stopped() == set()
    assert centre.found("a", box="box-2") == "withdrawn"
    assert centre.stopped(NOW + listing.WHOLE_S) == set()
    commands.enlist(centre.database, sha("a"), "it is bad after all")
    assert centre.stopped(NOW + listing.WHOLE_S) == {sha("a")}
    with pytest.raises(RejectedInput, match="no SHA-256"):
        commands.withdraw(centre.database, "abc", "")


def test_what_no_rule_finds_any_more_leaves_the_list_and_an_operators_word_stays(centre: Centre) -> None:
    found = dt.datetime.fromisoformat(AT).timestamp()
    centre.found("a")
    commands.enlist(centre.database, sha("b"), "known bad")
    assert centre.stopped(found + 1) == {sha("a"), sha("b")}
    assert centre.stopped(found + listing.LIFE_S - 60) == {sha("a"), sha("b")}
    assert centre.stopped(found + listing.LIFE_S + listing.WHOLE_S) == {sha("b")}


def test_the_list_keeps_the_newest(centre: Centre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_FILES", 3)
    centre.stopped()
    for name in "abcde":
        centre.found(name)
    assert centre.stopped(NOW + listing.WHOLE_S) == {sha(name) for name in "cde"}


@pytest.mark.parametrize("sha256", ["zz", "", "A" * 64, "0" * 63, "0" * 4000])
def test_what_is_no_hash_is_no_file_and_stops_nothing(centre: Centre, sha256: str) -> None:
    row = NewRow(1, 0, "file", AT, encode(FileVerdict(at=AT, outcome="blocked", rules=["E"], sha256=sha256)))
    with centre.store.transaction():
        centre.store.add("t1", "box-9", "b" * 16, [row], AT)
    assert judge(centre.database) == 0
    assert centre.found("a") == "listed"
    assert centre.stopped() == {sha("a")}


def test_a_rule_that_is_switched_off_takes_its_files_from_the_list(centre: Centre) -> None:
    centre.found("a", rules=("TOO_WIDE",))
    centre.found("b", rules=("TOO_WIDE", "EVIL"))
    commands.enlist(centre.database, sha("c"), "known bad")
    assert centre.stopped() == {sha("a"), sha("b"), sha("c")}
    with centre.database.transaction() as db:
        switching.off(db, "TOO_WIDE", "op@example.com", "false alarms")
    assert centre.stopped() == {sha("b"), sha("c")}
    assert centre.found("d", box="box-2", rules=("TOO_WIDE", "known_file")) == "switched_off"
    assert centre.found("e", box="box-2", rules=("TOO_WIDE", "EVIL")) == "listed"
    with centre.database.transaction() as db:
        switching.off(db, "EVIL", "op@example.com", "false alarms")
    assert centre.stopped(NOW + listing.WHOLE_S) == {sha("c")}
    with centre.database.transaction() as db:
        switching.on(db, "TOO_WIDE")
    assert centre.found("f", rules=("TOO_WIDE",)) == "listed"
