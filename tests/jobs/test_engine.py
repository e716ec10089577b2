"""Jobs for another engine, at the appliance's real counter; the engine's care is played, its processes are real."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jobsbox import Box, Hands
from signing import LISTED, NOW, job, signed

from sekisho.appliance import engine_desk
from sekisho.appliance.account import EngineState
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.jobs import Job, When
from sekisho.portal_agent.jobs.desks import Desks

SUNDAY = {"days": ["sun"], "start": "03:00", "hours": 3}
DAY = 86_400


class Played:
    """The care of an engine: what it is asked it does when the test says so."""

    def __init__(self, box: Box) -> None:
        self.box, self.room = box, True
        self.asked: list[bool] = []
        """May it restart? One for each time another engine was really wanted."""
        self.processes: list[subprocess.Popen[bytes]] = []
        self.state = EngineState()
        self.replace()
        self.serve()

    def serve(self) -> None:
        """A daemon begins, which knows of nothing that was asked before."""
        self.state.renewals = 0
        self.desk = Desk(engine_desk.socket_of(self.box.settings), (), engine_desk.Counter(self).answer)

    def request_renew(self, *, may_restart: bool = False) -> None:
        self.asked.append(may_restart)
        self.state.renewing = True

    def replace(self) -> None:
        self.processes.append(subprocess.Popen(["sleep", "600"]))
        self.state.pid, self.state.phase, self.state.canary = self.processes[-1].pid, "running", "caught"
        for old in self.processes[:-1]:
            old.kill()
            old.wait()

    def finish(self) -> None:
        """What was asked is done, or there is no room for it."""
        done = self.room or self.asked[-1]
        if done:
            self.replace()
        self.state.scarce, self.state.renewal = not done, "" if done else "No room for two."
        self.state.renewing = False
        self.state.renewals += 1

    def close(self) -> None:
        self.desk.close()
        for one in self.processes:
            one.kill()
            one.wait()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path, Hands())
    made.hands = Desks(made.settings)  # type: ignore[assignment]  # the same verbs, really done
    made.restart()
    return made


@pytest.fixture
def engine(box: Box) -> Iterator[Played]:
    made = Played(box)
    yield made
    made.close()


def given(box: Box, **changes: object) -> Job:
    made = job("engine.restart", **changes)
    box.give(signed(made))
    box.turn(5)
    return made


def test_another_engine_is_asked_for_once_and_success_is_told_when_it_works(box: Box, engine: Played) -> None:
    made = given(box)
    assert engine.asked == [False] and box.states(made.id)[-1] == "RUNNING"
    box.restart()
    box.turn(10)
    assert engine.asked == [False]
    engine.finish()
    engine.state.canary = "untried"
    box.turn(5)
    assert box.states(made.id)[-1] == "RUNNING" and box.told_of(made.id)[-1].step == "proving"
    engine.state.canary = "caught"
    box.turn(5)
    assert box.states(made.id)[-1] == "SUCCEEDED" and engine.asked == [False]


def test_a_daemon_that_dies_while_it_renews_is_asked_again_and_one_that_had_done_it_is_not(
    box: Box, engine: Played
) -> None:
    made = given(box)
    engine.desk.close()
    engine.state.renewing = False
    box.turn(5)
    assert box.states(made.id)[-1] == "RUNNING", "nobody answers"
    engine.serve()
    box.turn(5)
    assert engine.asked == [False, False], "the first never came about"
    engine.finish()
    engine.desk.close()
    engine.serve()
    box.turn(5)
    assert box.states(made.id)[-1] == "SUCCEEDED" and len(engine.asked) == 2


def test_without_room_for_two_nothing_is_restarted_that_was_not_asked_for(box: Box, engine: Played) -> None:
    engine.room = False
    made = given(box)
    engine.finish()
    box.turn(5)
    assert box.states(made.id)[-1] == "FAILED(memory)" and engine.asked == [False]


def test_a_restart_waits_for_the_window_the_customer_keeps_and_never_comes_by_itself(box: Box, engine: Played) -> None:
    engine.room = False
    sunday = NOW - NOW % (7 * DAY) + 3 * DAY + 4 * 3600
    box.believe(LISTED, at=NOW - 30 * DAY)
    life = {"nbf": sunday - 3 * DAY, "exp": sunday + 30 * DAY}
    box.ordered(sunday - 2 * DAY, zone="UTC", restart=SUNDAY)
    waits = given(box, args={"restart": "yes"}, when=When(mode="ask"), **life)
    engine.finish()
    box.turn(5)
    assert box.states(waits.id)[-1] == "WAITING(window)"
    box.ordered(sunday, zone="UTC", restart=SUNDAY)
    box.turn(5)
    assert box.states(waits.id)[-1] == "WAITING(window)", "it did not ask for the window"
    box.give(signed(job("job.cancel", args={"job": waits.id}, **life)))
    box.turn(20)
    assert box.states(waits.id)[-1] == "CANCELED" and engine.asked == [False]
    box.ordered(sunday - 2 * DAY, zone="UTC", restart=SUNDAY)
    made = given(box, args={"restart": "yes"}, when=When(mode="window"), **life)
    box.turn(15)
    engine.finish()
    box.turn(5)
    assert box.states(made.id)[-1] == "WAITING(window)" and engine.asked == [False, False]
    box.ordered(sunday, zone="UTC", restart=SUNDAY)
    box.turn(5)
    assert engine.asked == [False, False, True]
    engine.finish()
    box.turn(5)
    assert box.states(made.id)[-1] == "SUCCEEDED"


def test_what_does_not_come_to_an_end_is_given_up_in_time(box: Box, engine: Played) -> None:
    made = given(box)
    box.turn(200, 5.0)
    assert box.states(made.id)[-1] == "TIMED_OUT(deadline)"
    assert box.told_of(made.id)[-1].detail == "too_late", "the engine may still be replaced"
