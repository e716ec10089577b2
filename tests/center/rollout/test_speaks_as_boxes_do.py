"""The simulated boxes say of their jobs what a real box's own machine says: the same states, in the same order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from thousand import KEY, OPERATORS

from sekisho.appliance.core import jobs
from sekisho.appliance.core.jobs import Job
from sekisho.bench.fleet_jobs import Fate, JobBox
from sekisho.portal_agent.jobs import facts
from sekisho.portal_agent.jobs.book import Book
from sekisho.portal_agent.jobs.facts import Now, Progress
from sekisho.portal_agent.jobs.machine import Machine
from sekisho.portal_agent.jobs.runner import report
from sekisho.telemetry import events

NOW = 1_800_000_000.0
ARGS = {"counter": "140"}


def _job(kind: str, letter: str, **args: str) -> Job:
    return Job(
        id=letter * 26, boxes=["box-0"], kind=kind, args=args or ARGS, nbf=int(NOW), exp=int(NOW) + 9000,  # type: ignore[arg-type]
        rollout="R" * 26,
    )  # fmt: skip


FETCH, SWITCH, BACK = _job("fw.stage", "1"), _job("fw.activate", "2"), _job("job.cancel", "3", job="2" * 26)
FETCHED = [Progress(step="downloading"), Progress(step="verified"), Progress("SUCCEEDED", step="staged")]
TRIED = [Progress(step="armed"), Progress(step="activating"), Progress(step="trial")]
WORLD: dict[Fate, tuple[list[Progress], list[Progress]]] = {
    "good": (FETCHED, [*TRIED, Progress("SUCCEEDED", step="succeeded")]),
    "revert": (FETCHED, [*TRIED, Progress(step="reverting"), Progress("REVERTED", "gate:forwarding", "reverted")]),
    "fail": ([FETCHED[0], Progress("FAILED", "refused", "failed")], []),
    "hang": (FETCHED, TRIED),
}
"""What the firmware daemon answers of each job, look after look."""


def real(fate: Fate, sent: list[Job]) -> list[events.Job]:
    """What a box's own machine tells of these jobs."""
    machine, told = Machine(Book()), list[events.Job]()
    answers: dict[str, Iterator[Progress]] = {
        FETCH.id: _lasting(WORLD[fate][0]), SWITCH.id: _lasting(WORLD[fate][1])
    }  # fmt: skip
    staged = False

    def handle(event: facts.Event, now: Now) -> None:
        nonlocal staged
        commands = machine.handle(event, now)
        for entry in machine.book.entries:
            if entry.ver > entry.told:
                told.append(report(entry))
                machine.spoken(entry.job.id, entry.ver)
                staged |= entry.job.id == FETCH.id and entry.state == "SUCCEEDED"
        for command in commands:
            if isinstance(command, facts.Prepare):
                absent = command.id == SWITCH.id and not staged
                waits = facts.Unready(command.id, Progress("WAITING", "not_staged"))
                handle(waits if absent else facts.Prepared(command.id), now)
            elif isinstance(command, facts.Begin | facts.Look):
                handle(facts.Looked(command.id, next(answers[command.id])), now)
            elif isinstance(command, facts.Withdraw):
                handle(facts.Withdrawn(command.id), now)

    for job in sent:
        handle(facts.Came(job, "d", ("suzuki",)), Now(0.0, NOW, "2027-01-15T08:00:00.000000Z"))
    for second in range(400):
        handle(facts.Turned(), Now(float(second), NOW + second, "2027-01-15T08:00:00.000000Z"))
    return told


def _lasting(said: list[Progress]) -> Iterator[Progress]:
    return itertools.chain(said, itertools.repeat(said[-1] if said else Progress()))


def simulated(fate: Fate, sent: list[Job]) -> list[events.Job]:
    box, said = JobBox("office", "box-0", OPERATORS, fate), list[events.Event]()
    for job in sent:
        said += box.take(jobs.sealed(job, [("suzuki", KEY)]), NOW)
    for second in range(1000):
        said += box.tick(NOW + second)
    return [one for one in said if isinstance(one, events.Job)]


def states(told: list[events.Job], job: Job) -> list[str]:
    """Its states in order, each run of equal ones once."""
    return [state for state, _ in itertools.groupby(one.state for one in told if one.id == job.id)]


@pytest.mark.parametrize("fate", list(WORLD))
def test_a_simulated_box_tells_the_states_that_a_real_box_tells(fate: Fate) -> None:
    true, made = real(fate, [FETCH, SWITCH]), simulated(fate, [FETCH, SWITCH])
    for job in (FETCH, SWITCH):
        assert states(made, job) == states(true, job)
        for told in (made, true):
            vers = [one.ver for one in told if one.id == job.id]
            assert vers == sorted(set(vers)) and vers[0] == 1
            assert {(one.kind, one.rollout) for one in told if one.id == job.id} == {(job.kind, job.rollout)}
    steps = [[one.step for one in told if one.id == SWITCH.id and one.step] for told in (made, true)]
    assert steps[0] == steps[1]
    whys = [{one.why for one in told if one.state in ("REVERTED", "FAILED")} for told in (made, true)]
    assert whys[0] == whys[1]
    waits = {one.why for told in (made, true) for one in told if one.state == "WAITING"}
    assert waits <= {"turn", "not_staged"}


def test_both_refuse_for_good_what_was_cancelled_first() -> None:
    made, true = simulated("good", [BACK, FETCH, SWITCH]), real("good", [BACK, FETCH, SWITCH])
    assert states(made, SWITCH)[-1] == states(true, SWITCH)[-1] == "CANCELED"
