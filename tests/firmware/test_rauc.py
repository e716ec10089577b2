"""RAUC's answers and refusals, and the floor under every image."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.firmware import floor, rauc
from sekisho.firmware.floor import Image


def slot(name: str, bootname: str | None, state: str, build: str = "", status: str | None = "good") -> dict[str, Any]:
    return {
        name: {
            "class": name.split(".")[0],
            "device": f"/dev/{name}",
            "type": "raw",
            "bootname": bootname,
            "state": state,
            "parent": None,
            "mountpoint": None,
            "boot_status": status,
            "slot_status": {
                "bundle": {"compatible": "x", "version": "0.8.0", "build": build} if build else {"compatible": None}
            },
        }
    }


def answer(**change: Any) -> dict[str, Any]:
    slots = [
        slot("rootfs.1", "B", "inactive", "8", "bad"),
        slot("rootfs.0", "A", "booted", "7"),
        slot("boot.1", None, "inactive", status=None),
        slot("boot.0", None, "active", status=None),
    ]
    told = {"compatible": "sekisho-amd64", "variant": "", "booted": "A", "boot_primary": "rootfs.0", "slots": slots}
    return told | change


class Told:
    """Answers like RAUC; remembers what it was asked."""

    def __init__(self, code: int = 0, out: str = "", err: str = "") -> None:
        self.asked: list[list[str]] = []
        self._end = (code, out, err)

    def __call__(self, command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        self.asked.append(list(command))
        code, out, err = self._end
        return subprocess.CompletedProcess(list(command), code, out, err)


def test_both_slots_are_read_from_the_json_answer() -> None:
    report = rauc.parse(json.dumps(answer()))
    assert (report.booted, report.primary, report.compatible) == ("A", "A", "sekisho-amd64")
    assert (report.slots["B"].counter, report.slots["B"].good, report.slots["B"].booted) == (8, False, False)
    assert rauc.Slots(Told(out=json.dumps(answer()))).inactive() == "B"


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[]",
        "{}",
        json.dumps(answer(slots=[])),
        json.dumps(answer(slots=[slot("rootfs.0", "A", "booted")])),
        json.dumps(answer(slots=[slot("r.0", "A", "booted"), slot("r.1", "B", "booted")])),
        json.dumps(answer(slots=[slot("r.0", "A", "inactive"), slot("r.1", "B", "inactive")])),
        json.dumps(answer(slots="x")),
    ],
)
def test_an_answer_that_is_not_understood_is_a_fault_of_the_device(told: str) -> None:
    with pytest.raises(DeviceFault):
        rauc.parse(told)


def test_a_counter_that_is_no_number_is_none() -> None:
    odd = answer(slots=[slot("r.0", "A", "booted", "x" * 40), slot("r.1", "B", "inactive", "9" * 30)])
    report = rauc.parse(json.dumps(odd))
    assert (report.slots["A"].counter, report.slots["B"].counter) == (0, 0)


@pytest.mark.parametrize(
    "said",
    [
        "LastError: signature verification failed: Verify error: self-signed certificate",
        "LastError: Installation error: Compatible mismatch: Expected 'sekisho-amd64' but bundle manifest has 'x'",
        "LastError: Pre-install handler error: Handler error: This image is older (6) than what the box has had (7).",
        "LastError: Failed mounting bundle: failed to mount verity device: Input/output error",
        "LastError: Invalid bundle format: Signature size (667396204693868657) exceeds bundle size",
        "LastError: Bundle format 'plain' not allowed",
    ],
)
def test_a_bundle_that_is_refused_is_never_tried_again(said: str) -> None:
    told = Told(1, out=f"installing\n100% Installing failed.\n{said}\nidle\nInstalling `/x.raucb` failed\n")
    with pytest.raises(RejectedInput, match=re.escape(said.removeprefix("LastError: ")[:30])):
        rauc.Slots(told).install(Path("/x.raucb"))


def test_a_slot_that_cannot_be_written_is_a_fault_of_the_device() -> None:
    with pytest.raises(DeviceFault):
        rauc.Slots(Told(1, err="LastError: Failed updating slot rootfs.1: No space left on device")).install(Path("/x"))


def test_a_kernel_that_cannot_check_a_bundle_is_not_the_bundle_s_fault() -> None:
    said = "LastError: Failed mounting bundle: Failed to open /dev/mapper/control: No such file or directory"
    with pytest.raises(DeviceFault, match="/dev/mapper"):
        rauc.Slots(Told(1, out=f"{said}\nInstalling `/x` failed")).install(Path("/x"))


def test_every_command_names_what_it_means() -> None:
    told = Told()
    slots = rauc.Slots(told)
    slots.activate_other()
    slots.activate_booted()
    slots.mark_good()
    slots.mark_bad("other")
    assert [words[1:] for words in told.asked] == [
        ["status", "mark-active", "other"],
        ["status", "mark-active", "booted"],
        ["status", "mark-good", "booted"],
        ["status", "mark-bad", "other"],
    ]


def test_a_box_without_rauc_says_so() -> None:
    with pytest.raises(DeviceFault, match="second slot"):
        rauc.run(["/nonexistent/rauc"], 1.0)


@pytest.mark.parametrize(
    ("offered", "least", "taken"),
    [(8, 0, True), (7, 0, True), (6, 0, False), (8, 9, False), (9, 9, True), (None, 0, False)],
)
def test_nothing_below_what_runs_or_has_proven_itself_is_written(offered: int | None, least: int, taken: bool) -> None:
    image = None if offered is None else Image(offered, "1", "amd64")
    assert (floor.verdict(image, Image(7, "1", "amd64"), least) == "") is taken


def test_an_image_of_another_board_is_refused() -> None:
    assert "arm64" in floor.verdict(Image(8, "1", "arm64"), Image(7, "1", "amd64"), 0)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"counter": "8"}', b"\xff", b"[" * 5000])
def test_an_image_that_does_not_say_what_it_is_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.json").write_bytes(content)
    assert floor.read_image(tmp_path / "image.json") is None
    assert floor.read_floor(tmp_path / "image.json") == 0
