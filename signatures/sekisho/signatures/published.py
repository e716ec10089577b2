"""A published set: what the centre builds, signs and hands out, and every box takes whole. The one form both ends know.

A set has a number that only grows. Its content is one archive, an uncompressed tar made the same way every time
(names sorted, no times, no owners), so that both ends can make and apply deltas:

    rules/NAME.rules    Suricata rules, policy applied
    yara/NAME.yar       YARA sources
    yara/NAME.sha256    hashes of known malicious files
    baseline.json       how often rules speak in the fleet (`Baseline`)

In the TUF repository are, below the delegation `sig`:

    sig/set.json            the newest set's `Manifest`
    sig/NUMBER.tar.zst      the archive, compressed
    sig/OLD-NEW.zst         the same archive, compressed against the archive of set OLD (zstd with a prefix)
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

MANIFEST: Final = "sig/set.json"
MANIFEST_CAP: Final = 256 << 10
ARCHIVE_CAP: Final = 128 << 20
"""Bytes of the uncompressed archive, and so of what unpacking may make."""
FILES_CAP: Final = 8192

_Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Size = Annotated[int, msgspec.Meta(ge=1, le=ARCHIVE_CAP)]
_Path = Annotated[str, msgspec.Meta(pattern=r"^sig/[0-9a-z.-]{1,64}$")]
_Sid = Annotated[int, msgspec.Meta(ge=1, lt=1 << 32)]


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """The way from one earlier set."""

    base: _Number
    base_sha256: _Sha256
    """Of the earlier set's uncompressed archive."""
    path: _Path
    length: _Size


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """`sig/set.json`: small, and enough to decide whether and how to fetch."""

    number: _Number
    built: str
    """UTC, RFC 3339."""
    sha256: _Sha256
    """Of the uncompressed archive; likewise `length`, bytes."""
    length: _Size
    path: _Path
    """The compressed archive; `packed` bytes long."""
    packed: _Size
    deltas: Annotated[list[Delta], msgspec.Meta(max_length=32)] = []
    """From the latest sets, newest first."""
    suricata_min: str = ""
    """The set needs an engine of at least this version ("7.0.10") and below `suricata_below` ("9")."""
    suricata_below: str = ""
    rules: Annotated[int, msgspec.Meta(ge=1)]
    """Suricata rules in it that load; likewise `yara`."""
    yara: Annotated[int, msgspec.Meta(ge=1)]
    new_drops: Annotated[list[_Sid], msgspec.Meta(max_length=1 << 16)] = []
    """Dropping rules the set before did not have or did not let drop: on trial during the soak, unless urgent."""
    urgent: Annotated[list[_Sid], msgspec.Meta(max_length=4096)] = []
    """Those of them that drop at once."""
    memory_mb: Annotated[int, msgspec.Meta(ge=0)] = 0
    """The engine's resident memory with this set, as measured when it was built; 0: not measured."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """`baseline.json`: what is usual in the fleet. A rule not named here was not heard."""

    boxes: Annotated[int, msgspec.Meta(ge=0)] = 0
    """How many boxes it was counted over; 0: nothing is known."""
    sids: dict[int, Annotated[float, msgspec.Meta(ge=0)]] = {}
    """Alerts per box and day."""
    yara: dict[str, Annotated[float, msgspec.Meta(ge=0)]] = {}
