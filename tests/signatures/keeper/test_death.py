"""Killed before, in the middle of and after every side effect of every step: the last good set is in force, whole, at
every instant; the set on its way comes to its one right end; and that end is told once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from keeper_world import World, write_set

from sekisho.signatures import compiler
from sekisho.signatures.keeper import facts, journal

Scene = Callable[[World], tuple[int, str]]


def good(world: World) -> tuple[int, str]:
    return 2, "active"


def broken(world: World) -> tuple[int, str]:
    world.broken = {2}
    return 1, "refused"


def refused_by_the_engine(world: World) -> tuple[int, str]:
    world.inspectors.refusing = {world.id_of(2)}
    return 1, "rolled_back"


def left_at_somebody_s_word(world: World) -> tuple[int, str]:
    """Set 2 came into force, and a job of operators leads back: asked again after each death, as jobs are."""
    second = write_set(world.settings, 2)
    compiler.switch(world.settings, second.id)
    world.inspectors.turn(world.now)
    known = journal.Journal(active=second, previous=world.first, highest=2)
    (world.settings.channel / "keeper.json").write_bytes(msgspec.json.encode(known))
    world.asks = lambda keeper: keeper.put(facts.Left(2, BY)) if world.in_force == 2 else None
    return 1, "rolled_back"


BY = "job 01JD3Z9V7M2Q4W8X6Y00000001"
SCENES: list[Scene] = [good, broken, refused_by_the_engine, left_at_somebody_s_word]


def play(root: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene, die_at: int = -1, die_in: str = "") -> World:
    world = World(root, monkeypatch, die_at=die_at, die_in=die_in)
    expected = scene(world)
    world.newest = 2
    world.settle()
    ends = [event.state for event in world.ends()]
    assert (world.in_force, ends) == (expected[0], [expected[1]]), (die_at, world.visited[-8:])
    return world


@pytest.mark.protocol("P46")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_whenever_it_dies_the_set_comes_to_its_end_and_that_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    with monkeypatch.context() as patch:
        points = play(tmp_path / "whole", patch, scene).points
    assert points > 20
    for number in range(points):
        with monkeypatch.context() as patch:
            assert play(tmp_path / str(number), patch, scene, die_at=number).deaths == 1
