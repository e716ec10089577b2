"""Whatever happens in whatever order: the set in force is whole and was proven good, its end is told once, and when the
trouble ends the newest good set is in force.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from keeper_world import World

from sekisho.signatures.keeper import facts


class Life(RuleBasedStateMachine):
    """A box among publishers, engines, power and people."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), self.patch)
        self.bad: set[int] = set()

    @rule(how=st.sampled_from(["good", "broken", "refused by the engine"]))
    def publish(self, how: str) -> None:
        world = self.world
        world.newest += 1
        if how == "broken":
            world.broken = world.broken | {world.newest}
        if how == "refused by the engine":
            world.inspectors.refusing = world.inspectors.refusing | {world.id_of(world.newest)}
        if how != "good":
            self.bad.add(world.newest)

    @rule(turns=st.integers(1, 12), seconds=st.sampled_from([1.0, 5.0, 60.0, 7200.0]))
    def time_goes_on(self, turns: int, seconds: float) -> None:
        for _ in range(turns):
            self.world.turn(seconds)

    @rule(points=st.integers(0, 12))
    def die_soon(self, points: int) -> None:
        self.world.die_at = self.world.points + points
        for _ in range(4):
            self.world.turn()

    @rule(online=st.booleans(), full=st.booleans(), away=st.booleans())
    def trouble(self, online: bool, full: bool, away: bool) -> None:
        self.world.online, self.world.full, self.world.inspectors.mute = online, full, away

    @rule()
    def ask(self) -> None:
        if self.world.keeper is not None:
            self.world.keeper.put(facts.Asked())

    @invariant()
    def what_is_in_force_is_whole_and_not_broken(self) -> None:
        assert self.world.in_force not in self.world.broken

    def teardown(self) -> None:
        world = self.world
        world.online, world.full, world.inspectors.mute, world.die_at = True, False, False, -1
        if world.newest in self.bad or world.in_force != world.newest:
            world.newest += 1
        # Sets that were refused while nobody could prove them are not tried again: one more is always published.
        world.turn()
        self.ask()
        for _ in range(250):
            world.turn(30.0)
            if world.in_force == world.newest and world.keeper and not world.keeper.journal.manifest:
                break
        try:
            assert world.in_force == world.newest
            active = [event.number for event in world.ends() if event.state == "active"]
            assert sorted(set(active)) == active, "each once, in order"
            refused = [event.refused for event in world.ends() if event.state == "rolled_back"]
            assert len(set(refused)) == len(refused)
        finally:
            self.patch.undo()
            self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=30, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
