"""The two slots of the system, through RAUC: what is in them, installing, choosing, keeping.

RAUC checks signature, product and every block of a bundle and writes the slot that does not run; nothing here writes a
slot itself. Installing chooses nothing (`activate-installed=false`). Its command line with JSON answers is the seam,
stable since RAUC 1.8. Blocks: call it in a thread of its own.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput

ANSWER_CAP: Final = 1 << 20
ASK_S: Final = 60.0
INSTALL_S: Final = 3600.0
"""A gigabyte to a slow memory card, with room."""
REFUSALS: Final = (
    *("signature verification failed", "Invalid bundle", "Bundle format", "Compatible mismatch"),
    *("Pre-install handler error", "Failed mounting bundle"),
)
"""How RAUC's messages about the bundle begin, all of them from before a slot is touched."""
OURS: Final = ("/dev/mapper", "loop")
"""In a message about mounting: this machine's kernel cannot, the bundle is not judged."""


class Content(msgspec.Struct, frozen=True):
    """One slot."""

    name: str
    """A or B."""
    booted: bool
    good: bool
    """The boot loader may start it, and it has proven itself since it was chosen."""
    version: str = ""
    counter: int = 0
    """Of the image installed through RAUC; 0: as it came with the disk, or nothing."""


class Report(msgspec.Struct, frozen=True):
    """Both slots."""

    compatible: str
    booted: str
    primary: str
    """The slot the next start takes; empty: none has a good state, the boot loader takes what it finds."""
    slots: dict[str, Content]


Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]


def run(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run RAUC to its end.

    Raises:
        DeviceFault: it is not there, or took too long.

    """
    try:
        return subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, errors="replace")
    except FileNotFoundError as err:
        raise DeviceFault("This box's system has no second slot (RAUC is not installed).") from err
    except subprocess.TimeoutExpired as err:
        raise DeviceFault(f"RAUC did not end within {timeout_s:.0f} seconds.") from err


class Slots:
    """RAUC's slots A and B. Every method raises `DeviceFault` where RAUC cannot be asked."""

    def __init__(self, run: Run = run) -> None:
        self._run = run

    def report(self) -> Report:
        """Both slots, as RAUC knows them."""
        return parse(self._ask("status", "--detailed", "--output-format=json"))

    def booted(self) -> str:
        """The slot that runs: A or B."""
        return self.report().booted

    def inactive(self) -> str:
        """The other one."""
        return "B" if self.booted() == "A" else "A"

    def primary(self) -> str:
        """The slot the next start takes; empty when none is good."""
        return self.report().primary

    def install(self, bundle: Path) -> None:
        """Write the bundle to the slot that does not run, and choose nothing. That slot cannot be started until then.

        Raises:
            RejectedInput: older, foreign, tampered or unsigned; nothing was written.
            DeviceFault: the slot could not be written.

        """
        ended = self._run(["rauc", "install", str(bundle)], INSTALL_S)
        if ended.returncode:
            told = _why(ended)
            if any(word in told for word in REFUSALS) and not any(word in told for word in OURS):
                raise RejectedInput(f"The image was refused: {told}")
            raise DeviceFault(f"The image could not be written: {told}")

    def activate_other(self) -> None:
        """Have the next start take the slot that does not run, on trial: it gets its attempts, then this one again."""
        self._ask("status", "mark-active", "other")

    def activate_booted(self) -> None:
        """Take that back."""
        self._ask("status", "mark-active", "booted")

    def mark_good(self) -> None:
        """The slot that runs has proven itself: its attempts are counted anew."""
        self._ask("status", "mark-good", "booted")

    def mark_bad(self, which: str = "booted") -> None:
        """`booted` or `other`: the boot loader takes it no more until it is installed or chosen again."""
        self._ask("status", "mark-bad", which)

    def _ask(self, *words: str) -> str:
        ended = self._run(["rauc", *words], ASK_S)
        if ended.returncode:
            raise DeviceFault(f"RAUC ({' '.join(words[:2])}): {_why(ended)}")
        return ended.stdout[:ANSWER_CAP]


def _why(ended: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
    told = [line.removeprefix("LastError: ") for line in lines if line.startswith("LastError:")]
    return (told or lines or ["no message"])[-1][:500]


class _Bundle(msgspec.Struct):
    version: str | None = None
    build: str | None = None


class _Status(msgspec.Struct):
    bundle: _Bundle = msgspec.field(default_factory=_Bundle)


class _Slot(msgspec.Struct):
    state: str
    bootname: str | None = None
    boot_status: str | None = None
    slot_status: _Status = msgspec.field(default_factory=_Status)


class _Answer(msgspec.Struct):
    compatible: str
    booted: str
    slots: list[dict[str, _Slot]]
    boot_primary: str | None = None


def parse(answer: str) -> Report:
    """RAUC's JSON.

    Raises:
        DeviceFault: it says something this program does not know.

    """
    try:
        told = msgspec.json.decode(answer, type=_Answer)
    except msgspec.MsgspecError as err:
        raise DeviceFault(f"RAUC's answer is not understood: {err}.") from err
    found: dict[str, Content] = {}
    names: dict[str, str] = {}
    for entry in told.slots:
        for name, slot in entry.items():
            if slot.bootname in ("A", "B"):
                build = slot.slot_status.bundle.build or ""
                names[name] = slot.bootname
                found[slot.bootname] = Content(
                    name=slot.bootname,
                    booted=slot.state == "booted",
                    good=slot.boot_status == "good",
                    version=(slot.slot_status.bundle.version or "")[:40],
                    counter=int(build) if build.isdecimal() and len(build) < 16 else 0,
                )
    if set(found) != {"A", "B"}:
        raise DeviceFault("RAUC does not know both slots of this box.")
    booted = [name for name, slot in found.items() if slot.booted]
    if len(booted) != 1:
        raise DeviceFault("RAUC does not know which slot runs.")
    return Report(told.compatible, booted[0], names.get(told.boot_primary or "", ""), found)
