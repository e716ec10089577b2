"""Refuses an older image, whoever asks for it: RAUC runs this before it writes a slot (`pre-install`).

The floor is the counter of the image that runs, or of the newest that proved itself on this box where that is more.
An image without a counter is refused. Taking a step back is choosing the other slot, which installs nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, TypeVar

import msgspec

IDENTITY: Final = Path("/usr/lib/sekisho/image.json")
FLOOR: Final = Path("/var/lib/sekisho-slots/floor.json")
CAP: Final = 4096
T = TypeVar("T")


class Image(msgspec.Struct, frozen=True):
    """`image.json`, in an image and in its bundle."""

    counter: int
    version: str
    hardware: str


class Floor(msgspec.Struct, frozen=True):
    """`floor.json`: the newest counter that proved itself here."""

    counter: int


def read_image(path: Path) -> Image | None:
    """What an image says it is; None where it says nothing."""
    return _read(path, Image)


def read_floor(path: Path) -> int:
    """0 where nothing has proven itself yet."""
    found = _read(path, Floor)
    return found.counter if found else 0


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(CAP), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None


def verdict(offered: Image | None, running: Image | None, floor: int) -> str:
    """Why it is refused; empty: it may be written."""
    if offered is None:
        return "This image does not say what it is."
    if running is not None and offered.hardware != running.hardware:
        return f"This image is for {offered.hardware[:32]}, the box is {running.hardware}."
    least = max(floor, running.counter if running else 0)
    if offered.counter < least:
        return f"This image is older ({offered.counter}) than what the box has had ({least})."
    return ""


def main() -> int:
    mounted = os.environ.get("RAUC_BUNDLE_MOUNT_POINT", "")
    offered = read_image(Path(mounted) / "image.json") if mounted else None
    why = verdict(offered, read_image(IDENTITY), read_floor(FLOOR))
    if why:
        sys.stdout.write(f"<< error {why}\n")
        sys.stderr.write(f"{why}\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
