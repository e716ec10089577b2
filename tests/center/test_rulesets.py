"""What a box says of its rule set is at the centre as it said it: the newest word on each fact, on both databases."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.standing import Standing
from sekisho.center import customers, ingest, rulesets
from sekisho.center.rules import switching
from sekisho.center.rulesets import Grade, Ruleset
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import BoxState, NewRow, Store
from sekisho.center.views import FAULT
from sekisho.center.views import rulesets as view
from sekisho.center.views.rebuild import rebuild
from sekisho.signatures.keeper import told
from sekisho.signatures.keeper.facts import Looked
from sekisho.signatures.keeper.journal import Journal, Kept
from sekisho.telemetry.aliases import Aliases
from sekisho.telemetry.decode import decode_journal
from sekisho.telemetry.events import Event, Health, Signatures, encode
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.masking import Masker

NOW = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
BOX = "box-t1"


def ago(**by: float) -> str:
    return utc.text(NOW - dt.timedelta(**by))


def word(state: str = "freshness", *, at: str = "", **more: Any) -> Signatures:
    facts = {"number": 12, "set": "ab" * 8, "rules": 20116, "yara": 5883, "freshness": "fresh", **more}
    return Signatures(at=at or ago(minutes=1), state=state, **facts)  # type: ignore[arg-type]


class Centre:
    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self._next = 1

    def told(self, *events: Event, box: str = BOX, tenant: str = "t1") -> None:
        rows = []
        for event in events:
            rows.append(NewRow(self._next, 0, str(event.__struct_config__.tag), event.at, encode(event)))
            self._next += 1
        with self.store.transaction():
            self.store.add(tenant, box, "e", rows, utc.text(NOW))

    def known(self, box: str = BOX) -> Ruleset:
        with self.store.database.reading() as db:
            assert not db.execute(sa.select(FAULT)).all()
            return rulesets.of_boxes(db, EVERYONE, box)[box]

    def connected(self, *boxes: str, tenant: str = "t1") -> None:
        with self.store.transaction() as db:
            customers.add(db, tenant, "", at=utc.text(NOW))
            for box in boxes:
                self.store.set_state(BoxState(box, tenant, "on", 1, "e", 1, ago(hours=1)))


@pytest.fixture
def centre(store_url: str) -> Any:
    made = Centre(store_url)
    yield made
    made.store.close()


@pytest.mark.protocol("P47")
def test_the_newest_word_stays_and_says_since_when_a_set_is_in_use(centre: Centre) -> None:
    centre.told(word(at=ago(hours=9), number=11, set="cd" * 8), word("soaking", at=ago(hours=2)))
    assert centre.known().soaking == 1
    centre.told(word("active", at=ago(hours=1), checked=ago(hours=1), built=ago(days=1)), word(at=ago(minutes=5)))
    centre.told(word(at=ago(hours=8), number=10, set="ee" * 8, rules=1))
    known = centre.known()
    assert (known.number, known.set, known.rules, known.yara) == (12, "ab" * 8, 20116, 5883)
    assert (known.since, known.at, known.soaking) == (ago(hours=2), ago(minutes=5), 0)


def test_a_refused_set_is_remembered_until_the_box_has_a_newer_one(centre: Centre) -> None:
    centre.told(word("refused", at=ago(hours=3), refused=13, detail="test: line 7"), word(at=ago(hours=2), refused=13))
    known = centre.known()
    assert (known.number, known.refused, known.refused_at) == (12, 13, ago(hours=3))
    assert (known.refused_how, known.refused_why) == ("refused", "test: line 7")
    centre.told(word("active", at=ago(hours=1), number=14, set="cd" * 8))
    known = centre.known()
    assert (known.number, known.refused, known.refused_at, known.refused_why) == (14, 0, "", "")


@pytest.mark.protocol("P48")
def test_an_inspector_without_rules_is_known_until_it_has_them_and_hides_nothing_else(centre: Centre) -> None:
    centre.told(word(at=ago(hours=1)), word("silent", at=ago(minutes=9), number=0, rules=0, detail="engine: no rules"))
    centre.told(word("silent", at=ago(minutes=8), number=0, rules=0, seconds=60.0))
    known = centre.known()
    assert (known.silent, known.number, known.rules) == (ago(minutes=9), 12, 20116)
    centre.told(word(at=ago(minutes=7)))
    assert centre.known().silent, "that the daemon speaks says nothing of the inspector"
    centre.told(word("repaired", at=ago(minutes=6), number=0))
    assert centre.known().silent == ""
    centre.told(word("silent", at=ago(minutes=8, seconds=30)))
    assert centre.known().silent == "", "an older word came late"
    centre.told(word("silent", at=ago(minutes=5)), word("active", at=ago(minutes=4), number=13))
    assert centre.known().silent == "", "a set that was proven is loaded"
    centre.told(word("silent", at=ago(minutes=3)), Health(at=ago(minutes=2), part="engine", state="started"))
    assert centre.known().silent, "an engine that began without rules mended nothing"
    centre.told(Health(at=ago(minutes=1), part="engine", state="adopted", rules=20116))
    assert centre.known().silent == "", "who watches anew would say so again"


def test_muted_rules_are_those_of_the_newest_word(centre: Centre) -> None:
    centre.told(word("muted", at=ago(hours=5), sids=[3, 1]), word("muted", at=ago(hours=4), sids=[7]))
    assert centre.known().muted == [1, 3, 7]
    centre.told(word(at=ago(hours=3), sids=[7, 0, -4, 1 << 40]))
    assert centre.known().muted == [7]
    centre.told(word("active", at=ago(hours=2)))
    assert centre.known().muted == []


@pytest.mark.protocol("P49")
def test_nothing_is_called_fresh_that_is_not_known_to_be_now(centre: Centre) -> None:
    wanted: list[tuple[Signatures, Grade]] = [
        (word(), "fresh"),
        (word(freshness="aging"), "aging"),
        (word(freshness="stale"), "stale"),
        (word(freshness="unknown", checked=ago(days=1)), "unknown"),
        (word(freshness="unknown", number=0), "own"),
        (word(at=ago(hours=14)), "unknown"),
        (word(at=ago(hours=14), freshness="stale"), "stale"),
        (word("silent"), "unknown"),
    ]
    for number, (said, _) in enumerate(wanted):
        centre.told(said, box=f"b{number}")
    assert [centre.known(f"b{number}").grade(NOW) for number in range(len(wanted))] == [grade for _, grade in wanted]


@pytest.mark.parametrize("masked", [False, True])
def test_what_the_daemon_writes_on_the_box_is_what_the_centre_knows(
    centre: Centre, tmp_path: Path, masked: bool
) -> None:
    """By the daemon's own words, telemetry's reading and masking, a batch, and the intake."""
    id_, at, checked = "0123456789abcdef" * 4, utc.text(NOW), ago(hours=30)
    kept = Kept(id=id_, number=2026, built=ago(days=2), rules=20116, yara=5883)
    journal = Journal(active=kept, refused={2027: "x"}, checked=checked, mine=Muting(sids=(5, 2027865)))
    engine = Standing(at=0.0, set_id=id_, rules=20114, expected=20114, failed=0, canary="caught", muted=2)
    scanner = Standing(at=0.0, set_id=id_, rules=5883, expected=5883, canary="caught")
    sight = Looked(link=id_, engine=engine, scanner=scanner)
    event = told.event("refused", journal, sight, at, detail="test: the engine read 9 of 10 rules")
    inventory = Inventory(tmp_path / "none", None, ("192.168.0.0/16",))
    read = decode_journal(encode(event), inventory)
    if masked:
        read = Masker(Aliases(tmp_path / "aliases.db"), ("192.168.0.0/16",), inventory).mask(read)
    batch = b'{"v":1,"e":"%s","n":1}\n[1,0,%s]\n' % (b"0" * 16, encode(read))
    with centre.store.transaction():
        centre.store.add("t1", BOX, "0" * 16, ingest.parse_batch(0, batch).rows, at)
    known = centre.known()
    assert (known.number, known.set, known.rules, known.yara, known.failed) == (2026, id_[:16], 20114, 5883, 0)
    assert (known.freshness, known.grade(NOW), known.built, known.checked) == ("aging", "aging", kept.built, checked)
    assert (known.refused, known.refused_how, known.refused_at, known.muted) == (2027, "refused", at, [5, 2027865])
    assert known.refused_why == event.detail


def test_the_fleet_shows_the_gravest_first_and_nobody_who_is_well(centre: Centre) -> None:
    boxes = ("b-well", "b-behind", "b-unheard", "b-old", "b-refused", "b-silent", "b-mute")
    centre.connected(*boxes)
    centre.told(word(), box="b-well")
    centre.told(word(number=11), box="b-behind")
    centre.told(word(at=ago(hours=14)), box="b-unheard")
    centre.told(word(freshness="aging", checked=ago(days=15)), box="b-old")
    centre.told(word("rolled_back", number=11, refused=12, detail="soak: too loud"), box="b-refused")
    centre.told(word(), word("silent", detail="engine: 0 rules"), box="b-silent")
    centre.told(word(number=1), box="b-gone")
    with centre.store.database.reading() as db:
        found = rulesets.troubled(db, EVERYONE, NOW)
        assert [(one.placed.box, one.trouble) for one in found] == [
            ("b-silent", "silent"),
            ("b-refused", "refused"),
            ("b-old", "stale"),
            ("b-unheard", "unheard"),
            ("b-behind", "behind"),
        ]
        assert (found[0].why, found[1].why) == ("engine: 0 rules", "soak: too loud")
        rest = rulesets.troubled(db, EVERYONE, NOW, rulesets.mark(found[2]))
        assert [one.placed.box for one in rest] == ["b-unheard", "b-behind"]
        assert rulesets.counted(db, EVERYONE, NOW) == dict.fromkeys(rulesets.TROUBLES, 1)
        running = [(one.number, one.boxes) for one in rulesets.running(db, EVERYONE)]
        assert running == [(12, 4), (11, 2), (-1, 1)], "b-mute has said nothing, b-gone is not connected"
        assert rulesets.troubled(db, only("t2"), NOW) == []


def test_the_number_that_was_announced_counts_whatever_boxes_claim(centre: Centre) -> None:
    centre.connected("b-1", "b-2")
    centre.told(word(number=12), box="b-1")
    centre.told(word(number=(1 << 53) - 1), box="b-2")
    with centre.store.transaction() as db:
        switching.announce(db, 13)
    with centre.store.database.reading() as db:
        assert rulesets.newest(db) == 13
        assert [one.placed.box for one in rulesets.troubled(db, EVERYONE, NOW)] == ["b-1"]


def test_muted_rules_of_the_fleet_are_counted_by_boxes(centre: Centre) -> None:
    centre.told(word(sids=[5, 9]), box="b1")
    centre.told(word(sids=[9]), box="b2", tenant="t2")
    with centre.store.database.reading() as db:
        assert [(one.sid, one.boxes) for one in rulesets.muted(db, EVERYONE)] == [(9, 2), (5, 1)]
        assert [(one.sid, one.boxes) for one in rulesets.muted(db, only("t2"))] == [(9, 1)]


def test_the_view_is_the_same_when_it_is_made_anew(centre: Centre) -> None:
    centre.told(word(at=ago(hours=5), sids=[3]), word("refused", at=ago(hours=4), refused=13, sids=[3], detail="why"))
    centre.told(word("silent", at=ago(hours=1)))
    before = centre.known()
    rebuild(centre.store.database)
    assert centre.known() == before


def test_a_hostile_word_is_kept_within_bounds(centre: Centre) -> None:
    raw = word(set="<script>", built="x" * 5000, checked="2026-99-99", detail="\u202e\0<b>" * 999, seconds=1e308)
    wild = msgspec.structs.replace(raw, state="refused", refused=(1 << 53) - 1, sids=list(range(1, 5000)))
    centre.told(wild, wild)
    known = centre.known()
    assert (known.set, known.built, known.checked) == ("", "", "")
    assert len(known.muted) == 64 and len(known.refused_why) <= view.DETAIL_CAP and known.refused_why.isprintable()


def test_a_box_that_speaks_a_thousand_times_of_its_rules_costs_a_handful_of_statements(centre: Centre) -> None:
    centre.told(word(at=ago(hours=1)))
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "box_rules" in statement or "box_muted" in statement:
            statements.append(statement)

    some = [word("freshness", at=ago(seconds=2000 - n), sids=[n + 1, n + 2]) for n in range(998)]
    more = [word("silent", at=ago(seconds=600), detail="rules: none."), word("muted", at=ago(seconds=500), sids=[5])]
    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        centre.told(*some, *more)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert 0 < len(statements) < 10
    known = centre.known()
    assert (known.silent, known.at, known.muted) == (ago(seconds=600), ago(seconds=500), [5, 998, 999])
