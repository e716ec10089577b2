"""What follows a start from a slot: proven, waited for, or back; and what is said of it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance import status
from sekisho.appliance.account import EngineState
from sekisho.appliance.core import boot as core_boot
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.status import Status
from sekisho.appliance.watchdog import Part
from sekisho.firmware import bootcheck, slots
from sekisho.firmware.bootcheck import DEADLINE_S, HOLD_S, Failed, decide, missing, reverted
from sekisho.firmware.keeper import here
from sekisho.firmware.rauc import Slots
from sekisho.firmware.slots import Memory, Slot


def memory(first: str, *, b_ok: bool = True, b_tried: int = 3) -> Memory:
    order = ("A", "B") if first == "A" else ("B", "A")
    return Memory(order, {"A": Slot(True, 1), "B": Slot(b_ok, b_tried)})


@pytest.mark.parametrize(
    ("waited", "well", "trial", "verdict"),
    [
        (0.0, -1.0, True, "wait"),
        (5.0, HOLD_S - 1, True, "wait"),
        (5.0, HOLD_S, True, "good"),
        (DEADLINE_S, -1.0, True, "back"),
        (DEADLINE_S, HOLD_S - 1, True, "back"),
        (DEADLINE_S, -1.0, False, "good"),
        (DEADLINE_S - 1, -1.0, False, "wait"),
    ],
)
def test_only_an_image_on_trial_is_given_up(waited: float, well: float, trial: bool, verdict: str) -> None:
    assert decide(waited, well, trial=trial) == verdict


def test_the_slot_that_was_chosen_and_runs_is_no_step_back() -> None:
    assert reverted(memory("B"), "B", None) == ("", "")
    assert reverted(memory("A"), "A", Failed("B", "x", "gate:bridge")) == ("", "")


def test_a_step_back_is_told_with_what_the_image_said_or_with_its_attempts() -> None:
    assert reverted(memory("B"), "A", None) == ("B", "attempts")
    assert reverted(memory("B", b_ok=False), "A", Failed("B", "x", "gate:engine")) == ("B", "gate:engine")


def test_a_slot_that_was_emptied_to_be_written_is_no_step_back() -> None:
    assert reverted(memory("B", b_ok=False, b_tried=0), "A", None) == ("", "")


def box(tmp_path: Path) -> tuple[Settings, Path]:
    """A bridge of two ports that carry, as the kernel shows it, and an appliance whose engine runs."""
    settings = Settings(box="b", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")))
    net = tmp_path / "net"
    for port in (settings.bridge.lan, settings.bridge.wan):
        for folder in (net / port, net / settings.bridge.name / "brif" / port):
            folder.mkdir(parents=True)
        (net / port / "carrier").write_text("1\n")
        (net / settings.bridge.name / "brif" / port / "state").write_text("3\n")
    publish(settings, "running")
    return settings, net


def publish(settings: Settings, phase: str, ago_s: float = 0.0) -> None:
    engine = EngineState(phase=phase)  # type: ignore[arg-type]  # one of its words
    at = time.monotonic() - ago_s
    status.write(settings, Status(1, at, "inspect", "open", engine, Part("engine"), Part("gate")))


def test_a_box_that_bridges_and_inspects_lacks_nothing(tmp_path: Path) -> None:
    settings, net = box(tmp_path)
    assert missing(settings, net) == ""


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    settings, net = box(tmp_path)
    publish(settings, "starting")
    assert missing(settings, net) == "gate:engine"
    publish(settings, "running", ago_s=60)
    assert missing(settings, net) == "gate:appliance"
    (net / "br0" / "brif" / "eth-wan" / "state").write_text("0\n")
    assert missing(settings, net) == "gate:bridge"
    (net / "br0" / "brif" / "eth-wan" / "state").unlink()
    assert missing(settings, net) == "gate:bridge"


def test_a_pulled_cable_is_not_the_image_s_fault(tmp_path: Path) -> None:
    settings, net = box(tmp_path)
    (net / "eth-wan" / "carrier").write_text("0\n")
    (net / "br0" / "brif" / "eth-wan" / "state").write_text("0\n")
    assert missing(settings, net) == ""


class Rauc:
    """What RAUC is told to do, and that it does it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.slots = Slots(self._run)

    def _run(self, command: Sequence[str], _timeout_s: float) -> subprocess.CompletedProcess[str]:
        self.told.append(" ".join(command[1:]))
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def rauc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rauc:
    """B on trial or proven, A beside it, and nobody waits long; a restart of the machine is noted alone."""
    made = Rauc()
    monkeypatch.setattr(bootcheck, "STATE", tmp_path / "slots")
    monkeypatch.setattr(bootcheck, "LOOK_S", 0.01)
    monkeypatch.setattr(slots, "read", lambda: Memory(("B", "A"), {"A": Slot(True, 0), "B": Slot(True, 1)}))
    monkeypatch.setattr(bootcheck, "restart", lambda: made.told.append("restart"))
    return made


