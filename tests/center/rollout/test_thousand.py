"""A thousand boxes take a release, two in a hundred of them badly: what was reported passes through the real ingest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from thousand import World

from sekisho.bench.fleet_jobs import BAD
from sekisho.center.rollout.model import Plan


@pytest.fixture
def thousand(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, 1000)
    yield made
    made.close()


def is_truthful(world: World, made: Plan) -> None:
    """Nothing is shown of any box that it did not say, and of no box less than it said."""
    shown = world.shown(made.id)
    for one in shown.boxes:
        box = world.boxes[one.box]
        said = world.said.get(one.box, [])
        assert f" {one.state}" in f" {' '.join(said)}" if said else not one.state, one
        mine = [state for state in said if not state.startswith("fetch")]
        assert (
            one.state in (*mine[-1:], *(state[6:] for state in said[-2:] if state.startswith("fetch"))) or not said
        ), one
        if one.how == "good":
            assert box.truth.running == 140 and mine[-1] == "SUCCEEDED", one
        if one.how in ("bad", "silent"):
            assert box.truth.running == 139 and box.fate != "good", one
        if box.truth.running == 140:
            assert one.how == "good", one
        if one.how == "unasked":
            assert not said, one
        if one.state in ("REVERTED", "FAILED"):
            assert one.how == "bad" and one.why in ("gate:forwarding", "refused"), one
    for ring in shown.rings:
        assert sum(ring.counts.values()) == ring.boxes
        counted = Counter(one.how for one in shown.boxes if one.ring == ring.number)
        assert {how: n for how, n in ring.counts.items() if n} == dict(counted)


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
    is_truthful(thousand, made)
    asked = thousand.asked()
    assert asked <= set(made.rings[0]) | set(made.rings[1])
    thousand.run(1200, every=100)
    assert thousand.asked() == asked, "nobody is asked once it halted"
    is_truthful(thousand, made)


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
    is_truthful(thousand, made)
    assert [note.what for note in reversed(thousand.shown(made.id).notes)] == [
        "start", "soak", "ring", "soak", "ring", "soak", "ring", "soak", "done",
    ]  # fmt: skip
