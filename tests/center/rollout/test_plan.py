"""Who is in which ring: stable, spread, nobody twice, nobody forgotten."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import BOXES_CAP
from sekisho.center.rollout import plan
from sekisho.center.rollout.model import About, Rule
from sekisho.center.rollout.plan import Candidate

ABOUT = About(counter=140, version="1.4.0", hardware="amd64", tier=1)
ID = "01JD3AAAAAAAAAAAAAAAAAAAAA"


def fleet(tenants: int, each: int, sites: int = 1) -> list[Candidate]:
    return [
        Candidate(f"t{tenant}-b{n}", f"t{tenant}", f"site{n % sites}") for tenant in range(tenants) for n in range(each)
    ]


def test_the_rings_are_three_boxes_then_shares_of_all() -> None:
    made = plan.rings(ID, fleet(100, 10))
    assert [len(ring) for ring in made] == [3, 47, 200, 750]
    assert made == plan.rings(ID, list(reversed(fleet(100, 10)))), "whatever order they come in"
    assert made != plan.rings(ID.replace("3", "4"), fleet(100, 10)), "another rollout begins with others"
    assert [len(ring) for ring in plan.rings(ID, fleet(1, 2))] == [2]
    assert [len(ring) for ring in plan.rings(ID, fleet(2, 10))] == [3, 2, 15]


def test_the_first_rings_are_spread_over_customers_and_their_sites() -> None:
    made = plan.rings(ID, fleet(1, 500, sites=10) + fleet(47, 1)[1:] + fleet(60, 1)[47:])
    first = [box.split("-")[0] for box in made[0] + made[1]]
    assert max(Counter(first).values()) == 1, "no customer twice before all had one"
    one = plan.order(ID, fleet(1, 40, sites=10))
    assert len({int(box.rsplit("b", 1)[1]) % 10 for box in one[:10]}) == 10, "ten sites before any twice"


def test_boxes_that_are_off_come_last() -> None:
    boxes = [Candidate(f"b{n}", f"t{n}", connected=n % 2 == 0) for n in range(40)]
    order = plan.order(ID, boxes)
    assert all(int(box[1:]) % 2 == 0 for box in order[:20])


def test_rings_somebody_chose_come_first_as_they_were_named() -> None:
    made = plan.rings(ID, fleet(20, 5), [["t3-b1"], ["t4-b0", "t5-b2"]])
    assert made[:2] == [["t3-b1"], ["t4-b0", "t5-b2"]] and [len(ring) for ring in made[2:]] == [2, 20, 75]
    assert plan.rings(ID, fleet(2, 2), [["t0-b0"]], shares=()) == [["t0-b0"]]
    for wrong in ([["t3-b1"], ["t3-b1"]], [["nobody"]]):
        with pytest.raises(RejectedInput):
            plan.rings(ID, fleet(20, 5), wrong)
    with pytest.raises(RejectedInput, match="no box"):
        plan.rings(ID, [])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), min_size=1, max_size=80))
def test_every_box_is_in_exactly_one_ring(of: list[tuple[int, int, bool]]) -> None:
    boxes = [Candidate(f"b{n}", f"t{tenant}", f"s{site}", on) for n, (tenant, site, on) in enumerate(of)]
    made = plan.rings(ID, boxes)
    assert sorted(box for ring in made for box in ring) == sorted(one.box for one in boxes)
    assert all(made)


def test_a_ring_that_is_larger_than_a_job_may_name_has_several() -> None:
    ids = (f"{n:026d}" for n in range(100))
    boxes = [f"b{n}" for n in range(BOXES_CAP + 5)]
    made = plan.plan(ID, "fw.activate", ABOUT, Rule(), [["a"], boxes], 1_800_000_000, ids, args={"counter": "140"})
    assert [(one.ring, len(one.job.boxes)) for one in made.papers] == [(0, 1), (1, BOXES_CAP), (1, 5)]
    assert made.rings == [["a"], boxes]
    for one in made.papers:
        assert [step.job.kind for step in one.steps] == ["fw.stage", "fw.activate"], "it is fetched first"
        for step in one.steps:
            assert step.cancel.kind == "job.cancel" and step.cancel.args == {"job": step.job.id}
            assert step.cancel.boxes == step.job.boxes == one.job.boxes and step.job.rollout == ID
    names = [name for one in made.papers for step in one.steps for name in (step.job.id, step.cancel.id)]
    assert len(set(names)) == 12
    alone = plan.plan(ID, "sig.update", ABOUT, Rule(), [["a"]], 1_800_000_000, ids, args={})
    assert [step.job.kind for step in alone.papers[0].steps] == ["sig.update"]


@pytest.mark.parametrize("kind", ["fw.rollback", "quarantine.release", "job.cancel", "support.open"])
def test_what_needs_two_people_or_names_one_box_goes_out_in_no_rings(kind: str) -> None:
    with pytest.raises(RejectedInput, match="rings"):
        plan.plan(ID, kind, ABOUT, Rule(), [["a"]], 1, iter(()), args={})  # type: ignore[arg-type]
