"""A published release: what is built and signed off line, and boxes take whole. The one form both ends know.

In the TUF repository are, below the delegation `fw` (docs/decisions/0035):

    fw/HARDWARE/release.json         the newest `Release` for that hardware
    fw/HARDWARE/COUNTER.tar.zst      tier 1: our programs and the engine, per machine (`firmware.build`)
    fw/HARDWARE/COUNTER.raucb        tier 2 and 3: RAUC's bundle of the whole system

`HARDWARE` is a name of the product's list, not of a distribution: `amd64`, `arm64` for releases that need no board.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

FW: Final = "fw"
"""The delegation."""
RELEASE_CAP: Final = 256 << 10
"""Bytes of `release.json`."""
OPERATORS: Final = "operators/operators.json"
"""`core.jobs.Operators`, below the delegation `operators`."""
OPERATORS_CAP: Final = 256 << 10
"""Bytes of it."""
BUNDLE_CAP: Final = 1 << 30
BLOCK: Final = 4 << 20
"""Bytes of a block of the bundle; each is checked as it lands, so that a download goes on where it was cut."""

Tier = Literal[1, 2, 3]
"""1: no packet is lost; 2: user space changes under a forwarding kernel; 3: the machine restarts."""
Counter = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
Hardware = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}$")]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Size = Annotated[int, msgspec.Meta(ge=1, le=BUNDLE_CAP)]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """`release.json`: enough to decide whether, when and how to take it."""

    counter: Counter
    """Grows with every release of this hardware; a box takes nothing below its floor."""
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z.+~-]{1,40}$")]
    """For people: 1.4.0."""
    hardware: Hardware
    tier: Tier
    built: str
    """UTC, RFC 3339: of the source, so that building it again gives the same bytes."""
    path: Annotated[str, msgspec.Meta(pattern=r"^fw/[a-z0-9-]{1,32}/[0-9a-z.-]{1,64}$")]
    sha256: _Sha256
    """Of the bundle; likewise `length`, bytes."""
    length: _Size
    blocks: Annotated[list[_Sha256], msgspec.Meta(max_length=BUNDLE_CAP // BLOCK)]
    """Of each `BLOCK` of it, in order."""
    unpacked: _Size
    """Bytes it takes on the disk."""
    from_counter: Annotated[int, msgspec.Meta(ge=0)] = 0
    """A box below this takes an earlier release first."""
    engine: Annotated[str, msgspec.Meta(max_length=40)] = ""
    """Suricata's version inside; empty: the engine of the box stays."""
    urgent: bool = False
    """It closes a hole: deadlines of the contract count."""
    notes_ja: Annotated[str, msgspec.Meta(max_length=2000)] = ""
    """What is new, for the customer; likewise `notes_en`."""
    notes_en: Annotated[str, msgspec.Meta(max_length=2000)] = ""

    @property
    def name(self) -> str:
        """COUNTER-SHA, the begin of its bundle's hash: what it is called on a box's disk."""
        return f"{self.counter}-{self.sha256[:16]}"


def release_path(hardware: str) -> str:
    """Where the newest `Release` for that hardware is."""
    return f"fw/{hardware}/release.json"
