"""Killed before, in the middle of and after every side effect of every state, once and for ever, by a signal or by the
power: the box runs a whole release at every instant, the attempt comes to one end, and that is told once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import msgspec
import pytest
from firmware_world import NOON, Death, World

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.keeper import facts
from sekisho.firmware.keeper.journal import Attempt, Choice, Journal, Place, State

Scene = Callable[[World], None]
CUSTOMER = Choice(by="local-page", until=0.0)
ONCE = ("fetch", "install", "measure", "switch", "mark", "restart", "keep")
"""Repeated only after a death in the middle of it."""


def good(world: World) -> None:
    pass


def sick(world: World) -> None:
    world.sick = True


def dead(world: World) -> None:
    world.dead = True


EXPECTED: dict[Scene, str] = {good: "succeeded", sick: "reverted", dead: "reverted"}
SCENES = list(EXPECTED)


def over(journal: Journal) -> bool:
    return journal.attempt is None and journal.last is not None


def play(world: World) -> World:
    """Stage, choose, and let it come to its end; what must hold at every instant is looked at in every second."""
    for _ in range(9000):
        world.step()
        if world.keeper is None:
            continue
        journal, attempt = world.keeper.journal, world.keeper.journal.attempt
        assert world.where() in ("", "6", "7-aa", "7"), "a whole release runs"
        if attempt is None and journal.last is None:
            world.keeper.put(facts.Asked(counter=7, by="job 01"))  # who asks does so until it is answered
        elif attempt is not None and attempt.state is State.STAGED and attempt.choice is None:
            assert not world.activations, "nobody chose yet"
            world.keeper.put(facts.Chosen(7, CUSTOMER))
        if over(journal) and not journal.untold:
            for _ in range(3):
                world.step()
            return world
    raise AssertionError(f"no end: {world.visited[-9:]} {world.journal}")


LIVES = [*itertools.product(SCENES, (1, 3), (False, True))]


def lives(patch: pytest.MonkeyPatch, scene: Scene, tier: int, power: bool, for_ever: bool) -> Iterator[World]:
    """One life for every point at which it can die."""
    whole = World(patch, tier=tier)
    scene(whole)
    play(whole)
    assert whole.ends() == [EXPECTED[scene]]
    for number in range(whole.points):
        world = World(patch, tier=tier, die_at=number, power=power, for_ever=for_ever)
        scene(world)
        play(world)
        yield world


def check(world: World) -> None:
    where = (world.die_at, world.cursed, world.visited[-9:])
    ends = [event for event in world.told() if event.state in world.ends()]
    assert len(ends) == 1, (where, ends)
    assert ends[0].running == (7 if world.new() else 6), ("what is told to run does", where, ends)
    assert ends[0].state != "succeeded" or world.new(), where
    assert ends[0].state != "reverted" or not world.new(), where
    if world.tried and (world.sick or world.dead) and ends[0].why != "loop":
        assert ends[0].state == "reverted", ("it was tried, whatever the power did in between", where)
    assert all(choice is not None and choice.by == CUSTOMER.by for choice in world.activations), (
        "only what was chosen is activated"
    )
    if world.tier > 1:
        assert world.slots["A"] == "system 6", "the release before can be started still"
    if ends[0].state == "reverted":
        assert world.reports, "why it went back is on the disk"
    for effect in ONCE:
        assert world.done[effect] <= 1 + world.deaths, (where, world.done)


@pytest.mark.parametrize(("scene", "tier", "power"), LIVES)
def test_whenever_it_dies_the_attempt_comes_to_its_right_end_and_that_is_told_once(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, tier: int, power: bool
) -> None:
    for world in lives(monkeypatch, scene, tier, power, for_ever=False):
        assert world.deaths == 1
        check(world)
        if not power:
            assert world.ends() == [EXPECTED[scene]], world.die_at


@pytest.mark.parametrize(("scene", "tier", "power"), LIVES)
def test_what_dies_at_one_point_for_ever_is_given_up_and_the_release_before_can_be_started(
    monkeypatch: pytest.MonkeyPatch, scene: Scene, tier: int, power: bool
) -> None:
    for world in lives(monkeypatch, scene, tier, power, for_ever=True):
        check(world)


def cut_at(patch: pytest.MonkeyPatch, point: str) -> World:
    """The power goes at this point of a system's change."""
    whole = play(World(patch, tier=3))
    return World(patch, tier=3, power=True, die_at=whole.visited.index(point))


