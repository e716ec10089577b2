"""What is inside a bundle of tier 1: a zstd-compressed tar of plain files alone.

    content.json            `Content`
    requirements.txt        every wheel by name, version and SHA-256, as pip reads it
    wheels/NAME.whl         our own and every one it needs, for one machine and one Python
    engine/PATH             Suricata and the libraries it needs that Debian's base has not; may be missing

There are no links and no directories of their own in it: `firmware.build` makes it so, `firmware.stage` takes no other.
"""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final, Literal

import msgspec

from sekisho.firmware.published import BUNDLE_CAP, Counter

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

CONTENT: Final = "content.json"
REQUIREMENTS: Final = "requirements.txt"
WHEELS: Final = "wheels"
ENGINE: Final = "engine"
FILES_CAP: Final = 20_000
UNPACKED_CAP: Final = BUNDLE_CAP
WINDOW_LOG: Final = 23
"""8 MiB: what a box needs of memory to unpack it."""
_NAME: Final = re.compile(
    r"(?:content\.json|requirements\.txt|wheels/[\w.+-]{1,150}\.whl|engine(?:/[\w@:~+][\w@:~.+-]{0,99}){1,12})", re.A
)

Machine = Literal["amd64", "arm64"]
"""As Debian calls it."""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """`content.json`: what this bundle says of itself; it must be what the signed release says."""

    counter: Counter
    version: str
    hardware: str
    machine: Machine
    python: Annotated[str, msgspec.Meta(pattern=r"^3\.\d{1,2}$")]
    """That the wheels are for; the box's own."""
    engine: str = ""


def allowed(name: str) -> bool:
    """Whether a bundle may hold a file of this name."""
    return _NAME.fullmatch(name) is not None
