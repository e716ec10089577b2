"""A fleet takes a release over a real broker: real sender, real intake, the real process that decides."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from thousand import ABOUT, KEY, OPERATORS, is_truthful

from sekisho.appliance.core import utc
from sekisho.bench.center_stand import standing
from sekisho.bench.fleet import TENANT, Fleet
from sekisho.bench.fleet_certificates import box_name, issue_fleet
from sekisho.bench.fleet_jobs import Fate
from sekisho.bench.fleet_members import Member, Pace
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.database import Database
from sekisho.center.rollout import book, papers, plan, turn
from sekisho.center.rollout.model import Rule
from sekisho.center.rollout.sending import JOBS

RULE = Rule(soak_s=1, silent_s=30, deadline_s=86_400)
SPEED = 20.0
QUIET_S = 10.0
"""Longer than any step of a box at that speed (`fleet_jobs`)."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("boxes", "shares", "kind"),
    [
        (100, (0.5, 1.0), "revert"),
        pytest.param(1000, plan.SHARES, "revert", marks=pytest.mark.full),
        pytest.param(1000, plan.SHARES, "dead", marks=pytest.mark.full),
        pytest.param(1000, plan.SHARES, "hang", marks=pytest.mark.full),
    ],
)
def test_two_bad_of_a_hundred_halt_it_inside_ring_two_over_a_real_broker(
    tmp_path: Path, boxes: int, shares: tuple[float, ...], kind: Fate
) -> None:
    with standing(tmp_path) as stand:
        stand.start_broker(boxes, 1)
        stand.start_worker(1)
        stand.start_rollouts()
        database = Database(stand.store)
        with database.transaction() as db:
            fresh = {"tenant": TENANT, "state": "active", "changed_at": utc.now()}
            db.execute(BOX_IDENTITY.insert(), [{"box": box_name(n), **fresh} for n in range(boxes)])
        issue_fleet(stand.authority, tmp_path / "fleet", boxes)
        pace = Pace(SPEED)
        members = {box_name(n): Member(box_name(n), OPERATORS, pace) for n in range(boxes)}
        host = ("127.0.0.1", stand.port)
        fleet = Fleet([host], stand.authority / "ca.crt", tmp_path / "fleet", boxes, list(members.values()))
        try:
            assert fleet.connect(240).connected == boxes
            assert fleet.until(lambda: len(candidates(database)) == boxes, 60), "the centre has not heard them all"
            ids = papers.ulids()
            id_ = next(ids)
            rings = plan.rings(id_, candidates(database), shares=shares)
            args = {"counter": str(ABOUT.counter)}
            made = plan.plan(id_, "fw.activate", ABOUT, RULE, rings, int(time.time()), ids, args=args)
            bad = [box for ring in rings[1:] for box in ring[::50][: max(1, len(ring) // 50)]]
            for box in bad:
                members[box].did.fate = kind
            assert round(boxes * 0.02) - 1 <= len(bad) <= round(boxes * 0.02)
            with database.transaction() as db:
                book.start(db, papers.sign(made, "suzuki", KEY), JOBS, "suzuki", time.time())

            assert fleet.until(lambda: state(database, id_) != "running", 240), "it goes on"
            assert fleet.until(Still(list(members.values())), 240), "boxes go on and on"
            said = time.time()
            assert fleet.until(lambda: counted(database, id_) > said, 60)
            shown = shown_of(database, id_)
            rollout = shown.listed.rollout
            assert (rollout.state, rollout.why_ring + 1) == ("halted", 2)
            assert rollout.why == ("silent" if kind in ("dead", "hang") else "bad") and rollout.why_box in bad
            is_truthful(shown, {name: one.did for name, one in members.items()}, spoken(members))
            assert {name for name, said in spoken(members).items() if said} <= {*rings[0], *rings[1]}
            assert {one.did.truth.running for name, one in members.items() if name in rings[0]} == {140}
            assert not any(one.did.refused for one in members.values())
        finally:
            fleet.close()
            database.close()


class Still:
    """True once no box has said anything for `QUIET_S`, and the centre has all of it."""

    def __init__(self, members: list[Member]) -> None:
        self._members, self._last = members, (0, time.monotonic())

    def __call__(self) -> bool:
        said, now = sum(len(one.said) for one in self._members), time.monotonic()
        if said != self._last[0] or any(one.waiting for one in self._members if not one.gone):
            self._last = (said, now)
        return now - self._last[1] > QUIET_S


def spoken(members: dict[str, Member]) -> dict[str, list[str]]:
    return {name: one.said for name, one in members.items()}


def candidates(database: Database) -> list[plan.Candidate]:
    with database.reading() as db:
        return [one for one in book.candidates(db) if one.connected]


def shown_of(database: Database, id_: str) -> book.Shown:
    with database.reading() as db:
        return book.show(db, id_, JOBS)


def state(database: Database, id_: str) -> str:
    with database.reading() as db:
        return str(turn.load(db, id_).state)


def counted(database: Database, id_: str) -> float:
    with database.reading() as db:
        return float(turn.load(db, id_).counted_at)
