"""What follows a start of the machine from a slot: the image that came up proves itself, or the other slot is next.

A slot whose image has not proven itself on this box yet is on trial: the bridge must carry, the engine and the firmware
daemon run within `DEADLINE_S`, and hold for `HOLD_S`; else the slot is marked bad and the machine starts again, from
the other slot. An image that proved itself before is never restarted from here: its attempts are counted anew, whatever
a cable does.
What happened is said in one line of JSON on the console and kept in `/var/lib/sekisho-slots/standing.json`.
An image that hangs before this runs is the watchdog's and the boot loader's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from sekisho.appliance import status
from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings, load
from sekisho.firmware import floor, slots
from sekisho.firmware.rauc import Slots

STATE: Final = Path("/var/lib/sekisho-slots")
DEADLINE_S: Final = 300.0
HOLD_S: Final = 10.0
LOOK_S: Final = 1.0
FORWARDING: Final = 3
"""State of a bridge's port (linux/if_bridge.h, BR_STATE_FORWARDING)."""

KEEPER: Final = "sekisho-firmware.service"
"""Without it no later image would ever come."""

T = TypeVar("T")


class Proven(msgspec.Struct, frozen=True):
    """`proven.json`: root hash of the image that proved itself, by slot."""

    roots: dict[str, str] = {}


class Failed(msgspec.Struct, frozen=True):
    """`failed.json`: why the image on trial was given up, written before the machine starts again."""

    slot: str
    root: str
    why: str


class Standing(msgspec.Struct, frozen=True):
    """`standing.json`: what runs, and what became of the last change."""

    slot: str
    counter: int
    version: str
    attempt: int
    state: Literal["proven", "trial", "failed"]
    """`failed`: given up, the machine starts again from the other slot."""
    why: str = ""
    """Of `failed`: `gate:NAME`."""
    reverted: str = ""
    """The slot that was chosen and is not the one that runs, with `reverted_why`: `gate:NAME`, or `attempts`."""
    reverted_why: str = ""
    reverted_boot: str = ""
    """The boot in which that was found."""


def decide(
    waited_s: float, healthy_s: float, *, trial: bool, deadline_s: float = DEADLINE_S
) -> Literal["wait", "good", "back"]:
    """The one decision: seconds since the check began, and since when all has been well (-1: it is not).

    An image on trial that is not well in time goes back; one that proved itself before is kept at the deadline.
    """
    if healthy_s >= HOLD_S:
        return "good"
    if waited_s >= deadline_s:
        return "back" if trial else "good"
    return "wait"


def reverted(memory: slots.Memory, booted: str, failed: Failed | None) -> tuple[str, str]:
    """The slot that was to run and does not, and why; empty strings where the chosen one runs.

    A slot that used up its attempts is `attempts`; one RAUC has emptied to write it anew was not chosen any more.
    """
    first = memory.first
    if first == booted:
        return "", ""
    if failed is not None and failed.slot == first:
        return first, failed.why
    if not memory.slots[first].ok:
        return "", ""
    return first, "attempts"


def missing(settings: Settings, net: Path = Path("/sys/class/net")) -> str:
    """The first thing of the traffic's way that is not well, as a code of the firmware's reports; empty: all is."""
    ports = net / settings.bridge.name / "brif"
    for port in (settings.bridge.lan, settings.bridge.wan):
        try:
            carried = (net / port / "carrier").read_text().strip() == "1"
            state = int((ports / port / "state").read_text())
        except (OSError, ValueError):
            return "gate:bridge"
        if carried and state != FORWARDING:
            return "gate:bridge"
    try:
        told = status.try_read(settings)
    except SekishoError:
        told = None
    if told is None or not told.fresh:
        return "gate:appliance"
    return "" if told.engine.phase == "running" else "gate:engine"


def works(unit: str) -> bool:
    """Whether the service manager has it running and ready."""
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def restart() -> None:
    """Start the machine anew, in order."""
    subprocess.run(["systemctl", "reboot"], check=False)


