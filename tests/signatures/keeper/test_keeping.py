"""What becomes of a set, told by what a box's owner would see: what is in force, and what the centre hears."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from keeper_world import World, manifest, write_set
from played_box import Inspectors, settings_of, told

from sekisho.appliance.core import fired, muting
from sekisho.appliance.core.fired import Fired
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.standing import Standing
from sekisho.signatures import compiler, soak
from sekisho.signatures.keeper import facts, machine, news, prove
from sekisho.signatures.keeper.journal import Step
from sekisho.signatures.keeper.news import Heading
from sekisho.signatures.keeper.told import freshness
from sekisho.signatures.keeper.watch import Watch
from sekisho.signatures.published import Baseline

DAY = 86_400.0


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def states(world: World) -> list[str]:
    return [event.state for event in told(world.settings) if event.state != "freshness"]


def test_a_good_set_is_said_to_soak_and_then_to_be_active(world: World) -> None:
    world.newest = 2
    world.settle()
    assert (world.in_force, states(world)) == (2, ["soaking", "active"])
    last = told(world.settings)[-1]
    assert (last.number, last.rules, last.yara, last.freshness) == (2, 1, 1, "fresh")


def test_nobody_proves_it_so_the_set_before_comes_back(world: World) -> None:
    world.newest = 2
    while world.in_force == 1:
        world.turn()
    world.inspectors.stuck = True
    for _ in range(70):
        world.turn()
    world.inspectors.stuck = False
    world.settle()
    assert (world.in_force, states(world)) == (1, ["rolled_back"])
    assert "Not proven within 60 s" in world.ends()[0].detail


def test_a_refused_set_is_tried_again_only_when_somebody_asks_for_that(world: World) -> None:
    world.newest, world.broken = 2, {2}
    world.settle()
    for _ in range(10):
        world.turn(machine.EVERY_S)
    assert (world.in_force, states(world)) == (1, ["refused"])
    world.broken = set()
    assert world.keeper is not None
    world.keeper.put(facts.Asked(again=True))
    for _ in range(30):
        world.turn()
    assert (world.in_force, states(world)) == (2, ["refused", "soaking", "active"])


def test_nothing_older_than_what_was_in_force_is_taken(world: World) -> None:
    world.newest = 5
    world.settle()
    world.newest = 3
    for _ in range(5):
        world.turn(machine.EVERY_S)
    assert (world.in_force, world.visited.count("before fetching")) == (5, 1)


def test_months_without_the_centre_are_quiet_and_disturb_nothing(world: World) -> None:
    world.settle()
    world.online = False
    before = len(told(world.settings))
    asked = len(world.visited)
    for _ in range(90 * 4):
        world.turn(6 * 3600.0)
    since = told(world.settings)[before:]
    assert {event.state for event in since} == {"freshness"}
    assert len(since) <= 90 * 4 + 1
    assert world.visited[asked:].count("before refreshing") <= 90 * 4 + 4
    world.online, world.newest = True, 2
    world.settle()
    assert world.in_force == 2


def test_what_is_told_of_freshness_grows_old_and_young_again() -> None:
    checked = "2026-11-21T00:00:00.000000Z"
    asked = {"2026-11-21T23:59:00Z": "fresh", "2026-11-22T00:01:00Z": "aging", "2026-11-24T00:01:00Z": "stale"}
    assert {at: freshness(checked, at) for at in asked} == asked
    assert freshness(checked, "2020-01-01T00:00:00Z") == freshness("", checked) == "unknown"


def test_the_centre_s_word_of_a_new_set_is_followed_within_half_a_minute(world: World) -> None:
    world.settle()
    world.newest = 2
    world.settings.fleet.mkdir(parents=True)
    (world.settings.fleet / "newest.json").write_bytes(b'{"number": 2}')
    for _ in range(30):
        world.turn()
    assert world.in_force == 2


def test_where_memory_is_short_the_set_waits_and_then_is_tried_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove, "waits", lambda settings, manifest, now: "The box has 90 MB of memory free.")
    world.newest = 2
    for _ in range(80):
        world.turn(60.0)
    assert (world.in_force, "before testing" in world.visited) == (1, False)
    assert [event.detail for event in world.ends()] == ["wait: The box has 90 MB of memory free."]
    monkeypatch.setattr(prove, "waits", lambda settings, manifest, now: "")
    for _ in range(120):
        world.turn(60.0)
    assert world.in_force == 2


def test_the_real_gate_asks_for_memory_and_for_somebody_who_proves(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, b"{}")
    assert "engine and the file scanner" in prove.waits(settings, manifest(2), 5.0)
    inspectors = Inspectors(settings)
    inspectors.turn(5.0)
    assert prove.waits(settings, manifest(2), 6.0) == ""
    huge = msgspec.structs.replace(manifest(2), memory_mb=1 << 30)
    assert "MB of memory free" in prove.waits(settings, huge, 6.0)


def test_a_box_with_rules_of_its_owner_is_left_alone(world: World) -> None:
    world.newest = 2
    wanted = msgspec.structs.replace(world.settings.signatures, rules_dir="/etc/own")
    world.settings = msgspec.structs.replace(world.settings, signatures=wanted)
    for _ in range(20):
        world.turn()
    assert (world.in_force, "before refreshing" in world.visited) == (1, False)


def test_a_step_that_never_ends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, die_in="while testing")
    world.newest = 2
    for _ in range(100):
        world.turn()
    assert (world.in_force, [event.detail.split(":")[0] for event in world.ends()]) == (1, ["loop"])
    assert world.deaths == machine.ENTRIES_CAP


def test_a_full_disk_at_any_time_leaves_the_last_good_set_and_room_lets_it_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for begins in range(0, 9, 2):
        with monkeypatch.context() as patch:
            world = World(tmp_path / str(begins), patch)
            world.newest = 2
            for _ in range(begins):
                world.turn()
            world.full = True
            for _ in range(10):
                world.turn()
            world.full = False
            for _ in range(70):
                world.turn(60.0)
            assert (world.in_force, states(world)[-1]) == (2, "active"), begins


def test_new_dropping_rules_are_on_trial_before_the_set_is_in_force_and_drop_after_the_soak(world: World) -> None:
    world.trial = (7, 9)
    world.newest = 2
    while world.in_force == 1:
        world.turn()
        assert world.in_force == 1 or muting.both(world.settings).on_trial == (7, 9)
    world.settle()
    assert muting.both(world.settings).on_trial == ()


def test_what_is_too_loud_is_muted_and_said_and_heard_again_with_the_next_set(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "judge", lambda *_: soak.Verdict(muted=(5,), held=(7,), why="too loud: sid 5"))
    fired.path_of(world.settings).parent.mkdir(parents=True)
    monkeypatch.setattr(fired, "try_read", lambda settings: Fired(since="x", at=world.now))
    world.trial, world.newest, world.soak_minutes = (7, 9), 2, 0.5
    world.settings = msgspec.structs.replace(
        world.settings, signatures=msgspec.structs.replace(world.settings.signatures, soak_minutes=0.5)
    )
    world.settle()
    assert states(world) == ["soaking", "muted", "active"]
    said = muting.both(world.settings)
    assert (said.sids, said.on_trial) == ((5,), (7,))
    muted = [event for event in told(world.settings) if event.state == "muted"]
    assert (muted[0].sids, muted[0].detail) == ([5, 7], "loud: too loud: sid 5")
    monkeypatch.setattr(soak, "judge", lambda *_: soak.Verdict())
    world.newest, world.trial = 3, ()
    assert world.keeper is not None
    world.keeper.put(facts.Asked())
    while world.in_force == 2:
        world.turn()
    assert muting.both(world.settings) == muting.Muting(on_trial=(5, 7)), "it may report again, and not drop"


def test_a_set_that_stops_too_much_goes_back_and_one_before_it_that_did_so_too_is_no_reason() -> None:
    def engine(accepted: int, blocked: int) -> Standing:
        return Standing(at=1.0, set_id="b", accepted=accepted, blocked=blocked)

    watch = Watch()
    watch.begin(Heading(id="b"), engine(10_000, 10), 100.0)
    nothing = muting.Muting()
    assert not watch.hear(1.0, None, engine(10_000, 10), nothing, ()).roll_back
    assert not watch.hear(2.0, None, engine(11_000, 510), nothing, ()).roll_back, "too few to say"
    assert not watch.hear(2.0, None, engine(20_000, 510), nothing, ()).roll_back, "five of a hundred"
    verdict = watch.hear(3.0, None, engine(20_000, 1_510), nothing, ())
    assert (verdict.roll_back, verdict.why) == (True, "it stops too much: 1500 packets")
    assert not watch.hear(101.0, None, engine(20_000, 9_999), nothing, ()).roll_back, "an old set is not driven out"
    other = Watch()
    other.begin(Heading(id="a"), None, 100.0)
    other.hear(0.0, None, Standing(at=1.0, set_id="a"), nothing, ())
    other.begin(Heading(id="b"), Standing(at=1.0, set_id="a", accepted=9_000, blocked=1_000), 100.0)
    other.hear(1.0, None, engine(9_000, 1_000), nothing, ())
    assert not other.hear(2.0, None, engine(18_000, 2_000), nothing, ()).roll_back


def test_what_is_new_is_told_by_the_texts_of_two_sets(tmp_path: Path) -> None:
    for name, rules, yara in (
        ("old", "alert a (sid:1;)\ndrop b (sid:2;)\nalert c (sid:3;)\n", "rule one { condition: false }\n"),
        ("new", "drop a (sid:1;)\ndrop b (sid:2;)\nalert cc (sid:3;)\ndrop d (sid:4;)\ndrop e (sid:5;)\n",
         "rule one { condition: true }\nprivate rule two { condition: false }\n"),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.rules").write_text(rules)
        (tmp_path / name / "a.yar").write_text(yara)
    old, new = tmp_path / "old", tmp_path / "new"
    found = news.compare(new / "s.rules", old / "s.rules", new, old)
    assert found == soak.News(
        new=frozenset({4, 5}), changed=frozenset({1, 3}), dropping=frozenset({1, 4, 5}), yara=frozenset({"one", "two"})
    )
    assert news.on_trial(new / "s.rules", old / "s.rules", {2}, {5}) == (1, 2, 4)
    news.save(tmp_path / "news.json", Heading(id="x", news=found, baseline=Baseline(boxes=3)))
    assert news.load(tmp_path / "news.json", "x").news == found
    assert news.load(tmp_path / "news.json", "y").news == soak.News()


def test_a_set_the_disk_lost_is_made_again_without_the_centre(world: World) -> None:
    world.newest = 2
    world.settle()
    (world.settings.sets / world.id_of(2) / "suricata.rules").write_bytes(b"damaged")
    world.keeper, world.checked = None, False
    compiler.ensure(world.settings)  # what appliance does when it starts
    assert world.in_force == 1
    for _ in range(20):
        world.turn()
    assert world.in_force == 2
    assert world.keeper is not None
    assert world.keeper.journal.step is Step.IDLE


def test_somebody_else_s_change_of_the_link_is_seen_and_not_fought(world: World) -> None:
    world.settle()
    world.turn()
    other = write_set(world.settings, 9)
    compiler.switch(world.settings, other.id)
    for _ in range(10):
        world.turn()
    assert world.keeper is not None
    assert (world.in_force, world.keeper.journal.active.id) == (9, other.id)


def test_a_set_with_very_many_new_dropping_rules_has_all_of_them_on_trial(world: World) -> None:
    world.trial = tuple(range(2_000_000_000, 2_000_000_000 + muting.MAX_TRIAL))
    world.newest = 2
    while world.in_force == 1:
        world.turn()
    assert muting.both(world.settings).on_trial == world.trial


def test_a_set_with_more_new_dropping_rules_than_can_be_on_trial_is_refused(world: World) -> None:
    world.trial = tuple(range(1, muting.MAX_TRIAL + 2))
    world.newest = 2
    world.settle()
    assert (world.in_force, states(world)) == (1, ["refused"])
    assert "65537 rules drop for the first time" in world.ends()[0].detail


def test_what_a_new_set_says_in_its_first_seconds_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = soak.News(new=frozenset({7}))
    monkeypatch.setattr(news, "load", lambda path, wanted: Heading(id=wanted, news=loud))
    wanted = world.id_of(2)

    def counted(settings: Settings) -> Fired:
        return Fired(since="x", at=world.now, sids={7: 400 if world.in_force == 2 else 0})

    monkeypatch.setattr(fired, "try_read", counted)
    signatures = msgspec.structs.replace(world.settings.signatures, soak_minutes=5.0)
    world.settings, world.newest = msgspec.structs.replace(world.settings, signatures=signatures), 2
    for _ in range(60):
        world.turn()
    assert compiler.find(world.settings, wanted) is not None
    assert muting.both(world.settings).sids == (7,), "it shouted before anybody first listened"


def soaking(world: World) -> None:
    """Set 2 is in force and will be watched for an hour; its new dropping rule is on trial."""
    world.trial, world.newest = (7,), 2
    signatures = msgspec.structs.replace(world.settings.signatures, soak_minutes=60.0)
    world.settings = msgspec.structs.replace(world.settings, signatures=signatures)
    while states(world) != ["soaking"]:
        world.turn()
    world.settings.fleet.mkdir(parents=True)


def announce(world: World, number: int) -> None:
    world.newest = number
    (world.settings.fleet / "newest.json").write_bytes(b'{"number": %d}' % number)
    for _ in range(30):
        world.turn()


def test_a_set_that_mends_the_one_on_its_soak_does_not_wait_for_its_end(world: World) -> None:
    soaking(world)
    world.trial = ()
    announce(world, 3)
    assert (world.in_force, states(world)) == (3, ["soaking", "soaking"])
    assert muting.both(world.settings).on_trial == (7,), "it was not watched to its end"
    for _ in range(130):
        world.turn(30.0)
    assert (states(world)[2:], world.ends()[-1].number, muting.both(world.settings).on_trial) == (["active"], 3, ())


@pytest.mark.parametrize("where", ["trial", "engine", "channel"])
def test_where_the_newer_set_comes_to_nothing_the_soak_is_begun_anew(world: World, where: str) -> None:
    soaking(world)
    if where == "trial":
        world.broken = {3}
    elif where == "engine":
        world.inspectors.refusing = {world.id_of(3)}
    else:
        world.online = False
    announce(world, 3)
    for _ in range(60):
        world.turn()
    assert (world.in_force, muting.both(world.settings).on_trial) == (2, (7,)), "its new rule does not drop yet"
    world.newest = 2
    for _ in range(130):
        world.turn(30.0)
    assert (world.in_force, muting.both(world.settings).on_trial) == (2, ())
    assert states(world)[-1] == "active"
