"""What is done to a box under trial, and what it must say of itself afterwards."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from sekisho.firmware import slots
from sekisho.firmware.image.qemu import Machine

PATIENCE = float(os.environ.get("SEKISHO_PATIENCE", "1"))
START_S = 900 * PATIENCE
WRITE_S = 600 * PATIENCE
BEGAN = time.monotonic()
PYTHON = "/opt/sekisho/venv/bin/python -I -c"


def tell(text: str) -> None:
    """One line of progress: minutes may pass between two."""
    sys.stdout.write(f"[{time.monotonic() - BEGAN:6.0f} s] {text}\n")
    sys.stdout.flush()


def proven(box: Machine, **fields: Any) -> dict[str, Any]:
    """Until it says that it has proven itself, both callers hear each other, and it is what the next start takes.

    What it said is held against what runs.
    """
    told = box.standing(START_S, state="proven", **fields)
    since = time.monotonic()
    box.wait(lambda: box.wire.carries(since), 60 * PATIENCE, "bridged both ways")
    tell(f"slot {told['slot']}, image {told['counter']}, attempt {told['attempt']}; bridges {told['reverted_why']}")
    running = json.loads(ask(box, "cat /usr/lib/sekisho/image.json"))
    assert (told["counter"], told["version"]) == (running["counter"], running["version"])
    assert json.loads(ask(box, "cat /var/lib/sekisho-slots/standing.json")) == told
    assert f"rauc.slot={told['slot']} " in ask(box, "cat /proc/cmdline")
    box.wait(lambda: kept(box, told["slot"]), START_S, "the slot that proved itself is that of the next start")
    return told


def kept(box: Machine, slot: str) -> bool:
    """Whether the boot loader takes `slot` next, with all its attempts before it."""
    memory = slots.parse(block(box))
    return memory.first == slot and memory.slots[slot] == slots.Slot(ok=True, tried=0)


def ask(box: Machine, script: str) -> str:
    code, said = box.shell(script, WRITE_S)
    assert code == 0, said
    return said


def shelf(box: Machine) -> None:
    """Have the bundles at /run/b."""
    ask(box, "mkdir -p /run/b && mount -t squashfs -o ro /dev/disk/by-id/virtio-extra /run/b")


def slots_of(call: str) -> str:
    """A call of our own daemon's `Slots`, as a command of the box."""
    return f"{PYTHON} 'from pathlib import Path; from sekisho.firmware.rauc import Slots; Slots().{call}'"


def write(name: str) -> str:
    return slots_of(f'install(Path("/run/b/{name}.raucb"))')


def install(box: Machine, name: str) -> None:
    began = time.monotonic()
    ask(box, write(name))
    tell(f"image {name} written in {time.monotonic() - began:.0f} s")


def choose(box: Machine) -> None:
    ask(box, slots_of("activate_other()"))


def block(box: Machine) -> bytes:
    """The boot loader's memory as it lies on the disk."""
    octets = ask(
        box, "dd if=/dev/disk/by-partlabel/env iflag=direct bs=512 skip=1 count=2 2>/dev/null | od -An -v -tx1"
    )
    return bytes.fromhex(octets)


def restart(box: Machine) -> None:
    """As the box restarts itself."""
    box.restarted()
    ask(box, "(sleep 1; systemctl reboot) >/dev/null 2>&1 &")


def counted(box: Machine, attempt: str) -> None:
    """Until the boot loader counted this attempt and the disk was told to keep it.

    It says nothing to the disk itself: a cut before the system's first flush may lose the count, and the attempt is
    made once more.
    """
    box.wait(lambda: attempt in box.said(), START_S, attempt)
    flushes = box.flash.flushes
    box.wait(lambda: box.flash.flushes > flushes, START_S, "the first flush")


def power_cut(box: Machine, seed: int) -> None:
    lost = box.cut(seed)
    tell(f"power cut; {lost} sectors were not flushed and are lost")
    box.on()
