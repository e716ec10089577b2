"""Judges a set directory before anything of it is signed: a box must be able to take exactly what the manifest says."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures import archive, delta
from sekisho.signatures.depot.files import read
from sekisho.signatures.depot.pruning import archives
from sekisho.signatures.depot.tree import Tree
from sekisho.signatures.published import ARCHIVE_CAP, MANIFEST, MANIFEST_CAP, Delta, Manifest

_SLACK = dt.timedelta(minutes=5)


class Checked(msgspec.Struct, frozen=True):
    """A set that may be signed: every target's path and content, the manifest last."""

    manifest: Manifest
    files: dict[str, bytes]
    left_out: list[int]
    """Sets that were never published here, or too long ago: no box has them, so the deltas from them stay behind."""


def read_manifest(directory: Path) -> tuple[Manifest, bytes]:
    """`set.json` of a set directory, and its bytes.

    Raises:
        RejectedInput: missing, too long, or not of the form.

    """
    data = read(directory / Path(MANIFEST).name, MANIFEST_CAP)
    try:
        return msgspec.json.decode(data, type=Manifest), data
    except msgspec.DecodeError as err:
        raise RejectedInput(f"{directory}/{Path(MANIFEST).name} is not a set's manifest: {err}.") from err


def check(tree: Tree, directory: Path, now: dt.datetime) -> Checked:
    """Unpack and compare everything. Takes some seconds and three times the archive in memory.

    Raises:
        RejectedInput: something is missing, damaged, too large, or not what the manifest says.

    """
    manifest, text = read_manifest(directory)
    _judge_manifest(manifest, now)
    packed = read(directory / Path(manifest.path).name, manifest.packed)
    if len(packed) != manifest.packed:
        raise RejectedInput(f"{manifest.path} has {len(packed)} bytes; the manifest says {manifest.packed}.")
    content = delta.decompress(packed, manifest.length)
    _judge_content(manifest, content, manifest.path)
    _judge_files(archive.read(content))
    files = {manifest.path: packed}
    left_out = []
    bases = dict(_bases(tree))
    for way in manifest.deltas:
        if way.base not in bases:
            left_out.append(way.base)
            continue
        files[way.path] = _judge_delta(manifest, way, bases[way.base], directory)
    files[MANIFEST] = text
    return Checked(manifest, files, left_out)


def _judge_manifest(manifest: Manifest, now: dt.datetime) -> None:
    if manifest.path != f"sig/{manifest.number}.tar.zst":
        raise RejectedInput(f"The archive of set {manifest.number} cannot be called {manifest.path}.")
    bases = [way.base for way in manifest.deltas]
    if len(set(bases)) != len(bases) or any(base >= manifest.number for base in bases):
        raise RejectedInput("The manifest names a delta twice, or one from a later set.")
    for way in manifest.deltas:
        if way.path != f"sig/{way.base}-{manifest.number}.zst":
            raise RejectedInput(f"The delta from set {way.base} cannot be called {way.path}.")
    try:
        built = dt.datetime.fromisoformat(manifest.built)
        if built.tzinfo is None or built > now + _SLACK:
            raise ValueError("it lies in the future, or in no time zone")
    except ValueError as err:
        raise RejectedInput(f"The manifest's time {manifest.built!r} is wrong: {err}.") from err


def _judge_content(manifest: Manifest, content: bytes, what: str) -> None:
    if len(content) != manifest.length or hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise RejectedInput(
            f"{what} does not unpack to the archive that the manifest describes.", "Build the set again."
        )


def _judge_files(files: dict[str, bytes]) -> None:
    for suffix in (".rules", ".yar"):
        if not any(name.endswith(suffix) and data.strip() for name, data in files.items()):
            raise RejectedInput(f"The set holds no {suffix} file with something in it.", "It would protect nobody.")


def _judge_delta(manifest: Manifest, way: Delta, base: Path, directory: Path) -> bytes:
    data = read(directory / Path(way.path).name, way.length)
    if len(data) != way.length:
        raise RejectedInput(f"{way.path} has {len(data)} bytes; the manifest says {way.length}.")
    old = delta.decompress(read(base, ARCHIVE_CAP), ARCHIVE_CAP)
    if hashlib.sha256(old).hexdigest() != way.base_sha256:
        raise RejectedInput(
            f"{way.path} was made from another set {way.base} than the one that was published.",
            "Build the set from the sets as published.",
        )
    _judge_content(manifest, delta.apply(old, data, manifest.length), way.path)
    return data


def _bases(tree: Tree) -> Iterator[tuple[int, Path]]:
    return ((int(path.name.split(".")[1]), path) for path in archives(tree))
