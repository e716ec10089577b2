"""What is switched off, by whom and why; what is said to the boxes; what is usual in the fleet."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.switched import Switched
from sekisho.center import backup
from sekisho.center.commands import register
from sekisho.center.database import Database
from sekisho.center.portal.audit import AUDIT
from sekisho.center.restore import restore
from sekisho.center.rules import switching, usual
from sekisho.center.rules.tables import RULE_WORD
from sekisho.center.store import BoxState, NewRow, Store
from sekisho.center.views.noise import NOISE, NOISE_RULE
from sekisho.center.views.rebuild import rebuild
from sekisho.signatures.published import Baseline
from sekisho.telemetry.events import Alert, FileVerdict, encode

TODAY = dt.datetime.now(dt.UTC).date()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    path = str(tmp_path / "events.db")
    with closing(Store(path)), closing(Database(path)) as made:
        yield made


def said(database: Database) -> Switched:
    with database.transaction() as db:
        return switching.current(db)


def off(database: Database, *rules: str, by: str = "op@example.com", why: str = "false alarms") -> list[bool]:
    with database.transaction() as db:
        return [switching.off(db, rule, by, why) for rule in rules]


def test_what_is_off_is_said_in_order_and_every_decision_has_a_number(store_url: str) -> None:
    with closing(Store(store_url)), closing(Database(store_url)) as database:
        _decisions(database)


def _decisions(database: Database) -> None:
    first = said(database)
    assert (first.n, first.sids, first.yara, first.newest) == (1, (), (), 0)
    assert off(database, "10", "9", "zeta", "Alpha") == [True] * 4
    now = said(database)
    assert (now.sids, now.yara) == ((9, 10), ("Alpha", "zeta")) and now.n > first.n
    assert said(database) == now, "nothing new: no new number"
    with database.transaction() as db:
        assert switching.on(db, "9") and not switching.on(db, "9")
        switching.announce(db, 77)
    later = said(database)
    assert (later.sids, later.newest) == ((10,), 77) and later.n > now.n


def test_who_was_first_and_why_stays(database: Database) -> None:
    assert off(database, "7", by="a", why="one") == [True]
    assert off(database, "007", " 7 ", by="b", why="two") == [False, False]
    with database.reading() as db:
        (one,) = switching.listed(db)
    assert (one.kind, one.rule, one.by, one.why, one.sent) == ("sid", "7", "a", "one", False)


def test_what_is_no_rule_or_has_no_reason_is_refused(database: Database) -> None:
    for rule in ("", "0", "-1", "4294967296", "1.5", "a b", "a;b", "x" * 129, "\uff19", "7\n8", "../x"):
        with pytest.raises(RejectedInput, match="neither"):
            off(database, rule)
    for why in ("", "  ", "x" * 201, "a\u202eb", "a\0b"):
        with pytest.raises(RejectedInput, match="reason"):
            off(database, "7", why=why)
    assert said(database) == Switched(n=1)


def test_there_is_room_for_so_many(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(switching.CAPS, "sid", 2)
    off(database, "1", "2", "name")
    with pytest.raises(RejectedInput, match="no more"):
        off(database, "3")
    assert said(database).sids == (1, 2)


@pytest.mark.protocol("P44")
def test_a_restored_centre_is_newer_than_all_it_ever_said(tmp_path: Path) -> None:
    path = str(tmp_path / "events.db")
    with closing(Store(path)), closing(Database(path)) as database:
        off(database, "7")
        made = backup.save(path, tmp_path / "copies", dt.datetime.now(dt.UTC))
        off(database, "8", "9")
        heard = said(database)
    back = str(tmp_path / "again.db")
    restore(back, Path(made.path), dt.datetime.now(dt.UTC))
    with closing(Database(back)) as database:
        now = said(database)
        assert now.n > heard.n and now.sids == (7,)


def test_the_command_line_switches_and_leaves_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "events.db")
    assert command("rules", "list", store=path) == 3, "a store is not made by looking for it"
    with closing(Store(path)), closing(Database(path)) as database:
        assert command("rules", "off", "2000001", "--why", "stops the mail", store=path) == 0
        assert command("rules", "off", "Bad_Rule", "--why", "x", store=path) == 0
        assert command("rules", "on", "Bad_Rule", store=path) == 0
        assert command("rules", "on", "Bad_Rule", store=path) == 2
        assert command("rules", "off", "no rule", "--why", "x", store=path) == 2
        assert command("rules", "announce", "--number", "12", store=path) == 0
        assert command("rules", "announce", "--number", "0", store=path) == 2
        assert (said(database).sids, said(database).yara, said(database).newest) == ((2000001,), (), 12)
        capsys.readouterr()
        assert command("rules", "list", store=path) == 0
        line = capsys.readouterr().out
        assert "2000001" in line and "stops the mail" in line and "waiting" in line
        with database.reading() as db:
            kept = [(row.action, row.about) for row in db.execute(sa.select(AUDIT).order_by(AUDIT.c.id))]
    assert kept == [
        ("rule.off", "sid 2000001: stops the mail"), ("rule.off", "yara Bad_Rule: x"), ("rule.on", "yara Bad_Rule"),
    ]  # fmt: skip


def command(*argv: str, store: str) -> int:
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["center", *argv, "--store", store])
    func: Callable[[argparse.Namespace], int] = args.func
    return func(args)


class Fleet:
    """Boxes and what they say, on days of our choice."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self._seq = 0

    def box(self, name: str, state: str = "on", changed: str = "") -> None:
        with self.store.transaction():
            self.store.set_state(BoxState(name, "t1", state, 1, "e1", 1, changed or utc.now()))

    def says(self, box: str, days_ago: int, *events: Alert | FileVerdict) -> None:
        at = f"{TODAY - dt.timedelta(days=days_ago)}T10:00:00.000000Z"
        rows = []
        for event in events:
            self._seq += 1
            rows.append(NewRow(self._seq, event.lane, "alert", at, encode(event)))
        with self.store.transaction():
            self.store.add("t1", box, f"{self._seq:016x}", rows, at)

    def close(self) -> None:
        self.store.close()

    def usual(self, days: int = 14) -> usual.Usual:
        with self.store.database.reading() as db:
            return usual.count(db, TODAY, days)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(str(tmp_path / "events.db"))
    yield made
    made.close()


