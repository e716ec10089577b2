"""A box made of the image, in QEMU: it starts, bridges, takes the next image, goes back from one that does not do, and
is never harmed by a cut of its power. Its disk forgets what was not flushed (`image.flash`).

Each trial can be run alone; SEKISHO_REUSE=1 keeps the images and the frozen boxes of the last run.
"""

from __future__ import annotations

import os
import random
import re

import pytest
import trial

from sekisho.firmware.image import layout
from sekisho.firmware.image.qemu import Machine

SEED = int(os.environ.get("SEKISHO_SEED", "7"))
CUTS = int(os.environ.get("SEKISHO_CUTS", "6"))
SLOT_BYTES = 200 << 20
"""Less than an image has."""

pytestmark = pytest.mark.timeout(6 * 3600)


def test_a_new_box_bridges_and_proves_itself(new_box: Machine) -> None:
    new_box.on()
    told = trial.proven(new_box)
    assert (told["slot"], told["counter"], told["attempt"], told["reverted"]) == ("A", 7, 1, "")
    kernel = trial.ask(new_box, "journalctl -b -k -o short-monotonic --no-pager | grep 'entered forwarding state'")
    bridged = max(float(found) for found in re.findall(r"\[ *([0-9.]+)\]", kernel))
    trial.tell(f"bridging {bridged:.1f} s after the kernel began, one core of half a thousand million instructions")
    assert bridged < 40, "the first start takes longer than it did"


def test_its_engine_and_its_gate_inspect(box: Machine) -> None:
    """The gate is compiled for the board, on whatever machine the image is made."""
    status = "/opt/sekisho/venv/bin/sekisho box status"
    box.wait(lambda: "inspecting  yes" in box.shell(status, trial.WRITE_S)[1], trial.START_S, "it does not inspect")


def test_nobody_can_write_to_the_root(box: Machine) -> None:
    assert "squashfs ro" in trial.ask(box, "grep ' / ' /proc/mounts")
    assert box.shell("touch /usr/x", trial.WRITE_S)[0] != 0


