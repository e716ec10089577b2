"""Sets on the centre's disk: one directory each, named by number, complete or not there at all.

NUMBER/set.json         the `Manifest` (signed and published by the depot)
NUMBER/NUMBER.tar       the archive; likewise NUMBER.tar.zst
NUMBER/OLD-NUMBER.zst   the way from an earlier set
NUMBER/build.json       what the build left out, and why (`build.Result`); stays at the centre
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.signatures import delta
from sekisho.signatures.published import ARCHIVE_CAP, MANIFEST_CAP, Delta, Manifest

MANIFEST_FILE = "set.json"
_NUMBER = re.compile("[1-9][0-9]{0,14}")


class Stored(msgspec.Struct, frozen=True):
    """A set as it was read."""

    archive: bytes
    manifest: Manifest | None
    """None: an archive by itself."""


def read(path: Path) -> Stored:
    """A set: its directory, or its archive, packed or not.

    Raises:
        DeviceFault: it cannot be read.
        RejectedInput: it is not a set, or its archive is not the one its manifest names.

    """
    if not path.is_dir():
        data = read_capped(path, ARCHIVE_CAP)
        return Stored(delta.decompress(data, ARCHIVE_CAP) if path.suffix == ".zst" else data, None)
    try:
        manifest = msgspec.json.decode(read_capped(path / MANIFEST_FILE, ARCHIVE_CAP), type=Manifest)
    except msgspec.MsgspecError as err:
        raise RejectedInput(f"{path / MANIFEST_FILE} is not a set's: {err}.") from err
    archive = read_capped(path / f"{manifest.number}.tar", ARCHIVE_CAP)
    if hashlib.sha256(archive).hexdigest() != manifest.sha256:
        raise RejectedInput(f"The archive in {path} is not the one its {MANIFEST_FILE} names.")
    return Stored(archive, manifest)


def latest(path: Path, count: int) -> list[Stored]:
    """The last `count` sets, newest first: of a directory of sets, or `path` itself where it is one set or archive.

    Raises as `read` does.
    """
    if not path.is_dir() or (path / MANIFEST_FILE).exists():
        return [read(path)]
    return [read(path / str(number)) for number in numbers(path)[:count]]


def numbers(path: Path) -> list[int]:
    """The numbers of the sets in a directory of sets, newest first."""
    return sorted((int(entry.name) for entry in path.iterdir() if _NUMBER.fullmatch(entry.name)), reverse=True)


def write(out: Path, manifest: Manifest, archive: bytes, previous: list[Stored], count: int) -> Manifest:
    """Compress, make deltas from the newest `count` of `previous`, and write everything but `build.json` to `out`.

    The manifest comes back with what only this knows: sizes and deltas. A delta no smaller than the whole is not kept.

    Raises:
        RejectedInput: the manifest is larger than boxes read.
        OSError: the disk refuses it.

    """
    number = manifest.number
    packed = delta.compress(archive)
    _write(out / f"{number}.tar", archive)
    _write(out / f"{number}.tar.zst", packed)
    deltas = []
    for old in [stored for stored in previous if stored.manifest][:count]:
        assert old.manifest  # noqa: S101  # for the type checker; filtered above
        way = delta.make(old.archive, archive)
        if len(way) >= len(packed):
            continue
        name = f"{old.manifest.number}-{number}.zst"
        _write(out / name, way)
        base = old.manifest
        deltas.append(Delta(base=base.number, base_sha256=base.sha256, path=f"sig/{name}", length=len(way)))
    whole = msgspec.structs.replace(manifest, packed=len(packed), deltas=deltas)
    told = msgspec.json.encode(whole)
    if len(told) > MANIFEST_CAP:
        raise RejectedInput(
            f"The set lets {len(whole.new_drops)} rules drop that did not before; boxes are told of fewer at once.",
            "Let them drop in several steps, a category at a time.",
        )
    write_atomic(out / MANIFEST_FILE, told, 0o644)
    return whole


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def keep(work: Path, final: Path) -> None:
    """Move a finished set to its place, durably.

    Raises:
        DeviceFault: the place is taken, or the disk refuses it.

    """
    try:
        work.chmod(0o755)
        sync_directory(work)
        work.rename(final)
        sync_directory(final.parent)
    except OSError as err:
        shutil.rmtree(work, ignore_errors=True)
        raise DeviceFault(f"Cannot write the set to {final}: {err.strerror}.") from err


def read_capped(path: Path, cap: int) -> bytes:
    """The whole file.

    Raises:
        DeviceFault: it cannot be read.
        RejectedInput: it is larger than `cap` bytes.

    """
    try:
        with path.open("rb") as source:
            data = source.read(cap + 1)
    except OSError as err:
        raise DeviceFault(f"Cannot read {path}: {err.strerror}.") from err
    if len(data) > cap:
        raise RejectedInput(f"{path} is larger than the {cap >> 20} MB that are allowed.")
    return data