AT = "2026-11-21T10:00:00.000000Z"


def test_nothing_is_usual_where_nothing_was_heard(fleet: Fleet) -> None:
    fleet.box("a")
    assert fleet.usual() == usual.Usual(boxes=0, sids={}, yara={})


def test_the_baseline_is_per_box_and_day_over_all_boxes_that_were_there(store_url: str) -> None:
    with closing(Fleet(store_url)) as fleet:
        _baseline(fleet)


def _baseline(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.box(name)
    fleet.box("long-gone", "lost", "2020-01-01T00:00:00.000000Z")
    fleet.says("a", 4, Alert(AT, sid=7, count=90))
    fleet.says("b", 1, Alert(AT, sid=7, count=30), Alert(AT, sid=8), Alert(AT, function="firewall", policy="x"))
    fleet.says("b", 1, FileVerdict(AT, outcome="blocked", rules=["Eicar", "Eicar", "Other"]))
    fleet.says("c", 1, FileVerdict(AT, outcome="blocked", rules=["Eicar"]), FileVerdict(AT, outcome="clean"))
    fleet.says("a", 0, Alert(AT, sid=7, count=100_000))
    found = fleet.usual()
    assert found == usual.Usual(boxes=3, sids={7: 10.0, 8: 0.08333}, yara={"Eicar": 0.1667, "Other": 0.08333})
    assert fleet.usual(1) == usual.Usual(boxes=3, sids={7: 10.0, 8: 0.3333}, yara={"Eicar": 0.6667, "Other": 0.3333})
    assert msgspec.json.decode(msgspec.json.encode(found), type=Baseline) == Baseline(
        boxes=3, sids=found.sids, yara=found.yara
    )


def test_what_a_box_invents_is_bounded_and_is_no_rules_name(fleet: Fleet) -> None:
    names = ["<b>", "a b", "x" * 101, "", "a\nb", "yara:x"]
    fleet.says("a", 1, *[FileVerdict(AT, rules=[name]) for name in names], Alert(AT, sid=1 << 40))
    fleet.says("a", 1, *[FileVerdict(AT, rules=[f"r{number}"]) for number in range(400)])
    found = fleet.usual()
    assert found.sids == {} and len(found.yara) <= 300
    with fleet.store.database.reading() as db:
        assert (db.scalar(sa.select(sa.func.count()).select_from(NOISE)) or 0) <= 301


def test_the_counts_are_made_anew_from_the_events(fleet: Fleet) -> None:
    fleet.says("a", 1, Alert(AT, sid=7, count=3), FileVerdict(AT, rules=["Eicar"]))
    with fleet.store.database.reading() as db:
        before = sorted(map(tuple, db.execute(sa.select(NOISE_RULE))))
    rebuild(fleet.store.database)
    with fleet.store.database.reading() as db:
        assert sorted(map(tuple, db.execute(sa.select(NOISE_RULE)))) == before
        assert db.scalar(sa.select(sa.func.count()).select_from(RULE_WORD)) == 0


def test_the_command_writes_the_file_of_a_set(tmp_path: Path, fleet: Fleet) -> None:
    fleet.says("a", 1, Alert(AT, sid=7, count=3))
    out = tmp_path / "baseline.json"
    assert command("rules", "baseline", "--out", str(out), store=str(tmp_path / "events.db")) == 0
    assert msgspec.json.decode(out.read_bytes(), type=Baseline).sids == {7: 3.0}
    for argv in (("--out", str(tmp_path / "no" / "x")), ("--out", str(out), "--days", "0")):
        assert command("rules", "baseline", *argv, store=str(tmp_path / "events.db")) in (2, 3)
