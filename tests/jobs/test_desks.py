"""What a job asks of the daemons that do the work, at their real desks, and what it makes of their answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobsbox import Box, Hands
from signing import SATO, TANAKA, job, signed

from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.jobs import When
from sekisho.firmware.keeper import desk, facts
from sekisho.firmware.keeper.journal import Attempt, Choice, Ended, Journal, Running, State
from sekisho.inspect import counter as quarantine_counter
from sekisho.inspect.kept import Entry
from sekisho.inspect.quarantine import Quarantine
from sekisho.portal_agent.jobs.desks import Desks


class Releases:
    """The firmware daemon's desk, with a journal to be told what it says."""

    def __init__(self, box: Box) -> None:
        self.journal = Journal(running=Running(counter=5))
        self.asked: list[facts.Event] = []
        counter = desk.Counter(
            lambda: self.journal, lambda: self.journal.running, lambda: (None, ""), self.asked.append, lambda: ""
        )
        self.desk = Desk(box.settings.firmware_socket, (), counter.answer)

    def on_its_way(self, **values: Any) -> None:
        attempt = Attempt(**{"counter": 7, "tier": 3, "rollback": True, **values})
        self.journal = Journal(running=self.journal.running, last=self.journal.last, attempt=attempt)

    def ended(self, state: State, by: str = "", why: str = "") -> None:
        running = Running(counter=7) if state is State.SUCCEEDED else self.journal.running
        self.journal = Journal(running=running, last=Ended(counter=7, state=state, at="2026-01-02", by=by, why=why))


@pytest.fixture
def real(tmp_path: Path) -> Box:
    box = Box(tmp_path, Hands())
    box.hands = Desks(box.settings)  # type: ignore[assignment]  # the same verbs, really done
    box.restart()
    return box


@pytest.fixture
def releases(real: Box) -> Iterator[Releases]:
    made = Releases(real)
    yield made
    made.desk.close()


def test_a_release_is_staged_once_and_its_waits_are_told(real: Box, releases: Releases) -> None:
    made = job("fw.stage", args={"counter": "7"})
    real.give(signed(made))
    real.turn(5)
    (first, *_) = releases.asked
    assert isinstance(first, facts.Asked) and (first.counter, first.by) == (7, f"job {made.id}")
    releases.on_its_way(state=State.DOWNLOADING, why="network")
    real.turn(5)
    count = len(releases.asked)
    real.turn(10)
    assert real.states(made.id)[-1] == "WAITING(network)" and len(releases.asked) == count
    releases.on_its_way(state=State.STAGED)
    real.turn(5)
    assert real.states(made.id)[-1] == "SUCCEEDED" and real.told_of(made.id)[-1].step == "staged"


def test_an_activation_waits_for_the_customer_and_says_who_chose(real: Box, releases: Releases) -> None:
    made = job("fw.activate", args={"counter": "7"})
    real.give(signed(made))
    real.turn(15)
    assert real.states(made.id)[-1] == "WAITING(not_staged)" and releases.asked == []
    releases.on_its_way(state=State.STAGED)
    real.turn(25)
    assert real.states(made.id)[-1] == "WAITING(customer)"
    assert not any(isinstance(one, facts.Chosen) for one in releases.asked), "no job chooses for the customer"
    releases.on_its_way(state=State.ACTIVATING, choice=Choice(by="local-page", until=0.0))
    real.turn(5)
    assert real.states(made.id)[-1] == "RUNNING"
    releases.ended(State.SUCCEEDED, by="local-page")
    real.turn(5)
    assert real.states(made.id)[-1] == "SUCCEEDED" and real.told_of(made.id)[-1].by == "local-page"


@pytest.mark.parametrize(
    ("state", "said"),
    [(State.REVERTED, "REVERTED(gate:forwarding)"), (State.CANCELED, "CANCELED(gate:forwarding)"),
     (State.FAILED, "FAILED(gate:forwarding)"), (State.EXPIRED, "EXPIRED(gate:forwarding)")],
)  # fmt: skip
def test_what_became_of_a_release_is_what_is_told(real: Box, releases: Releases, state: State, said: str) -> None:
    made = job("fw.activate", args={"counter": "7"})
    releases.on_its_way(state=State.STAGED)
    real.give(signed(made))
    real.turn(5)
    releases.ended(state, why="gate:forwarding")
    real.turn(5)
    assert real.states(made.id)[-1] == said


def test_an_activation_that_nobody_chose_in_time_leaves_the_release_staged(real: Box, releases: Releases) -> None:
    made = job("fw.activate", args={"counter": "7"}, exp=int(real.true) + 60)
    releases.on_its_way(state=State.STAGED)
    real.give(signed(made))
    real.turn(80)
    assert real.states(made.id)[-1] == "EXPIRED(customer)"
    assert not any(isinstance(one, facts.Canceled) for one in releases.asked)


def test_an_activation_in_the_window_waits_for_one_and_its_end_is_told_when_nothing_of_it_is_left(
    real: Box, releases: Releases
) -> None:
    """What interrupts nothing, on a box without a weekly window."""
    made = job("fw.activate", args={"counter": "7"}, when=When(mode="window"), exp=int(real.true) + 60)
    by = f"job {made.id}"
    releases.on_its_way(state=State.STAGED, tier=1)
    real.give(signed(made))
    real.turn(15)
    (asked, *_) = releases.asked
    assert isinstance(asked, facts.Chosen) and asked.choice == Choice(by=by, until=0.0, window=True)
    releases.on_its_way(state=State.STAGED, tier=1, choice=asked.choice)
    real.turn(5)
    assert real.states(made.id)[-1] == "WAITING(window)"
    real.turn(60)
    assert releases.asked[-1] == facts.Withdrawn(7, by)
    assert real.states(made.id)[-1] == "WAITING(window)", "it could still be activated"
    releases.on_its_way(state=State.STAGED, tier=1)
    real.turn(5)
    assert real.states(made.id)[-1] == "EXPIRED(window)"


