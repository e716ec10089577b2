"""A restart of the machine by a job: the customer says when, it happens once, and its end is told when all works.

The jobs daemon's and the firmware daemon's own pieces over real files; the machine is played: its boots, what works
in it, and root's errand. The power fails at every step of either.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jobsbox import Box, Died, Hands
from power import Power, powered
from signing import LISTED, NOW, job, signed

from sekisho.appliance.core import fsio
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.jobs import TERMINAL, Job, When
from sekisho.appliance.core.settings import Firmware
from sekisho.firmware import wishes
from sekisho.firmware.keeper.journal import Choice, Seen
from sekisho.firmware.reboot import desk, keeping
from sekisho.firmware.reboot import machine as reboots
from sekisho.firmware.reboot.keeping import Reboots
from sekisho.portal_agent.jobs import reboot_desk

FINE = Seen(lan=True, wan=True, out="yes", back="yes", rules=9, engine_canary=True, scanner_canary=True)
DAY = 86_400
THURSDAY = NOW - NOW % (7 * DAY)
SUNDAY = THURSDAY + 3 * DAY + 4 * 3600
WEEKLY = {"days": ["sun"], "start": "03:00", "hours": 3}


class Real(reboot_desk.Reboot):
    """As `desks.Desks`, of which the others are not needed here."""

    step: Callable[[str], None]

    def prepare(self, job: Job) -> str:
        return "" if job.kind == "job.cancel" else super().prepare(job)


class Machine:
    """What the jobs daemon and the firmware daemon run on."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, power: Power | None = None) -> None:
        self.power = power or Power(0)
        self.boot, self.restarts = "boot-0", 0
        self.sick: Seen | None = None
        self.dead = self.deaf = self.busy = False
        """Dead: it does not come up. Deaf: root does nothing."""
        patch.setattr(reboot_desk, "boot_id", lambda: self.boot)
        patch.setattr(reboot_desk, "asked", lambda _socket, question: self.asks(question))
        self.box = Box(root, Hands())
        self.box.settings = msgspec.structs.replace(self.box.settings, firmware=Firmware(trial_s=30, steady_s=5))
        self.box.hands = Real(self.box.settings)  # type: ignore[assignment]  # the same verbs, really done
        self.box.hands.step = self.power
        powered(self.power, patch, self.box)
        write = fsio.write_atomic

        def saving(path: Path, data: bytes, mode: int = 0o600) -> None:
            self.power("journal")
            write(path, data, mode)
            self.power("journal")

        patch.setattr(keeping, "write_atomic", saving)
        self.firmware: Reboots | None = None
        self.box.restart()
        self.start()

    def start(self) -> None:
        self.firmware = Reboots(
            self.box.settings, lambda: self, self.errand, self.boot, clock=lambda: self.box.mono, threaded=False
        )

    def asks(self, question: msgspec.Struct) -> bytes:
        self.power("asked")
        if self.firmware is None:
            self.start()
        assert self.firmware is not None
        (frame,) = self.firmware.answer(msgspec.json.encode(question))
        self.power("answered")
        return frame

    def look(self) -> Seen:
        return self.sick or FINE

    watch = look

    def errand(self, number: str, wish: wishes.Wish, limit_s: float) -> None:
        """Root's: the machine goes down, and comes up in another boot."""
        assert isinstance(wish, wishes.Anew) and number.startswith("reboot-")
        self.power("errand")
        if self.deaf:
            raise DeviceFault("Root's errand was not carried out in time.")
        self.restarts += 1
        self.anew()
        raise Died

    def anew(self) -> None:
        self.boot = f"boot-{int(self.boot[5:]) + 1}"

    def turn(self, times: int = 1, seconds: float = 1.0) -> None:
        """Some looks of both daemons; whoever died is started again, in the boot that is."""
        for _ in range(times):
            try:
                if self.box.jobs is None:
                    self.box.start()
                if self.firmware is None:
                    self.start()
                self.box.turn(1, seconds)
                assert self.firmware is not None
                self.firmware.turn(busy=self.busy)
            except Died:
                self.down()

    def down(self) -> None:
        """Both processes are gone."""
        self.box.end()
        self.firmware = None

    def give(self, made: Job) -> str:
        self.box.give(signed(made))
        self.turn(5)
        return self.last(made)

    def last(self, made: Job) -> str:
        return self.box.states(made.id)[-1]

    def says(self, word: desk.Question) -> desk.Shown:
        return msgspec.json.decode(self.asks(word), type=desk.Shown)

    def now(self, made: Job) -> None:
        self.says(desk.Choose(f"job {made.id}", "local-page"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path, monkeypatch)
    made.box.believe(LISTED, at=NOW - 30 * DAY)
    return made


def reboot(**changes: Any) -> Job:
    return job("reboot", args={"reason": "Memory is short."}, **changes)


def test_it_waits_for_the_customer_restarts_once_and_tells_its_end_when_all_works(machine: Machine) -> None:
    made = reboot()
    assert machine.give(made) == "WAITING(customer)"
    machine.turn(50)
    wanted = machine.says(desk.Show()).wanted
    assert machine.restarts == 0 and wanted is not None and wanted.reason == "Memory is short."
    machine.now(made)
    machine.turn(3)
    assert machine.restarts == 1 and machine.last(made) == "RUNNING", "it is back, and not proven yet"
    machine.turn(20)
    end = machine.box.told_of(made.id)[-1]
    assert (end.state, end.by) == ("SUCCEEDED", "local-page") and "s without inspected traffic" in end.detail
    machine.turn(100)
    assert machine.restarts == 1
    again = reboot()
    machine.give(again)
    assert machine.box.told_of(again.id)[-1].detail.endswith("s, by the last 1."), "what it took here is expected"


def test_a_restart_took_until_traffic_passed_though_the_time_became_known_later() -> None:
    """A box without a clock of its own: it hears the time from the centre."""
    before, word = reboots.Machine(reboots.Journal(), trial_s=90, steady_s=60), Choice(by="local-page", until=0.0)
    before.handle(reboots.Started("boot-0"), 900.0, NOW - 10, "")
    before.handle(reboots.Asked(job="job 01", boot="boot-0"), 901.0, NOW - 9, "")
    before.handle(reboots.Chosen("job 01", word), 902.0, NOW - 8, "")
    assert before.handle(reboots.Looked(), 903.0, NOW - 7, "") == [reboots.Measure()]
    before.handle(reboots.Measured(FINE), 910.0, NOW, "")
    after = reboots.Machine(before.journal, trial_s=90, steady_s=60)
    after.handle(reboots.Started("boot-1"), 20.0, NOW - DAY, "")
    after.handle(reboots.Looked(sure=False, forwarding=True), 30.0, NOW - DAY, "")
    after.handle(reboots.Looked(forwarding=True), 75.0, NOW + 85, "")
    assert after.journal.history == (40.0,)


def test_no_job_restarts_a_box_by_itself_unless_the_contract_says_so(machine: Machine) -> None:
    for mode in ("ask", "window", "asap"):
        made = reboot(when=When(mode=mode))
        assert machine.give(made) == "WAITING(customer)"
        machine.turn(100, 60.0)
        assert machine.restarts == 0
        machine.box.give(signed(job("job.cancel", args={"job": made.id})))
        machine.turn(20)
        assert machine.last(made) == "CANCELED"
    machine.box.ordered(machine.box.true, zone="UTC", firmware_asap=True)
    machine.give(made := reboot(when=When(mode="asap")))
    machine.turn(20)
    assert machine.restarts == 1 and machine.box.told_of(made.id)[-1].by == "contract"


def test_a_job_may_use_the_weekly_window_and_waits_for_it_without_a_network(machine: Machine) -> None:
    machine.box.ordered(THURSDAY + DAY, zone="UTC", restart=WEEKLY)
    made = reboot(nbf=THURSDAY, exp=THURSDAY + 30 * DAY, when=When(mode="window"))
    machine.give(made)
    machine.turn(3)
    assert machine.last(made) == "WAITING(window)"
    machine.box.ordered(SUNDAY, zone="UTC", restart=WEEKLY)
    machine.busy = True
    machine.turn(20)
    assert machine.restarts == 0, "a release is being tried"
    machine.busy = False
    machine.turn(30)
    assert machine.restarts == 1 and machine.last(made) == "SUCCEEDED"


def test_the_customers_no_is_the_end_of_it(machine: Machine) -> None:
    made = reboot()
    machine.give(made)
    machine.says(desk.Refuse(f"job {made.id}", "local-page"))
    machine.turn(5)
    assert machine.last(made) == "CANCELED" and machine.box.told_of(made.id)[-1].by == "local-page"
    with pytest.raises(RejectedInput):
        machine.now(made)


def test_what_was_not_chosen_in_time_expires_and_what_restarts_already_cannot_be_taken_back(machine: Machine) -> None:
    made = reboot(exp=NOW + 60)
    machine.give(made)
    machine.turn(80)
    assert machine.last(made) == "EXPIRED(customer)" and machine.says(desk.Show()).wanted is None
    machine.give(made := reboot())
    machine.now(made)
    machine.turn(3)
    assert machine.restarts == 1
    cancel = job("job.cancel", args={"job": made.id})
    machine.box.give(signed(cancel))
    machine.turn(30)
    assert (machine.last(cancel), machine.last(made)) == ("FAILED(too_late)", "SUCCEEDED")


def test_a_box_that_is_back_and_not_well_says_what_does_not_work(machine: Machine) -> None:
    made = reboot()
    machine.give(made)
    machine.now(made)
    machine.turn(2)
    machine.sick = msgspec.structs.replace(FINE, wan=False)
    machine.turn(60)
    assert machine.last(made) == "FAILED(gate:link_wan)" and machine.restarts == 1


def test_a_machine_that_does_not_start_anew_is_told_and_not_asked_for_ever(machine: Machine) -> None:
    machine.deaf = True
    made = reboot()
    machine.give(made)
    machine.now(made)
    machine.turn(700)
    assert machine.last(made) == "FAILED(not_done)" and machine.restarts == 0


def test_a_firmware_daemon_that_never_answers_again_is_given_up_in_time(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = reboot()
    machine.give(made)
    machine.now(made)
    machine.turn(5)

    def silent(*_: object) -> bytes:
        raise PeerError("restart.sock does not answer.")

    monkeypatch.setattr(reboot_desk, "asked", silent)
    machine.turn(400, 10.0)
    assert machine.last(made) == "TIMED_OUT(deadline)"


def test_a_restart_by_other_means_while_it_waits_is_not_followed_by_another(machine: Machine) -> None:
    made = reboot()
    machine.give(made)
    machine.anew()
    machine.down()
    machine.turn(30)
    assert machine.last(made) == "SUCCEEDED" and machine.box.told_of(made.id)[-1].by == "outside"
    assert machine.restarts == 0


def test_a_journal_the_disk_lost_leads_to_no_second_restart(machine: Machine) -> None:
    made = reboot()
    machine.give(made)
    machine.now(made)
    machine.turn(3)
    assert machine.restarts == 1
    machine.down()
    (machine.box.settings.firmware_state / "reboot.json").write_bytes(b"{torn")
    machine.turn(200)
    assert machine.last(made) == "SUCCEEDED" and machine.restarts == 1


def lived(machine: Machine, made: Job, *, outage: bool) -> None:
    """Given, chosen, restarted, proven; wherever the power fails it comes back, in another boot where it was that."""
    machine.box.give(signed(made))
    chosen = False
    for _ in range(80):
        machine.turn()
        if machine.power.off and outage:
            machine.power.off = outage = False
            machine.down()
            machine.anew()
        told = machine.box.told_of(made.id)
        if told and told[-1].state in TERMINAL and not any(machine.box.settings.jobs_inbox.iterdir()):
            return
        if not chosen and told and told[-1].why == "customer":
            try:
                machine.now(made)
                chosen = True
            except Died:
                machine.down()
            except RejectedInput:  # it restarted by other means meanwhile
                chosen = True


@pytest.mark.protocol("P58")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("outage", [False, True], ids=["kill", "power cut"])
@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.full)])
def test_whatever_step_the_power_fails_at_the_machine_restarts_once_and_one_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: bool, stride: int
) -> None:
    states = 0
    for at in itertools.count(1, stride):
        with monkeypatch.context() as patch:
            power = Power(0)
            machine = Machine(tmp_path / f"{at}", patch, power)
            machine.box.believe(LISTED, at=NOW - 30 * DAY)
            power.step, power.fails_at = 0, at
            made = reboot()
            lived(machine, made, outage=outage)
            machine.turn(20)
            told = [one for one in machine.box.told_of(made.id) if one.ver]
            ends = {(one.ver, one.state, one.why) for one in told if one.state in TERMINAL}
            assert {end[1:] for end in ends} == {("SUCCEEDED", "")} and len(ends) == 1, (at, ends)
            assert machine.boot != "boot-0" and machine.restarts <= 1, at
            assert outage or (machine.restarts, told[-1].by) == (1, "local-page"), at
            machine.down()
        if power.step < at:
            break
        states += 1
    print(f"crash states: {states}")
    assert states >= 40 / stride