TOLD = slots.booted("rauc.slot=B sekisho.attempt=1 sekisho.verity=ab:1 sekisho.deadline=0")


def standing(tmp_path: Path) -> tuple[str, str]:
    said = msgspec.json.decode((tmp_path / "slots/standing.json").read_bytes(), type=bootcheck.Standing)
    return said.state, said.why


def test_an_image_on_trial_whose_firmware_daemon_does_not_run_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rauc: Rauc
) -> None:
    """All else is well: but no later image would ever come."""
    (tmp_path / "box.toml").write_text('box = "b"\n')
    monkeypatch.setattr(bootcheck, "missing", lambda _settings: "")
    monkeypatch.setattr(bootcheck, "works", lambda unit: unit != "sekisho-firmware.service")
    assert bootcheck.Check(tmp_path / "box.toml", TOLD, rauc.slots).prove() == 0
    assert standing(tmp_path) == ("failed", "gate:firmware")
    assert rauc.told == ["status mark-bad booted", "restart"]


NOT_UNDERSTOOD = 'box = "b"\n[of_a_later_release]\nx = 1\n'


def test_an_image_on_trial_that_does_not_understand_the_settings_is_given_up(tmp_path: Path, rauc: Rauc) -> None:
    """Its appliance does not either: an office without a network until somebody pulls the plug."""
    (tmp_path / "box.toml").write_text(NOT_UNDERSTOOD)
    assert bootcheck.Check(tmp_path / "box.toml", TOLD, rauc.slots).prove() == 0
    assert standing(tmp_path) == ("failed", "gate:settings")
    assert rauc.told == ["status mark-bad booted", "restart"]


def test_a_proven_image_keeps_its_attempts_though_it_understands_no_settings_and_the_disk_takes_nothing(
    tmp_path: Path, rauc: Rauc
) -> None:
    """A release of programs may know more settings; a disk may be full. Three starts later it would be left."""
    (tmp_path / "slots").mkdir()
    proven = bootcheck.Proven({"B": "ab"})
    (tmp_path / "slots/proven.json").write_bytes(msgspec.json.encode(proven))
    (tmp_path / "slots/standing.json").mkdir()
    (tmp_path / "box.toml").write_text(NOT_UNDERSTOOD)
    check = bootcheck.Check(tmp_path / "box.toml", TOLD, rauc.slots)
    check.settle()
    assert check.prove() == 0
    assert rauc.told == ["status mark-good booted"]


def test_what_was_left_is_said_with_the_boot_it_was_found_in_before_the_firmware_daemon_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rauc: Rauc
) -> None:
    """A is chosen and B comes up; from the next start on B is the chosen one, and the same is said still."""
    order, boot, address = ["A", "B"], tmp_path / "boot_id", tmp_path / "notify"
    monkeypatch.setattr(slots, "read", lambda: Memory(tuple(order), {"A": Slot(True, 3), "B": Slot(True, 1)}))
    monkeypatch.setattr(slots, "booted", lambda _line: TOLD)
    monkeypatch.setattr(bootcheck, "Slots", lambda: rauc.slots)
    monkeypatch.setattr(core_boot, "BOOT_ID", boot)
    monkeypatch.setattr(sys, "argv", ["bootcheck", "--settings", str(tmp_path / "box.toml")])
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        said = []

        def prove(_check: bootcheck.Check) -> int:
            assert manager.recv(99).startswith(b"READY=1")
            said.append(msgspec.json.decode((tmp_path / "slots/standing.json").read_bytes(), type=here.Standing))
            return 0

        monkeypatch.setattr(bootcheck.Check, "prove", prove)
        for name in ("one", "two"):
            boot.write_text(f"{name}\n")
            assert bootcheck.main() == 0
            order = ["B", "A"]
    assert said == [here.Standing("attempts", "one")] * 2


def test_outside_an_image_there_is_nothing_to_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "booted", lambda _line: {})
    assert bootcheck.main() == 0
    assert capsys.readouterr().out == ""
