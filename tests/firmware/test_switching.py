"""A switch of programs and the way back, told by the order of what is restarted; no daemon runs here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from sekisho.appliance import status
from sekisho.appliance.account import EngineState
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.status import Status
from sekisho.appliance.watchdog import Part
from sekisho.firmware.keeper import here, runner
from sekisho.firmware.keeper.facts import GivenUp
from sekisho.firmware.switch import healthy, settle, switch, switching
from sekisho.firmware.switch.services import Running, Systemd
from sekisho.firmware.switch.switching import KEEPER, ORDER
from sekisho.inspect import succession
from sekisho.lab import releases

GOOD, BAD = "6-00000000aaaa", "7-00000000bbbb"


class Box:
    """Its daemons; each runs what the link names when it is restarted. `ill`: daemon and release that never fit."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.link = root, root / "venv"
        for name in (GOOD, BAD):
            (root / name / "venv" / "bin").mkdir(parents=True)
            (root / name / "venv" / "bin" / "python").symlink_to("/bin/true")
        self.runs = dict.fromkeys((*ORDER, KEEPER), GOOD)
        self.link.symlink_to(root / GOOD / "venv")
        firmware = {"link": str(self.link), "releases": str(root)}
        told = {"box": "b", "firmware": firmware, "paths": {"run": str(root), "state": str(root)}}
        self.settings = msgspec.convert(told, Settings)
        (root / "appliance").mkdir()
        self.ill: set[tuple[str, str]] = set()
        self.recovers = False
        self.deaths: dict[str, int] = {}
        self.restarted: list[str] = []
        self.asked: list[str] = []
        self.pids: dict[str, int] = {}
        self.refuses: Literal["", "refused", "impossible"] = ""
        self.said = succession.Said()
        patch.setattr(succession, "said", lambda settings: self.said)
        patch.setattr(switching, "STEADY_S", 0.0)
        patch.setattr(switching, "KEEPER_STEADY_S", 0.0)
        patch.setattr(switching, "ILL_S", 0.3)
        patch.setattr(healthy, "why_not", self.why_not)

    def look(self, name: str) -> Running:
        return Running(True, self.pids.get(name, 1), self.runs[name], self.deaths.get(name, 0))

    def restart(self, name: str, within_s: float) -> None:
        self.restarted.append(name)
        self.deaths[name] = 0
        self.runs[name] = self.link.readlink().parent.name

    def succeed(self, name: str) -> None:
        """Where it cannot be (`refuses`), as the one at work says."""
        self.asked.append(name)
        state = self.refuses
        self.said = succession.Said(self.said.tries + 1, state, state and "there is none")
        self.deaths[name] = 0
        if not state:
            self.runs[name] = self.link.readlink().parent.name
            self.pids[name] = self.pids.get(name, 1) + 1

    def why_not(self, name: str, running: Running, settings: Settings, release: Path) -> str:
        if (name, release.name) in self.ill:
            if self.recovers:
                self.ill.clear()
            raise healthy.Ill("there is no room for two engines")
        return ""

    def switch(self, to: str, *, back: bool = False) -> None:
        switch(self.root / to, self.settings, self, back=back)

    def all_run(self, name: str, *, keeper: str = "") -> bool:
        runs = {one: release for one, release in self.runs.items() if one != KEEPER or keeper == name}
        return set(runs.values()) == {name} and self.link.readlink() == self.root / name / "venv"

    def on_trial(self) -> bool:
        """Whether a start of the machine would leave what runs, and the errand is the one before."""
        return self.link.with_name("venv.former").is_symlink()


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)


def test_a_daemon_that_is_ill_for_good_is_a_fault_and_everything_runs_the_former_programs(box: Box) -> None:
    box.ill = {("appliance", BAD)}
    with pytest.raises(DeviceFault, match="former programs again"):
        box.switch(BAD)
    assert box.all_run(GOOD) and not box.on_trial()