def _kept(name: str, kind: type[T]) -> T | None:
    try:
        with (STATE / name).open("rb") as source:
            return msgspec.json.decode(source.read(1 << 16), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def _keep(name: str, what: msgspec.Struct) -> None:
    """Where the disk takes it: no verdict waits for a disk that is full or read-only."""
    try:
        STATE.mkdir(parents=True, exist_ok=True)
        write_atomic(STATE / name, msgspec.json.encode(what) + b"\n", 0o644)
    except OSError as err:
        sys.stderr.write(f"{STATE / name} cannot be written: {err}.\n")


def _say(standing: Standing) -> None:
    _keep("standing.json", standing)
    sys.stdout.write(f"sekisho: {msgspec.json.encode(standing).decode()}\n")
    sys.stdout.flush()


class Check:
    """One start of the machine."""

    def __init__(self, settings: Path, told: dict[str, str], rauc: Slots) -> None:
        self._path = settings
        self._rauc = rauc
        self._slot, self._root = told["slot"], told["root"]
        self._deadline_s = float(told["deadline"]) if told["deadline"].isdecimal() else DEADLINE_S
        image = floor.read_image(floor.IDENTITY) or floor.Image(0, "", "")
        self._counter = image.counter
        proven = _kept("proven.json", Proven) or Proven()
        self._roots = proven.roots
        self.trial = self._roots.get(self._slot) != self._root
        self._standing = Standing(
            self._slot, image.counter, image.version, int(told["attempt"]), "trial" if self.trial else "proven"
        )

    def settle(self) -> None:
        """Say what runs; when the chosen slot does not, choose this one for good and keep the other from being tried.

        Raises:
            SekishoError: the boot loader's memory cannot be read or written.

        """
        first, why = reverted(slots.read(), self._slot, _kept("failed.json", Failed))
        last = _kept("standing.json", Standing)
        if first:
            boot = boot_id()
            self._standing = msgspec.structs.replace(
                self._standing, reverted=first, reverted_why=why, reverted_boot=boot
            )
        elif last is not None and last.slot == self._slot and last.reverted:
            self._standing = msgspec.structs.replace(
                self._standing, reverted=last.reverted, reverted_why=last.reverted_why, reverted_boot=last.reverted_boot
            )
        _say(self._standing)
        if first:
            self._rauc.mark_bad("other")
            self._rauc.activate_booted()

    def prove(self) -> int:
        """Wait until the image is well or its time is over, and act on it.

        Raises:
            SekishoError: the boot loader's memory cannot be written.

        """
        began = time.monotonic()
        well_since: float | None = None
        why = ""
        while True:
            now = time.monotonic()
            why = self._lacks()
            well_since = None if why else well_since or now
            well_s = -1.0 if well_since is None else now - well_since
            verdict = decide(now - began, well_s, trial=self.trial, deadline_s=self._deadline_s)
            if verdict != "wait":
                break
            time.sleep(LOOK_S)
        if verdict == "back":
            self._give_up(why)
            return 0
        self._rauc.mark_good()
        if self.trial:
            _keep("proven.json", Proven({**self._roots, self._slot: self._root}))
            _keep("floor.json", floor.Floor(max(self._counter, floor.read_floor(floor.FLOOR))))
        _say(msgspec.structs.replace(self._standing, state="proven"))
        return 0

    def _lacks(self) -> str:
        """The first thing that is not well; settings these programs do not understand are one, and may be mended."""
        try:
            settings = load(self._path)
        except SekishoError:
            return "gate:settings"
        return missing(settings) or ("" if works(KEEPER) else "gate:firmware")

    def _give_up(self, why: str) -> None:
        """Back to the other slot, where that one can be started; a box with one slot alone stays as it is."""
        other = "B" if self._slot == "A" else "A"
        _say(msgspec.structs.replace(self._standing, state="failed", why=why))
        if not slots.read().slots[other].ok:
            return
        _keep("failed.json", Failed(self._slot, self._root, why))
        self._rauc.mark_bad("booted")
        restart()


def main() -> int:
    parser = argparse.ArgumentParser(prog="sekisho.firmware.bootcheck")
    parser.add_argument("--settings", default="/etc/sekisho/box.toml")
    told = slots.booted(Path("/proc/cmdline").read_text())
    if not told:
        return 0
    try:
        check = Check(Path(parser.parse_args().settings), told, Slots())
        check.settle()
        notify("READY=1")  # what starts after this reads what was said
        return check.prove()
    except SekishoError as err:
        sys.stderr.write(f"{err}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