@pytest.mark.parametrize("scene", [sick, dead])
def test_a_system_that_was_tried_before_the_order_was_journaled_is_refused_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    world = cut_at(monkeypatch, "activating/after mark")
    scene(world)
    world.verdict = "gate:bridge"
    play(world)
    last = world.journal.last
    assert last is not None and len(world.activations) == 1
    assert (str(last.state), last.why) == ("reverted", "gate:bridge" if scene is dead else "gate:forward_out")
    assert last.why in world.journal.refused[7]


def test_what_was_said_of_an_earlier_system_is_not_said_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The power goes before the order reaches the boot loader, on a box that left a system weeks ago."""
    world = cut_at(monkeypatch, "activating/before mark")
    world.gave_up, world.gave_up_in = "gate:bridge", "boot 0"
    play(world)
    assert world.ends() == ["succeeded"] and world.deaths == 1


def test_there_are_more_than_three_hundred_states_to_die_in(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states = set()
    for scene, tier in itertools.product(SCENES, (1, 3)):
        world = World(monkeypatch, tier=tier)
        scene(world)
        play(world)
        states |= {(scene.__name__, tier, number, point) for number, point in enumerate(world.visited)}
    lived = len(states) * 4  # by a signal or the power, once or for ever
    with capsys.disabled():
        print(f"\n{len(states)} states, {lived} lives")
    assert len(states) >= 300


def test_what_cannot_be_left_whole_is_not_put_in_force_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going back moves the link and stops at a daemon, again and again: it is given up; what the link names runs."""
    world = World(monkeypatch)
    sick(world)

    def half(attempt: Attempt) -> facts.WentBack:
        world.link = attempt.before.release
        world.now += 1801  # it is begun anew after so long
        raise DeviceFault("the appliance does not become well")

    monkeypatch.setattr(world, "go_back", half)
    play(world)
    assert [(event.state, event.running) for event in world.told() if event.state == "failed"] == [("failed", 6)]
    assert (world.journal.running.counter, world.journal.highest, world.new()) == (6, 6, False)


def test_a_clock_that_is_set_makes_nothing_late_and_no_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """The box wakes in 1970, is asked for a release, and hears the time while it loads it and while it starts anew."""
    world = World(monkeypatch, tier=3)
    known, look = [False], world.look
    monkeypatch.setattr(world, "look", lambda attempt: msgspec.structs.replace(look(attempt), sure=known[0]))
    world.wall, world.silent = 60.0, True
    world.step()
    world.put(facts.Asked(counter=7, by="job 01"))
    for _ in range(5):
        world.step()
    world.wall, known[0] = NOON, True
    for _ in range(5):
        world.step()
    assert world.ends() == [], "it had no time yet"
    world.silent = False
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state is State.STAGED)
    world.put(facts.Chosen(7, CUSTOMER))
    while not world.new():
        world.step()
    world.wall -= 30
    for _ in range(40):
        world.step()
    assert world.ends() == ["succeeded"] and world.journal.history == (), "what only the clock explains is no measure"


