"""What this machine says of itself: which release runs, from which slot, and why it started.

None of it is taken from the keeper's journal: the link, the kernel's command line and the boot's own identifier cannot
be behind the truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

import msgspec

from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper.facts import Boot, GivenUp, Started
from sekisho.firmware.keeper.journal import Place, Running
from sekisho.firmware.published import RELEASE_CAP, Release

COMMAND_LINE: Final = Path("/proc/cmdline")
IMAGE: Final = Path("/usr/lib/sekisho/image.json")
"""What a system image says of itself."""
WATCHDOG: Final = Path("/sys/class/watchdog/watchdog0/bootstatus")
PANICKED: Final = Path("/run/sekisho-panicked")
"""There in a start of the machine that follows a panic (sekisho-panicked.service)."""
CARD_RESET: Final = 0x20
"""WDIOF_CARDRESET (linux/watchdog.h): the hardware watchdog restarted the machine."""
STANDING: Final = Path("/var/lib/sekisho-slots/standing.json")
"""What the check of a system image says of the last change (`firmware.bootcheck`)."""
CAP: Final = 4096
T = TypeVar("T")


class Image(msgspec.Struct, frozen=True):
    """What is read of `image.json`."""

    counter: int = 0
    version: str = ""


class Standing(msgspec.Struct, frozen=True):
    """What is read of `standing.json`."""

    reverted_why: str = ""
    reverted_boot: str = ""


class Lived(msgspec.Struct, frozen=True):
    """`boot.json`: the boot in which the daemon ran last, and whether it was told to stop."""

    boot: str = ""
    orderly: bool = False


def started(settings: Settings) -> Started:
    """What runs, and how this boot came about; from now on an end without `stopping` counts as a loss of power."""
    boot = boot_id()
    lived = _lived(settings)
    reason = _reason(lived, boot)
    _live(settings, Lived(boot))
    found = _read(STANDING, CAP, Standing) or Standing()
    given_up = _read(given_up_file(settings), CAP, GivenUp) or GivenUp()
    return Started(
        running=running(settings), boot=boot, reason=reason, gave_up=found.reverted_why[:64],
        gave_up_in=found.reverted_boot, given_up=given_up,
    )  # fmt: skip


def given_up_file(settings: Settings) -> Path:
    """Root's own, beside the releases."""
    return Path(settings.firmware.releases) / "given_up.json"


def stopping(settings: Settings) -> None:
    """The daemon was told to stop: whatever follows was wanted."""
    _live(settings, Lived(boot_id(), orderly=True))


def running(settings: Settings) -> Running:
    """By the link and the kernel; counter 0 where neither says."""
    slot = slot_of(_text(COMMAND_LINE))
    link = Path(settings.firmware.link)
    try:
        target = link.resolve()
    except (OSError, RuntimeError):
        target = link
    folder = target.parent if target.name == "venv" else target
    if folder.parent == Path(settings.firmware.releases).resolve():
        found = _read(folder / "release.json", RELEASE_CAP, Release)
        place = Place(release=folder.name, slot=slot)
        if found is None:
            return Running(place=place)
        return Running(counter=found.counter, version=found.version, tier=found.tier, place=place)
    image = _read(IMAGE, CAP, Image) or Image()
    return Running(counter=image.counter, version=image.version, tier=3 if slot else 0, place=Place(slot=slot))


def slot_of(command_line: str) -> str:
    """The slot the boot loader started; empty where there is one system only."""
    words = dict(word.split("=", 1) for word in command_line.split() if "=" in word)
    return words.get("rauc.slot", "")[:16]


def _reason(lived: Lived, boot: str) -> Boot:
    if not lived.boot or lived.boot == boot:
        return "same"
    if lived.orderly:
        return "ordered"
    status = _text(WATCHDOG)
    if status.isdecimal() and int(status) & CARD_RESET:
        return "watchdog"
    return "panic" if PANICKED.exists() else "power_loss"


def _path(settings: Settings) -> Path:
    return settings.firmware_state / "boot.json"


def _lived(settings: Settings) -> Lived:
    return _read(_path(settings), CAP, Lived) or Lived()


def _live(settings: Settings, lived: Lived) -> None:
    try:
        settings.firmware_state.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_atomic(_path(settings), msgspec.json.encode(lived))
    except OSError:  # a full disk: the next start is told as a loss of power, which it may have been
        return


def _read(path: Path, cap: int, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(cap), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
