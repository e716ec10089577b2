"""What proves a release to root, who does not believe the daemon that asks for it.

The daemon, which reads the network, puts what it was shown into one file for each release (`keep`). Root's errand
takes that as a stranger's file and verifies it again, from the root of trust that lies where only root writes, through
its successors and `targets` to the keyholders of `fw`, down to the hash of the bundle (`accept`). Whether it is fresh
was for the daemon to say; that it is not older than what this box has had, root remembers itself beside the releases.

    FIRMWARE_STATE/proofs/COUNTER-SHA.json   the daemon's: `Proof`
    RELEASES/reached.json                    root's: `Reached`
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import open_plain, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper import here
from sekisho.firmware.published import FW, RELEASE_CAP, Release, release_path
from sekisho.firmware.stage import staged
from sekisho.signatures.trust import ChannelRefused, Evidence, listed

PROOF_CAP: Final = 8 << 20
KEPT: Final = 8
"""Proofs of so many releases: one that is being fetched may be replaced by newer ones meanwhile."""
_ROOT_CAP: Final = 1 << 20
_REACHED: Final = "reached.json"
_REACHED_CAP: Final = 4096


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As the daemon hands it over."""

    evidence: Evidence
    release: bytes
    """`release.json`, byte by byte."""


class Reached(msgspec.Struct, frozen=True):
    """The newest that root ever took a release by. Never lowered."""

    counter: int = 0
    root: int = 0
    """Version of root; likewise `targets`, which begins anew with each root."""
    targets: int = 0


def keep(settings: Settings, release: Release, data: bytes, evidence: Evidence) -> None:
    """For `accept`, later. `data`: the bytes of `release.json`.

    Raises:
        DeviceFault: the disk refuses it.

    """
    path = _path(settings, release.name)
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
        encoded = msgspec.json.encode(Proof(evidence, data))
        if not path.is_file() or path.read_bytes() != encoded:
            write_atomic(path, encoded, 0o640)
        for old in sorted(path.parent.glob("*-*.json"), key=lambda old: old.stat().st_mtime_ns)[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space on the data partition.") from err


def accept(settings: Settings, hardware: str, name: str) -> Release:
    """The release of that name (`Release.name`), if the keyholders signed it for this hardware and it is no older one.

    What it reached is on the disk when this returns: root takes nothing older from then on.

    Raises:
        RejectedInput: it is not signed as it must be, not of that name or for other hardware, or older.
        DeviceFault: there is no proof of it, or this box cannot judge.

    """
    proof = _read(_path(settings, name))
    found = listed(_trusted(settings), proof.evidence, FW, release_path(hardware))
    try:
        if len(proof.release) > RELEASE_CAP:
            raise ChannelRefused("too_large", f"The release has {len(proof.release)} bytes.")
        found.file.verify_length_and_hashes(proof.release)
        release = msgspec.json.decode(proof.release, type=Release)
    except ChannelRefused:
        raise
    except Exception as err:
        raise ChannelRefused("forged", f"The release is not what was signed ({err!s:.200}).") from err
    if (release.hardware, release.name) != (hardware, name):
        raise RejectedInput(f"What is signed is release {release.name} for {release.hardware}, not {name}.")
    _reach(settings, Reached(release.counter, found.root, found.targets))
    return release


def _reach(settings: Settings, now: Reached) -> None:
    releases = Path(settings.firmware.releases)
    path, last = releases / _REACHED, Reached()
    try:
        with suppress(FileNotFoundError), open_plain(path, _REACHED_CAP) as source:
            last = msgspec.json.decode(source.read(_REACHED_CAP), type=Reached)
        here_now = [one.release.counter for one in staged(releases)]
        least = max(last.counter, here.running(settings).counter, *here_now)
        if now.counter < least or (now.root, now.targets) < (last.root, last.targets):
            raise ChannelRefused("rolled_back", f"Release {now.counter} is older than what this box has had ({least}).")
        if now != last:
            releases.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomic(path, msgspec.json.encode(now), 0o644)
    except (OSError, msgspec.MsgspecError) as err:
        raise DeviceFault(
            f"What this box remembers of its releases cannot be kept ({path}: {err}).",
            "The release in use goes on. Have the storage looked at.",
        ) from err


def _read(path: Path) -> Proof:
    """A stranger's file: read once, and judged as it was then."""
    try:
        with open_plain(path, PROOF_CAP) as source:
            return msgspec.json.decode(source.read(PROOF_CAP), type=Proof)
    except OSError as err:
        raise DeviceFault(
            f"The proof of this release is not on this box ({err.strerror}).", "It is fetched again."
        ) from err
    except (msgspec.MsgspecError, RecursionError) as err:
        raise ChannelRefused("malformed", f"The proof of this release cannot be read: {err}.") from err


def _trusted(settings: Settings) -> bytes:
    """Whom this box believes; only while nobody but root can say so."""
    path = Path(settings.signatures.root)
    try:
        with path.open("rb") as source:
            about = os.fstat(source.fileno())
            data = source.read(_ROOT_CAP)
    except OSError as err:
        raise DeviceFault(f"{path}: {err.strerror}.", "It names whom this box believes; set it up again.") from err
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
        raise DeviceFault(f"Others than root may write {path}.", "It names whom this box believes; set it up again.")
    return data


def _path(settings: Settings, name: str) -> Path:
    return settings.firmware_state / "proofs" / f"{name}.json"
