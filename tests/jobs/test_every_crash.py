"""The power fails at every step of every story a job can have; what is done is done once, and one end is told.

The steps are all a box does that lasts: each save of the book and of an envelope, each report, each question to a
daemon, and taking a message away; the process dies before the step, in the middle of what is written, or after. Then
it starts again, and the broker may send again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jobsbox import Box, Died, Hands, name_of
from power import Power, powered
from signing import NOW, SATO, TANAKA, job, signed

from sekisho.appliance.core.jobs import MUTATING, TERMINAL
from sekisho.portal_agent.jobs.facts import Progress

Story = Callable[[Box], list[bytes]]


def simple(box: Box) -> list[bytes]:
    return [signed(job("engine.restart"))]


def waits_for_the_customer(box: Box) -> list[bytes]:
    made = job("fw.activate", args={"counter": "7"})
    answers = itertools.chain([Progress("WAITING", "customer", "STAGED")] * 3, itertools.repeat(Progress("SUCCEEDED")))
    box.hands.outcome[made.id] = Progress("RUNNING")
    box.hands.then = {made.id: answers}
    return [signed(made)]


def canceled_before_it_begins(box: Box) -> list[bytes]:
    made = job("fw.stage", nbf=NOW + 50, args={"counter": "7"})
    return [signed(made), signed(job("job.cancel", args={"job": made.id}))]


def canceled_while_under_way(box: Box) -> list[bytes]:
    made = job("fw.activate", args={"counter": "7"})
    box.hands.outcome[made.id] = Progress("WAITING", "customer")
    return [signed(made), signed(job("job.cancel", args={"job": made.id}))]


def one_after_the_other(box: Box) -> list[bytes]:
    return [signed(job("engine.restart")), signed(job("quarantine.release"), TANAKA, SATO), signed(job("reboot"))]


def fails(box: Box) -> list[bytes]:
    made = job("sig.update")
    box.hands.outcome[made.id] = Progress("FAILED", "refused")
    return [signed(made)]


def expires_while_it_waits(box: Box) -> list[bytes]:
    made = job("fw.activate", exp=NOW + 15)
    box.hands.outcome[made.id] = Progress("WAITING", "customer")
    return [signed(made)]


STORIES: tuple[Story, ...] = (
    simple, waits_for_the_customer, canceled_before_it_begins, canceled_while_under_way, one_after_the_other, fails,
    expires_while_it_waits,
)  # fmt: skip


def lived(box: Box, power: Power, story: Story, resend: bool) -> list[bytes]:
    """The story, with a new start wherever the power failed."""
    envelopes = story(box)
    waiting = list(envelopes)
    for turn in range(60):
        if not waiting and box.jobs is not None and _quiet(box, len(envelopes)):
            break
        try:
            if box.jobs is None:
                box.start()
            if waiting and turn % 4 == 0:
                box.give(waiting.pop(0))
            box.turn()
        except Died:
            box.end()
            if resend:
                for envelope in envelopes[: len(envelopes) - len(waiting)]:
                    box.give(envelope)
    return envelopes


def _quiet(box: Box, count: int) -> bool:
    """All are over, and nothing waits."""
    assert box.jobs is not None
    entries = box.jobs.machine.book.entries
    told = all(entry.over and entry.told >= entry.ver for entry in entries)
    return len(entries) == count and told and not any(box.settings.jobs_inbox.iterdir())


def judged(box: Box, envelopes: list[bytes], power: Power) -> None:
    assert len(set(box.hands.done)) == len(box.hands.done), f"done twice: {box.hands.done}"
    assert box.hands.most <= 1, "two that change the box at once"
    for envelope in envelopes:
        told = [one for one in box.told_of(name_of(envelope)) if one.ver]
        ends = {(one.ver, one.state) for one in told if one.state in TERMINAL}
        done = [ident for _, ident in box.hands.done]
        if told[-1].state == "SUCCEEDED" and told[-1].kind != "job.cancel":
            assert name_of(envelope) in done, "it was said to be done"
        assert len(ends) == 1, f"step {power.fails_at}: {ends} of {[one.state for one in told]}"
        vers = [one.ver for one in told]
        assert vers == sorted(vers) and told[-1].state in TERMINAL
        same = {one.ver: one.state for one in told}
        assert all(same[one.ver] == one.state for one in told), "one number, two words"


def counted(tmp_path: Path, story: Story, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Box, list[bytes], Power]]:
    """Each step of a story in turn."""
    at = 0
    while True:
        at += 1
        power = Power(at)
        with monkeypatch.context() as patch:
            box = Box(tmp_path / f"{at}", Hands())
            powered(power, patch, box)
            envelopes = lived(box, power, story, resend=bool(at % 2))
        yield box, envelopes, power
        if not power.off:
            return


@pytest.mark.protocol("P58")
@pytest.mark.timeout(120)
def test_whatever_step_the_power_fails_at_it_is_done_once_and_one_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {}
    for story in STORIES:
        for box, envelopes, power in counted(tmp_path / story.__name__, story, monkeypatch):
            judged(box, envelopes, power)
            box.end()
            steps[story.__name__] = power.fails_at
    print(f"crash states: {sum(steps.values())}: {steps}")
    assert sum(steps.values()) >= 300


def test_a_daemon_that_dies_at_the_same_step_for_ever_gives_the_job_up(tmp_path: Path) -> None:
    box = Box(tmp_path, Hands())
    made = job("engine.restart")
    box.hands.outcome[made.id] = Progress("RUNNING")
    box.give(signed(made))
    box.turn(3)
    for _ in range(25):
        box.restart()
        box.turn(1)
    assert box.states(made.id)[-1] == "FAILED(loop)" and box.hands.withdrawn == [made.id]
    assert len(box.hands.done) == 1


def test_a_wait_for_the_customer_outlives_any_number_of_power_cycles(tmp_path: Path) -> None:
    box = Box(tmp_path, Hands())
    made = job("fw.activate")
    box.hands.outcome[made.id] = Progress("WAITING", "customer")
    box.give(signed(made))
    box.turn(3)
    for _ in range(60):
        box.restart()
        box.turn(2)
    assert box.states(made.id)[-1] == "WAITING(customer)"
    assert len(box.told_of(made.id)) < 10, "nothing new, nothing told"


def test_every_kind_that_changes_a_box_is_known_to_do_so() -> None:
    assert {"fw.activate", "engine.restart", "reboot", "sig.update"} <= MUTATING