REFUSED = {
    "older": "Pre-install handler error",
    "foreign": "The image was refused",
    "stranger": "signature verification failed",
    "tampered": "The image was refused",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_older_foreign_or_tampered_is_refused_and_nothing_changes(box: Machine, name: str) -> None:
    before = trial.block(box)
    written = "dd if=/dev/disk/by-partlabel/root-b iflag=direct bs=1M count=4 2>/dev/null | sha256sum"
    held = trial.ask(box, written)
    code, said = box.shell(trial.write(name), trial.WRITE_S)
    assert code != 0, f"{name} was taken"
    assert "RejectedInput" in said, said
    assert REFUSED[name] in said, said
    assert trial.block(box) == before
    assert trial.ask(box, written) == held
    if name == "older":
        assert "older (6) than what the box has had (7)" in trial.ask(box, "journalctl -b --no-pager -u rauc")


def test_an_image_that_was_not_chosen_is_not_started_by_a_power_cut(staged_box: Machine) -> None:
    trial.power_cut(staged_box, SEED)
    told = trial.proven(staged_box)
    assert (told["slot"], told["counter"], told["reverted"]) == ("A", 7, "")


def test_the_chosen_image_is_tried_and_kept(staged_box: Machine) -> None:
    trial.choose(staged_box)
    trial.restart(staged_box)
    told = staged_box.standing(trial.START_S)
    assert (told["slot"], told["counter"], told["state"], told["attempt"]) == ("B", 8, "trial", 1)
    assert trial.proven(staged_box)["slot"] == "B"
    trial.power_cut(staged_box, SEED)
    told = trial.proven(staged_box)
    assert (told["slot"], told["counter"], told["attempt"], told["reverted"]) == ("B", 8, 1, "")


def test_an_image_that_starts_and_does_not_bridge_goes_back_by_itself_and_says_why(box: Machine) -> None:
    trial.install(box, "9")
    trial.choose(box)
    trial.restart(box)
    failed = box.standing(trial.START_S, slot="B", state="failed")
    assert (failed["counter"], failed["why"]) == (9, "gate:bridge")
    told = trial.proven(box, slot="A", reverted="B")
    assert (told["counter"], told["reverted_why"]) == (7, "gate:bridge")


def test_an_image_whose_root_is_not_what_was_signed_uses_up_its_attempts(box: Machine) -> None:
    trial.install(box, "10")
    trial.choose(box)
    trial.restart(box)
    told = trial.proven(box, slot="A", reverted="B")
    assert (told["counter"], told["reverted_why"]) == (7, "attempts")
    assert len(re.findall("slot B, attempt [123]", box.said())) == 3


def test_power_cut_when_it_is_chosen(staged_box: Machine) -> None:
    trial.choose(staged_box)
    trial.power_cut(staged_box, SEED)
    assert trial.proven(staged_box)["slot"] == "B"


def test_power_cut_while_the_box_restarts(staged_box: Machine) -> None:
    trial.choose(staged_box)
    trial.restart(staged_box)
    trial.counted(staged_box, "slot B, attempt 1")
    trial.power_cut(staged_box, SEED)
    told = trial.proven(staged_box)
    assert (told["slot"], told["attempt"]) == ("B", 2)


def test_power_cut_in_every_attempt_leads_back(staged_box: Machine) -> None:
    trial.choose(staged_box)
    trial.restart(staged_box)
    for attempt in (1, 2, 3):
        trial.counted(staged_box, f"slot B, attempt {attempt}")
        trial.power_cut(staged_box, SEED + attempt)
    told = trial.proven(staged_box)
    assert (told["slot"], told["counter"], told["reverted"], told["reverted_why"]) == ("A", 7, "B", "attempts")


def test_power_cut_on_its_trial(staged_box: Machine) -> None:
    trial.choose(staged_box)
    trial.restart(staged_box)
    staged_box.standing(trial.START_S, slot="B", state="trial")
    trial.power_cut(staged_box, SEED)
    told = trial.proven(staged_box)
    assert (told["slot"], told["attempt"]) == ("B", 2)


def test_power_cut_when_it_has_failed(box: Machine) -> None:
    trial.install(box, "9")
    trial.choose(box)
    trial.restart(box)
    box.standing(trial.START_S, slot="B", state="failed")
    trial.power_cut(box, SEED)
    told = trial.proven(box, slot="A")
    assert (told["reverted"], told["counter"]) == ("B", 7)


DATA = next(part for part in layout.partitions() if part.label == "data")
SUPERBLOCK = DATA.start + 1024


def overwrite(box: Machine, at: int, what: bytes) -> None:
    """On the disk of a box that is off."""
    with box.flash.image.open("r+b") as disk:
        disk.seek(at)
        disk.write(what)


def test_a_torn_superblock_is_mended_and_nothing_is_lost_by_it(box: Machine) -> None:
    """It lies in two sectors, and a cut of the power may keep one of them alone."""
    name = trial.ask(box, "cat /etc/machine-id; sync")
    box.cut(SEED)
    overwrite(box, SUPERBLOCK + 0x30, b"torn")
    box.on()
    trial.proven(box, slot="A")
    assert trial.ask(box, "cat /etc/machine-id") == name
    assert trial.ask(box, "findmnt -no FSTYPE /var").strip() == "ext4"


def test_a_start_that_fails_is_followed_by_another(box: Machine) -> None:
    box.restarted()
    trial.ask(box, "(sleep 1; systemctl emergency) >/dev/null 2>&1 &")
    told = trial.proven(box, slot="A")
    assert told["attempt"] == 1 and "this start failed" in box.said()


def test_an_office_has_its_network_though_the_data_partition_is_lost(box: Machine) -> None:
    box.cut(SEED)
    for at in range(DATA.start, DATA.start + DATA.size, 1 << 20):
        overwrite(box, at, bytes(1 << 20))
    box.on()
    told = trial.proven(box, slot="A")
    assert (told["counter"], trial.ask(box, "findmnt -no FSTYPE /var").strip()) == (7, "overlay")
    assert "this start is without it" in box.said()


@pytest.mark.parametrize("number", range(CUTS))
def test_power_cut_at_a_random_instant_of_writing(box: Machine, number: int) -> None:
    dice = random.Random(f"{SEED} writing {number}")
    before = box.flash.written
    trial.ask(box, f"{trial.write('8')} >/run/writing.log 2>&1 &")
    much = dice.randrange(SLOT_BYTES)
    box.wait(lambda: box.flash.written > before + much, trial.WRITE_S, f"{much >> 20} MiB written")
    trial.power_cut(box, dice.randrange(1 << 30))
    told = trial.proven(box)
    assert (told["slot"], told["counter"], told["reverted"]) == ("A", 7, "")


@pytest.mark.parametrize("number", range(CUTS))
def test_power_cut_at_a_random_instant_of_its_first_start(staged_box: Machine, number: int) -> None:
    dice = random.Random(f"{SEED} starting {number}")
    trial.choose(staged_box)
    trial.restart(staged_box)
    staged_box.wait(lambda: "slot B, attempt 1" in staged_box.said(), trial.START_S, "first start")
    before, much = staged_box.flash.written, dice.randrange(30 << 20)
    staged_box.wait(
        lambda: (
            staged_box.flash.written > before + much
            or any(told["state"] == "proven" for told in staged_box.standings())
        ),
        trial.START_S,
        f"{much >> 10} KiB written",
    )
    trial.power_cut(staged_box, dice.randrange(1 << 30))
    told = trial.proven(staged_box)
    assert (told["slot"], told["counter"], told["reverted"]) == ("B", 8, "")