@pytest.mark.parametrize(
    ("shows", "ends", "taken"),
    [("gone", "CANCELED", "SUCCEEDED"), ("tried", "RUNNING", "FAILED(too_late)"),
     ("over", "REVERTED(gate:forwarding)", "FAILED(too_late)")],
)  # fmt: skip
def test_a_canceled_activation_is_told_as_what_the_firmware_daemon_shows_of_it(
    real: Box, releases: Releases, shows: str, ends: str, taken: str
) -> None:
    """Its hour may come in the instant in which it is canceled."""
    made = job("fw.activate", args={"counter": "7"})
    releases.on_its_way(state=State.STAGED)
    real.give(signed(made))
    real.turn(5)
    cancel = job("job.cancel", args={"job": made.id})
    real.give(signed(cancel))
    real.turn(5)
    assert releases.asked[-1] == facts.Canceled(7, f"job {made.id}")
    assert real.states(made.id)[-1] == "WAITING(customer)" and real.states(cancel.id)[-1] == "RUNNING"
    if shows == "tried":
        releases.on_its_way(state=State.TRIAL)
    else:
        state = State.CANCELED if shows == "gone" else State.REVERTED
        releases.ended(state, why="" if shows == "gone" else "gate:forwarding")
    real.turn(10)
    assert (real.states(made.id)[-1], real.states(cancel.id)[-1]) == (ends, taken)


def test_a_system_that_the_contract_let_in_waits_for_the_customer_again_before_its_job_is_told_over(
    real: Box, releases: Releases
) -> None:
    made = job("fw.activate", args={"counter": "7"}, when=When(mode="asap"), exp=int(real.true) + 60)
    releases.on_its_way(state=State.STAGED, mode="asap")
    real.give(signed(made))
    real.turn(80)
    asked = releases.asked[-1]
    assert isinstance(asked, facts.Chosen) and asked.mode == "ask"
    assert real.states(made.id)[-1] == "WAITING(customer)", "it could still be activated"
    releases.on_its_way(state=State.STAGED, mode="ask")
    real.turn(5)
    assert real.states(made.id)[-1] == "EXPIRED(customer)"


def test_no_job_takes_a_box_back_but_a_rollback_of_two_people(real: Box, releases: Releases) -> None:
    releases.journal = Journal(running=Running(counter=9), previous=Running(counter=8))
    old = job("fw.stage", args={"counter": "7"})
    real.give(signed(old))
    real.turn(5)
    assert real.states(old.id)[-1] == "REJECTED(older)"
    back = job("fw.rollback", args={"counter": "8"})
    real.give(signed(back, TANAKA, SATO))
    real.turn(5)
    assert isinstance(releases.asked[-1], facts.Wanted) and releases.asked[-1].counter == 8


def test_a_job_for_newer_boxes_only_is_refused_by_older_ones(real: Box, releases: Releases) -> None:
    made = job("time.set", args={"time": str(int(real.true))}, from_counter=6)
    real.give(signed(made))
    real.turn(5)
    assert real.states(made.id)[-1] == "REJECTED(precondition)"


def test_a_daemon_that_does_not_run_is_waited_for(real: Box) -> None:
    made = job("fw.stage", args={"counter": "7"})
    real.give(signed(made))
    real.turn(5)
    assert real.states(made.id)[-1] == "WAITING(daemon)"
    releases = Releases(real)
    real.turn(15)
    assert any(isinstance(one, facts.Asked) for one in releases.asked)
    releases.desk.close()


@pytest.mark.parametrize(
    ("kind", "args", "why"),
    [("diag.collect", {}, "no_session"), ("support.open", {}, "args"), ("reboot", {"at": "now"}, "args"),
     ("fw.stage", {"counter": "x"}, "args"), ("fw.stage", {"counter": "0"}, "args"), ("fw.stage", {}, "args"),
     ("fw.stage", {"counter": "7", "path": "/"}, "args"), ("quarantine.release", {"entry": "../x"}, "args")],
)  # fmt: skip
def test_what_this_box_cannot_do_or_read_is_refused(real: Box, kind: str, args: dict[str, str], why: str) -> None:
    made = job(kind, args=args)
    real.give(signed(made, TANAKA, SATO))
    real.turn(5)
    assert real.states(made.id)[-1] == f"REJECTED({why})"


def test_a_file_is_let_out_of_the_quarantine_once_with_who_and_why(real: Box) -> None:
    reported: list[msgspec.Struct] = []
    quarantine = Quarantine(real.settings.quarantine_dir, max_bytes=1 << 30, keep_days=90, writer=True)
    found = Entry(id="", at="2026-01-02T03:04:05Z", sha256="ab" * 32, size=4, file_name="a.exe", rules=["r"])
    content = os.memfd_create("file")
    os.write(content, b"evil")
    entry = quarantine.put(content, 4, found).id
    os.close(content)
    counter = quarantine_counter.Counter(quarantine, 90, 64 << 20, reported.append)
    served = Desk(real.settings.quarantine_socket, (), counter.answer)
    made = job("quarantine.release", args={"entry": entry, "reason": "false alarm"})
    real.give(signed(made, TANAKA, SATO))
    real.turn(5)
    real.restart()
    real.give(signed(made, TANAKA, SATO))
    real.turn(5)
    served.close()
    assert real.states(made.id)[-1] == "SUCCEEDED" and len(reported) == 1
    shown = quarantine.show(entry)
    assert made.id in shown.released and "false alarm" in shown.released
