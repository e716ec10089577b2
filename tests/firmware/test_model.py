"""Whatever people, operators, the channel, the power and a bad release do in whatever order: what must hold, holds."""

from __future__ import annotations

from typing import Any

import pytest
from firmware_world import World, release
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sekisho.firmware.keeper import facts
from sekisho.firmware.keeper.journal import Choice, State

JOB = "job 01ARZ3NDEKTSV4RRFFQ69G5FAV"
WAYS = st.sampled_from(["local-page", "portal", "button", "command", JOB])


class Box(RuleBasedStateMachine):
    """One box's life."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.world: World = World(self.patch)
        self.chosen: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(tier=st.sampled_from([1, 3]))
    def switched_on(self, tier: int) -> None:
        self.world = World(self.patch, tier=tier)
        self.live(1)

    def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.world.step()

    @rule(seconds=st.integers(1, 12))
    def seconds_pass(self, seconds: int) -> None:
        self.live(seconds)

    @rule(hours=st.integers(1, 100))
    def hours_pass(self, hours: int) -> None:
        self.world.now += hours * 3600
        self.world.wall += hours * 3600
        self.live(2)

    @precondition(lambda self: self.world.tier == 1 or not self.world.new())
    @rule(mode=st.sampled_from(["ask", "window", "asap"]), again=st.booleans())
    def somebody_asks_for_it(self, mode: Any, again: bool) -> None:
        self.world.put(facts.Asked(counter=self.world.offered.counter, by=JOB, mode=mode, again=again))
        self.live(1)

    @rule(by=WAYS, ahead=st.sampled_from([0, 0, 5, 3600]))
    def somebody_chooses(self, by: str, ahead: int) -> None:
        if by != JOB:
            self.chosen.add(by)
        at = self.world.wall + ahead if ahead else 0.0
        choice = Choice(by=by, at=at, until=self.world.wall + ahead + 3600)
        self.world.put(facts.Chosen(self.world.offered.counter, choice, mode="ask"))
        self.live(1)

    @rule()
    def somebody_puts_it_off(self) -> None:
        self.world.put(facts.Postponed(self.world.offered.counter, self.world.wall + 86_400, "local-page"))
        self.live(1)

    @rule()
    def somebody_gives_it_up(self) -> None:
        self.world.put(facts.Canceled(self.world.offered.counter, JOB))
        self.live(1)

    @rule(sick=st.booleans(), dead=st.booleans(), silent=st.booleans(), refuses=st.booleans())
    def the_release_is_of_some_kind(self, sick: bool, dead: bool, silent: bool, refuses: bool) -> None:
        busy = self.world.journal.attempt
        if busy is None or busy.state not in (State.ACTIVATING, State.TRIAL, State.REVERTING):
            self.world.sick, self.world.dead, self.world.silent = sick, dead, silent
            self.world.refuses = "It is not what was signed." if refuses else ""

    @precondition(lambda self: self.world.tier == 1)
    @rule()
    def a_newer_one_is_published(self) -> None:
        self.world.offered = release(self.world.offered.counter + 1)

    @rule(ahead=st.integers(0, 12), power=st.booleans())
    def it_dies(self, ahead: int, power: bool) -> None:
        self.world.die_at, self.world.power = self.world.points + ahead, power
        self.live(2)

    @invariant()
    def what_must_hold_holds(self) -> None:
        world = self.world
        assert world.where() in {"", "6"} | world.staged | {str(world.offered.counter)}, "a whole release runs"
        journal = world.journal
        under_way = journal.attempt is not None
        untold = [event for event in journal.untold if event not in world.told()]
        assert len(world.ends()) + sum(event.state in ENDS for event in untold) == journal.attempts - under_way
        if world.tier > 1:
            assert all(choice is not None and choice.by in self.chosen for choice in world.activations)
            assert world.slots["A"] == "system 6", "the one before can be started still"
        assert journal.highest >= 0 and (journal.last is None or str(journal.last.state) in ENDS)


ENDS = {"succeeded", "reverted", "failed", "rejected", "canceled", "expired"}
Box.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestBox = Box.TestCase