@pytest.mark.parametrize(
    ("before", "after", "later"),
    [(False, False, False), (False, True, True), (True, False, False), (True, False, True), (True, True, True)],
)
def test_an_interruption_is_measured_by_a_clock_that_is_known_at_both_its_ends_or_not_told(
    monkeypatch: pytest.MonkeyPatch, before: bool, after: bool, later: bool
) -> None:
    """Where it is not known the box has the time of its software: the same before and after."""
    world = World(monkeypatch, tier=3)
    known, real, look = True, world.wall, world.look
    monkeypatch.setattr(world, "look", lambda attempt: msgspec.structs.replace(look(attempt), sure=known))

    def passes(seconds: float) -> None:
        nonlocal real
        real += seconds
        world.now += seconds - 1
        world.wall = (real if known else NOON) - 1
        world.step()

    world.put(facts.Asked(counter=7, by="job 01"))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state is State.STAGED)
    real, known = world.wall, before
    world.put(facts.Chosen(7, CUSTOMER))
    while world.boots == 1:
        passes(1)
    known = after
    passes(40)
    known = later
    passes(3)
    while not over(world.journal):
        passes(1)
    took = [round(one.seconds) for one in world.journal.history]
    assert world.ends() == ["succeeded"] and took == ([40] if before and later else [])


def trying(patch: pytest.MonkeyPatch) -> World:
    """A release of tier 1 that has just been switched to."""
    world = World(patch)
    world.put(facts.Asked(counter=7, by="job 01"))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state is State.STAGED)
    world.put(facts.Chosen(7, CUSTOMER))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state is State.TRIAL)
    return world


def ended(world: World) -> tuple[str, str, str]:
    world.until(over)
    assert world.link == "" and world.ends() == ["reverted"]
    last = world.journal.last
    assert last is not None
    return last.why, last.detail, world.journal.refused.get(7, "")


def test_a_release_that_root_left_for_its_firmware_daemon_is_told_with_root_s_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = trying(monkeypatch)
    world.keeper, world.link, world.former = None, "", None
    world.given_up = facts.GivenUp("7-aa", "firmware does not work: it stands still.")
    why, detail, refused = ended(world)
    assert (why, detail) == ("gate:firmware", world.given_up.why) and "stands still" in refused
    world = trying(monkeypatch)
    world.keeper, world.link, world.former = None, "", None
    world.given_up = facts.GivenUp("6-aa", "of another one")
    assert ended(world)[0] == "outside"


@pytest.mark.parametrize(
    ("reason", "why", "counts"),
    [("power_loss", "power_loss", False), ("ordered", "outside", False), ("panic", "boot", True)],
)
def test_a_machine_that_started_anew_took_the_release_before_and_says_so(
    monkeypatch: pytest.MonkeyPatch, reason: facts.Boot, why: str, counts: bool
) -> None:
    world = trying(monkeypatch)
    world.keeper = None
    world.boot(reason)
    told, detail, refused = ended(world)
    assert told == why and "started anew" in detail and bool(refused) == counts


@pytest.mark.parametrize(
    ("reason", "tries", "why", "counts"),
    [("power_loss", 4, "power_loss", False), ("watchdog", 1, "boot", True), ("panic", 1, "boot", True)],
)
def test_a_change_of_programs_that_ends_the_machine_is_given_up(
    monkeypatch: pytest.MonkeyPatch, reason: facts.Boot, tries: int, why: str, counts: bool
) -> None:
    """Some of its first daemons panics the kernel, hangs it, or asks more of the power supply than it has."""
    world = World(monkeypatch, power=True)
    world.ends_by = reason
    switched = []

    def deadly(to: Place, number: int) -> facts.Switched:
        switched.append(to)
        raise Death

    monkeypatch.setattr(world, "switch", deadly)
    play(world)
    last = world.journal.last
    assert last is not None and (str(last.state), last.why) == ("reverted", why) and len(switched) == tries
    assert (7 in world.journal.refused) is counts and world.link == ""


def test_what_root_does_not_let_stay_goes_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = trying(monkeypatch)
    world.unkept = "jobs ended 9 times since the change."
    why, detail, refused = ended(world)
    assert (why, detail) == ("gate:daemons", world.unkept) and "jobs ended" in refused
