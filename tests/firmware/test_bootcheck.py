"""What follows a start from a slot: proven, waited for, or back; and what is said of it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance import status
from sekisho.appliance.account import EngineState
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.status import Status
from sekisho.appliance.watchdog import Part
from sekisho.firmware import bootcheck, slots
from sekisho.firmware.bootcheck import DEADLINE_S, HOLD_S, Failed, decide, missing, reverted
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


def test_an_image_on_trial_whose_firmware_daemon_does_not_run_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else is well: but no later image would ever come."""
    settings, _ = box(tmp_path)
    monkeypatch.setattr(bootcheck, "STATE", tmp_path)
    monkeypatch.setattr(bootcheck, "missing", lambda _settings: "")
    monkeypatch.setattr(bootcheck, "works", lambda unit: unit != "sekisho-firmware.service")
    monkeypatch.setattr(slots, "read", lambda: Memory(("B", "A"), {"A": Slot(False, 0), "B": Slot(True, 1)}))
    told = slots.booted("rauc.slot=B sekisho.attempt=1 sekisho.verity=ab:1 sekisho.deadline=0")
    assert bootcheck.Check(settings, told, Slots()).prove() == 0
    said = msgspec.json.decode((tmp_path / "standing.json").read_bytes(), type=bootcheck.Standing)
    assert (said.state, said.why) == ("failed", "gate:firmware")


def test_outside_an_image_there_is_nothing_to_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "booted", lambda _line: {})
    assert bootcheck.main() == 0
    assert capsys.readouterr().out == ""
