"""A box made of the image, in QEMU: it starts, bridges, takes the next image, goes back from one that does not do, and
is never harmed by a cut of its power. Its disk forgets what was not flushed (`image.flash`).
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from sekisho.firmware.image.qemu import Machine

PATIENCE = float(os.environ.get("SEKISHO_PATIENCE", "1"))
START_S = 900 * PATIENCE
WRITE_S = 600 * PATIENCE
SEED = int(os.environ.get("SEKISHO_SEED", "7"))
CUTS = int(os.environ.get("SEKISHO_CUTS", "3"))

pytestmark = pytest.mark.timeout(6 * 3600)


def proven(box: Machine, **fields: Any) -> dict[str, Any]:
    """Until it says that it has proven itself, and both callers hear each other."""
    told = box.standing(START_S, state="proven", **fields)
    box.wait(lambda: box.wire.carries(box.started), 60 * PATIENCE, "bridged both ways")
    return told


def ask(box: Machine, script: str) -> str:
    code, said = box.shell(script, WRITE_S)
    assert code == 0, said
    return said


def install(box: Machine, name: str) -> tuple[int, str]:
    ask(
        box,
        "mkdir -p /run/b && { mountpoint -q /run/b || mount -t squashfs -o ro /dev/disk/by-id/virtio-extra /run/b; }",
    )
    return box.shell(f"rauc install /run/b/{name}.raucb", WRITE_S)


def memory(box: Machine) -> str:
    """The boot loader's, as it lies on the disk."""
    return ask(box, "dd if=/dev/disk/by-partlabel/env iflag=direct bs=512 skip=1 count=1 2>/dev/null | tr -d '#'")


def restart(box: Machine) -> None:
    box.cut(SEED)
    box.on()


def test_a_new_box_bridges_proves_itself_and_refuses_what_it_must(machine: Machine) -> None:
    machine.on()
    told = proven(machine)
    assert (told["slot"], told["counter"], told["attempt"], told["reverted"]) == ("A", 7, 1, "")
    assert "squashfs ro" in ask(machine, "grep ' / ' /proc/mounts")
    assert machine.shell("touch /usr/x", 60)[0] != 0
    before = memory(machine)
    for name, why in (
        ("older", "older"),
        ("foreign", ""),
        ("stranger", "signature"),
        ("tampered", ""),
    ):
        code, said = install(machine, name)
        assert code != 0, f"{name} was taken: {said}"
        assert why in said, f"{name}: {said}"
        assert memory(machine) == before, f"{name} changed the boot loader's memory"


def test_the_next_image_is_staged_chosen_and_kept(machine: Machine) -> None:
    machine.on()
    proven(machine, slot="A")
    code, said = install(machine, "8")
    assert code == 0, said
    restart(machine)
    assert proven(machine)["slot"] == "A", "an image that was not chosen was started"
    ask(machine, "rauc status mark-active other")
    restart(machine)
    told = machine.standing(START_S)
    assert (told["slot"], told["counter"], told["state"]) == ("B", 8, "trial")
    assert proven(machine)["slot"] == "B"
    restart(machine)
    told = proven(machine)
    assert (told["slot"], told["counter"], told["attempt"], told["reverted"]) == ("B", 8, 1, "")
    code, said = install(machine, "older")
    assert code != 0


def test_an_image_that_starts_and_does_not_bridge_goes_back_by_itself_and_says_why(machine: Machine) -> None:
    machine.on()
    proven(machine, slot="A")
    assert install(machine, "9")[0] == 0
    ask(machine, "rauc status mark-active other; sync; (sleep 1; systemctl reboot) >/dev/null 2>&1 &")
    machine.standing(START_S, slot="B", state="failed")
    told = proven(machine, slot="A", reverted="B")
    assert told["reverted_why"].startswith("gate:")
    machine.cut(SEED)
    machine.on()
    assert proven(machine)["slot"] == "A"


def test_an_image_whose_root_is_not_what_was_signed_uses_up_its_attempts(machine: Machine) -> None:
    machine.on()
    proven(machine, slot="A")
    assert install(machine, "10")[0] == 0
    ask(machine, "rauc status mark-active other; sync; (sleep 1; systemctl reboot) >/dev/null 2>&1 &")
    told = proven(machine, slot="A", reverted="B")
    assert told["reverted_why"] == "attempts"
    assert machine.said().count("slot B, attempt") == 3


STEPS = (
    "while it is written",
    "when it is written",
    "when it is chosen",
    "in its first start",
    "when it has proven itself",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_power_cut_at_every_step_leaves_a_box_that_starts_and_says_the_truth(machine: Machine, step: str) -> None:
    dice = random.Random(f"{SEED} {step}")
    machine.on()
    proven(machine, slot="A")
    flushes = machine.flash.flushes
    if step == "while it is written":
        ask(
            machine,
            "mkdir -p /run/b; mount -t squashfs -o ro /dev/disk/by-id/virtio-extra /run/b;"
            " rauc install /run/b/8.raucb >/run/log 2>&1 &",
        )
        machine.wait(lambda: machine.flash.flushes > flushes + dice.randrange(1, 6), WRITE_S, "writing")
    else:
        assert install(machine, "8")[0] == 0
    if step not in ("while it is written", "when it is written"):
        ask(machine, "rauc status mark-active other")
    may = {"A"} if step in ("while it is written", "when it is written") else {"B"}
    machine.cut(dice.randrange(1 << 30))
    machine.on()
    if step == "in its first start":
        machine.wait(lambda: "slot B, attempt 1" in machine.said(), START_S, "first start")
        for _ in range(min(CUTS, 2)):
            seen = len(machine.said())
            machine.wait(lambda: len(machine.said()) > seen or machine.flash.flushes, 20, "further")  # noqa: B023
            machine.cut(dice.randrange(1 << 30))
            machine.on()
            machine.wait(lambda: "attempt" in machine.said(), START_S, "another start")
    told = proven(machine)
    assert told["slot"] in may, told
    if step == "when it has proven itself":
        machine.cut(dice.randrange(1 << 30))
        machine.on()
        assert proven(machine)["slot"] == "B"
    assert json.dumps(told)
