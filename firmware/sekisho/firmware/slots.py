"""What the boot loader remembers: which slot comes first, which may be started, which was tried how often.

It is GRUB's environment block (grub-core/lib/envblk), a member of the archive that the partition `env` is. GRUB counts
in it before it starts a slot (firmware/image/grub.cfg); RAUC, for whom this is the backend (`main`), when a slot is
chosen, proves itself or is to be written. Every value lies in the first sector of the block, and one write of that
sector is the whole change: a power cut leaves what was or what is to be.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError

ENVIRONMENT: Final = Path("/dev/disk/by-partlabel/env")
OFFSET: Final = 512
"""Bytes of the archive's header before the block."""
SIZE: Final = 1024
SECTOR: Final = 512
ATTEMPTS: Final = 3
"""Starts a slot has until it must have proven itself; then the other one is next. grub.cfg counts to the same."""
ROUNDS: Final = 3
"""Times a slot has all its attempts until one that may not be started is tried for it; likewise."""
SIGNATURE: Final = b"# GRUB Environment Block\n"
NAMES: Final = ("A", "B")


class Slot(msgspec.Struct, frozen=True):
    """As the boot loader sees it."""

    ok: bool
    """It may be started: it was chosen, and not given up since."""
    tried: int
    """Starts since it last proved itself."""


class Memory(msgspec.Struct, frozen=True):
    """The whole block."""

    order: tuple[str, ...]
    slots: dict[str, Slot]
    rounds: int = 0
    """How often a slot began again since one proved itself or was chosen."""

    @property
    def first(self) -> str:
        """The slot that was chosen last, whether or not it is the one that runs."""
        return self.order[0]


def parse(block: bytes) -> Memory:
    """Read one environment block.

    Raises:
        RejectedInput: it is not one, or a value is missing.

    """
    if len(block) != SIZE or not block.startswith(SIGNATURE):
        raise RejectedInput("The boot loader's memory is damaged.")
    values = {}
    for line in block[len(SIGNATURE) :].split(b"\n"):
        key, found, value = line.partition(b"=")
        if found and not line.startswith(b"#"):
            values[key.decode("ascii", "replace")] = value.decode("ascii", "replace")
    order = tuple(name for name in values.get("ORDER", "").split() if name in NAMES)
    if not order or len(set(order)) != len(order):
        raise RejectedInput("The boot loader's memory names no slot.")
    states = {name: Slot(values.get(f"{name}_OK") == "1", _count(values, f"{name}_TRY")) for name in NAMES}
    return Memory(order, states, _count(values, "ROUND"))


def _count(values: dict[str, str], name: str) -> int:
    text = values.get(name, "0")
    if not text.isdecimal() or len(text) > 3:
        raise RejectedInput(f"The boot loader's memory counts {text[:20]!r} ({name}).")
    return int(text)


def read(path: Path = ENVIRONMENT) -> Memory:
    """The boot loader's memory now.

    Raises:
        DeviceFault: the partition cannot be read; RejectedInput: see `parse`.

    """
    try:
        with path.open("rb") as source:
            source.seek(OFFSET)
            return parse(source.read(SIZE))
    except OSError as err:
        raise DeviceFault(f"The boot loader's memory cannot be read: {err}.") from err


def render(memory: Memory) -> bytes:
    """The block, as GRUB writes it."""
    values = {"ORDER": " ".join(memory.order), "ROUND": str(memory.rounds)}
    for name, slot in memory.slots.items():
        values |= {f"{name}_OK": str(int(slot.ok)), f"{name}_TRY": str(slot.tried)}
    text = SIGNATURE + "".join(f"{key}={value}\n" for key, value in values.items()).encode()
    return text.ljust(SIZE, b"#")


def write(memory: Memory, path: Path = ENVIRONMENT) -> None:
    """Make it so, durably, by one sector.

    Raises:
        DeviceFault: the partition cannot be written.

    """
    try:
        with path.open("r+b", buffering=0) as out:
            os.pwrite(out.fileno(), render(memory)[:SECTOR], OFFSET)
            os.fsync(out.fileno())
    except OSError as err:
        raise DeviceFault(f"The boot loader's memory cannot be written: {err}.") from err


def chosen(memory: Memory, name: str) -> Memory:
    """`name` first, with all its attempts."""
    order = (name, *(other for other in memory.order if other != name))
    return Memory(order, {**memory.slots, name: Slot(True, 0)})


def marked(memory: Memory, name: str, *, good: bool) -> Memory:
    """`name` has proven itself, or may not be started until it is chosen again."""
    return Memory(memory.order, {**memory.slots, name: Slot(good, 0)}, 0 if good else memory.rounds)


def primary(memory: Memory) -> str:
    """The slot the next start takes, as grub.cfg chooses."""
    may = [name for name in memory.order if memory.slots[name].ok]
    fresh = [name for name in may if memory.slots[name].tried < ATTEMPTS]
    if fresh:
        return fresh[0]
    if len(may) == 1 and memory.rounds != ROUNDS - 1:
        return may[0]
    return "B" if memory.order == NAMES else "A"


def booted(command_line: str) -> dict[str, str]:
    """What the boot loader told the kernel: `slot`, `attempt`, `root` (its hash), `deadline` (s); empty elsewhere."""
    words = dict(word.split("=", 1) for word in command_line.split() if "=" in word)
    if words.get("rauc.slot") not in NAMES:
        return {}
    root = words.get("sekisho.verity", "").partition(":")[0]
    attempt, deadline = words.get("sekisho.attempt", "0"), words.get("sekisho.deadline", "")
    return {"slot": words["rauc.slot"], "attempt": attempt, "root": root, "deadline": deadline}


def answer(words: list[str], path: Path = ENVIRONMENT) -> str:
    """RAUC's custom bootloader backend (RAUC reference, "Custom"): one question or command, and what to print.

    Raises:
        SekishoError: the memory cannot be read or written; RejectedInput: not a question of RAUC's.

    """
    memory = read(path)
    match words:
        case ["get-primary"]:
            return primary(memory)
        case ["set-primary", name] if name in NAMES:
            write(chosen(memory, name), path)
        case ["get-state", name] if name in NAMES:
            slot = memory.slots[name]
            return "good" if slot.ok and slot.tried < ATTEMPTS else "bad"
        case ["set-state", name, "good" | "bad" as state] if name in NAMES:
            write(marked(memory, name, good=state == "good"), path)
        case _:
            raise RejectedInput(f"RAUC asked {words!r:.100}, which is not known here.")
    return ""


def main() -> int:
    try:
        sys.stdout.write(f"{answer(sys.argv[1:])}\n")
    except SekishoError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
