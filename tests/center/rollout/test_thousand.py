"""A thousand boxes take a release, two in a hundred of them badly: what was reported passes through the real ingest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from thousand import World

from sekisho.bench.fleet_jobs import BAD


@pytest.fixture
def thousand(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, 1000)
    yield made
    made.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", ["revert", "dead", *(pytest.param(kind, marks=pytest.mark.full) for kind in BAD[2:])])
def test_two_bad_of_a_hundred_halt_it_inside_ring_two_and_every_state_shown_is_true(thousand: World, kind: str) -> None:
    made = thousand.plan()
    assert [len(ring) for ring in made.rings] == [3, 47, 200, 750]
    bad = thousand.fates(made, 0.02, [kind])  # type: ignore[list-item]
    assert len(bad) == 1 + 4 + 15
    thousand.start(made)
    for _ in range(60):
        thousand.run(120, every=100)
        if thousand.rollout(made.id).state != "running":
            break
    rollout = thousand.rollout(made.id)
    assert (rollout.state, rollout.why_ring + 1) == ("halted", 2)
    assert rollout.why == ("silent" if kind in ("dead", "hang") else "bad")
    assert rollout.why_box in bad and (rollout.why_number, rollout.why_of) == (1, 47)
    thousand.is_truthful(made)
    asked = thousand.asked()
    assert asked <= set(made.rings[0]) | set(made.rings[1])
    thousand.run(1200, every=100)
    assert thousand.asked() == asked, "nobody is asked once it halted"
    thousand.is_truthful(made)


@pytest.mark.timeout(240)
def test_a_good_release_reaches_all_thousand_and_each_is_shown_as_it_is(thousand: World) -> None:
    made = thousand.plan()
    thousand.start(made)
    for _ in range(60):
        thousand.run(100, every=100)
        if thousand.rollout(made.id).state == "done":
            break
    assert thousand.rollout(made.id).state == "done"
    assert {box.truth.running for box in thousand.boxes.values()} == {140}
    thousand.is_truthful(made)
    assert [note.what for note in reversed(thousand.shown(made.id).notes)] == [
        "start", "soak", "ring", "soak", "ring", "soak", "ring", "soak", "done",
    ]  # fmt: skip
