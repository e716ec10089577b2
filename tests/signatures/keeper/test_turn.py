"""Who brings a set while another one is on its way: watched, it gives way; on trial, it is waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from keeper_world import World, manifest

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.keeper import facts
from sekisho.signatures.keeper.counter import Busy, Counter, Import, Taken
from sekisho.signatures.keeper.journal import Step


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Set 2 is on its way, and then the line is cut."""
    made = World(tmp_path, monkeypatch)
    made.newest = 2
    return made


def reach(world: World, step: Step) -> None:
    while world.keeper is None or world.keeper.journal.step is not step:
        world.turn(0.1)


def bring(world: World, number: int, meanwhile: Callable[[], None] = lambda: None) -> Taken | Busy:
    """What a person with set `number` on a stick is told."""
    keeper = world.keeper
    assert keeper is not None

    def imported(_path: Path, _confirm_old: bool) -> facts.Refreshed:
        meanwhile()
        return facts.Refreshed(manifest(number), again=True)

    counter = Counter(world.settings, lambda: keeper.journal, keeper.put, imported)
    (frame,) = counter.answer(msgspec.json.encode(Import("/media/stick")))
    return msgspec.json.decode(frame, type=Taken | Busy)


def test_a_set_that_is_watched_gives_way_to_a_newer_one_and_to_no_other(world: World) -> None:
    reach(world, Step.SOAK)
    assert bring(world, 2) == Taken("Set 2 is in force already.")
    with pytest.raises(RejectedInput, match="set 2 was in force here"):
        bring(world, 1)
    assert "verified" in bring(world, 3).said
    world.newest = 3
    world.settle()
    assert world.in_force == 3


@pytest.mark.parametrize("step", [Step.TESTING, Step.PROVING])
def test_a_set_that_is_on_trial_is_not_disturbed(world: World, step: Step) -> None:
    world.inspectors.stuck = True
    reach(world, step)
    assert bring(world, 3) == Busy(f"Another set is on its way ({step}).")
    world.inspectors.stuck = False
    world.settle()
    assert world.in_force == 2


def test_what_was_read_while_the_watch_ended_is_asked_for_again(world: World) -> None:
    reach(world, Step.SOAK)
    told = bring(world, 3, meanwhile=lambda: reach(world, Step.IDLE))
    assert isinstance(told, Busy)
    assert "verified" in bring(world, 3).said
    world.newest = 3
    world.settle()
    assert world.in_force == 3