def test_on_the_way_back_a_daemon_that_stays_ill_keeps_no_other_one_in_what_is_left(box: Box) -> None:
    box.ill = {("appliance", BAD), ("telemetry", GOOD)}
    with pytest.raises(DeviceFault, match="Going back did not succeed"):
        box.switch(BAD)
    assert box.all_run(GOOD)


def test_the_gate_is_succeeded_not_restarted(box: Box) -> None:
    box.switch(BAD)
    assert box.all_run(BAD) and box.asked == ["inspect"] and "inspect" not in box.restarted


def test_a_gate_without_a_successor_goes_on_and_the_switch_is_taken_back(box: Box) -> None:
    box.refuses = "refused"
    with pytest.raises(DeviceFault, match=r"(?s)there is none.*former programs again"):
        box.switch(BAD)
    assert box.all_run(GOOD) and "inspect" not in box.restarted


def test_where_two_gates_have_no_room_or_one_must_go_the_gate_is_restarted(box: Box) -> None:
    box.refuses = "impossible"
    box.switch(BAD)
    assert box.all_run(BAD) and box.restarted[-1] == "inspect"
    box.refuses = "refused"
    box.switch(GOOD, back=True)
    assert box.all_run(GOOD) and box.restarted[-1] == "inspect"


def test_who_asks_to_go_back_never_returns_to_what_is_left(box: Box) -> None:
    box.switch(BAD)
    box.ill = {("appliance", GOOD)}
    with pytest.raises(DeviceFault, match="no room"):
        box.switch(GOOD, back=True)
    assert box.all_run(GOOD) and not box.on_trial(), "all the others too, and nothing on the disk names the other one"


def test_going_back_is_done_again_without_a_restart_of_what_is_well(box: Box) -> None:
    box.switch(GOOD, back=True)
    assert box.restarted == []
    box.runs["appliance"] = BAD  # the link alone was put back
    box.switch(GOOD, back=True)
    assert box.restarted == ["appliance"] and box.all_run(GOOD)


def test_a_release_whose_own_firmware_daemon_cannot_be_loaded_is_refused_before_anything_is_touched(
    box: Box, tmp_path: Path
) -> None:
    """Nobody would be there to take it back, nor to take the next one."""
    new = releases.make(tmp_path, "8-00000000cccc")
    releases.module(new, "sekisho.firmware.keeper.runner").write_text("import no_such_module\n")
    with pytest.raises(RejectedInput, match="no_such_module"):
        box.switch(new.name)
    assert box.restarted == [] and box.all_run(GOOD)
    releases.module(new, "sekisho.firmware.keeper.runner").write_text(Path(runner.__file__).read_text())
    box.switch(new.name)
    assert box.all_run(new.name)


def test_a_release_stays_when_its_own_firmware_daemon_works_and_no_earlier(box: Box) -> None:
    box.switch(BAD)
    assert box.all_run(BAD) and box.on_trial() and box.runs[KEEPER] == GOOD, "it is judged by the one before"
    settle(box.settings, box)
    assert box.all_run(BAD, keeper=BAD) and not box.on_trial()
    box.restarted.clear()
    settle(box.settings, box)
    assert box.restarted == []


def test_a_release_whose_firmware_daemon_does_not_work_is_left_by_root_which_says_why(box: Box) -> None:
    box.ill = {(KEEPER, BAD)}
    box.switch(BAD)
    with pytest.raises(RejectedInput, match=r"firmware does not work.*former programs again"):
        settle(box.settings, box)
    assert box.all_run(GOOD, keeper=GOOD) and not box.on_trial()
    said = here.started(box.settings).given_up
    assert said.release == BAD and "firmware does not work" in said.why
    box.switch(GOOD, back=True)
    assert here.started(box.settings).given_up == said, "who was told of it goes back, too"
    box.switch(BAD)
    assert here.started(box.settings).given_up == GivenUp(), "it is tried again, and may be left for another reason"


def test_a_machine_that_goes_off_while_the_firmware_daemon_is_judged_says_nothing_against_the_release(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.switch(BAD)
    restart = box.restart

    def gone(name: str) -> Running:
        raise DeviceFault(f"systemctl show {name}: Transport endpoint is not connected.")

    def goes_off(name: str, within_s: float) -> None:
        monkeypatch.setattr(box, "look", gone)
        restart(name, within_s)

    monkeypatch.setattr(box, "restart", goes_off)
    with pytest.raises(SekishoError):
        settle(box.settings, box)
    assert here.started(box.settings).given_up == GivenUp()


def test_a_release_of_which_a_daemon_ended_again_and_again_does_not_stay(box: Box) -> None:
    box.switch(BAD)
    box.deaths["jobs"] = switching.DEATHS_CAP + 1
    with pytest.raises(RejectedInput, match="jobs ended 3 times"):
        settle(box.settings, box)
    assert box.on_trial() and box.runs[KEEPER] == GOOD, "who asked is there and takes it back"
    box.deaths["jobs"] = switching.DEATHS_CAP
    settle(box.settings, box)


MANAGER = """#!/bin/sh
# A service manager's command: one daemon that ended three times by itself.
cd "${0%/*}"
case $1 in
show) cat facts; echo NRestarts="$(cat count)" ;;
restart|reset-failed) echo 0 > count ;;
esac
"""


@pytest.mark.parametrize("renewed", ["restart", "succeed"])
def test_what_a_daemon_did_before_it_was_renewed_does_not_count_against_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renewed: str
) -> None:
    (tmp_path / "systemctl").write_text(MANAGER)
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "facts").write_text("LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nMainPID=1\n")
    (tmp_path / "count").write_text("3\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    found, manager = Systemd().look("inspect"), Systemd()
    assert found is not None and found.deaths == 3
    if renewed == "succeed":
        manager.succeed("inspect")
    else:
        manager.restart("inspect", 10.0)
    assert manager.look("inspect") == Running(True, 1)


@pytest.mark.parametrize("at", range(9))
def test_a_settling_that_was_killed_anywhere_is_done_again(box: Box, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    class Killed(BaseException):
        pass

    calls = 0

    def dies(*_: object) -> str:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise Killed
        return ""

    box.switch(BAD)
    monkeypatch.setattr(healthy, "why_not", dies)
    try:
        settle(box.settings, box)
    except Killed:
        assert box.on_trial()
        settle(box.settings, box)
    assert box.all_run(BAD, keeper=BAD) and not box.on_trial()


def test_words_of_a_renewal_that_did_not_come_about_end_nothing_while_the_engine_is_started_anew(box: Box) -> None:
    box.ill, box.recovers = {("appliance", BAD)}, True
    box.switch(BAD)
    assert box.all_run(BAD)


@pytest.mark.parametrize(("starts", "own", "ill"), [(1, True, False), (0, True, True), (1, False, True)])
def test_an_engine_started_anew_for_lack_of_memory_is_renewed(
    tmp_path: Path, starts: int, own: bool, ill: bool
) -> None:
    """What was said of the renewal counts where the former engine goes on, and not where the release's own works."""
    program = tmp_path / BAD / "engine" / "bin" / "suricata"
    program.parent.mkdir(parents=True)
    program.touch()
    settings = Settings(box="b", paths=Paths(run=str(tmp_path), state=str(tmp_path)))
    binary = str(program) if own else "/usr/bin/suricata"
    engine = EngineState(phase="running", renewal="There is no room for two.", starts=starts, binary=binary)
    at = time.monotonic()
    status.write(settings, Status(1, at, "inspect", "open", engine, Part("engine"), Part("gate")))
    if ill:
        with pytest.raises(healthy.Ill):
            healthy.why_not("appliance", Running(True, 1), settings, tmp_path / BAD)
    else:
        assert "rules are not proven" in healthy.why_not("appliance", Running(True, 1), settings, tmp_path / BAD)
