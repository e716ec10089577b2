"""Publishes a set: checks it, puts its files in place, and signs the one list that names them.

Nothing leads to the files before timestamp.json is replaced (`signing`), so a crash at any instant leaves the set
before or this one in force, whole. Repeating the command after a crash completes what was begun.
"""

from __future__ import annotations

import copy
import datetime as dt
from pathlib import Path

import msgspec
from tuf.api.metadata import TargetFile

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import pruning
from sekisho.signatures.depot.announced import tell
from sekisho.signatures.depot.checking import Checked, check, read_manifest
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.signing import advance, begin
from sekisho.signatures.depot.tree import Chain, Tree
from sekisho.signatures.published import MANIFEST, Manifest


class Outcome(msgspec.Struct, frozen=True):
    """What publishing did."""

    number: int
    repeated: bool
    """The very same set was in force already."""
    left_out: list[int]
    """Sets the delta from which was not published (`Checked.left_out`)."""
    sizes: dict[str, int]
    """Bytes of what a box fetches on the day of this set: metadata, manifest, and each way to the archive."""


def publish(tree: Tree, ring: Ring, directory: Path, now: dt.datetime, clock_is_right: bool = False) -> Outcome:
    """Put the set in `directory` in force.

    Raises:
        RejectedInput: the set is not sound, or its number is not above the last one's; nothing was changed.
        KeysMissing: an online key is not in the ring; nothing is in force that was not before.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        last = tree.manifest(chain)
        manifest, text = read_manifest(directory)
        repeated = last is not None and chain.sig.signed.targets[MANIFEST].hashes == _target(MANIFEST, text).hashes
        left_out: list[int] = []
        if not repeated:
            _judge_number(manifest, last)
            checked = check(tree, directory, now)
            chain, left_out = _put(tree, ring, chain, checked, now), checked.left_out
        tell(tree, chain, now)
        pruning.prune(tree, chain, now)
    return Outcome(manifest.number, repeated, left_out, sizes(chain))


def sizes(chain: Chain) -> dict[str, int]:
    """Bytes of everything in force, by name."""
    found = {
        f"{role}.json": len(getattr(chain, role).to_bytes()) for role in ("timestamp", "snapshot", "sig", "targets")
    }
    return found | {path: target.length for path, target in chain.sig.signed.targets.items()}


def _judge_number(manifest: Manifest, last: Manifest | None) -> None:
    if last is not None and manifest.number <= last.number:
        raise RejectedInput(
            f"Set {manifest.number} cannot follow set {last.number}, which is published: numbers only grow.",
            "To go back, build the old content as a new set.",
        )


def _put(tree: Tree, ring: Ring, chain: Chain, checked: Checked, now: dt.datetime) -> Chain:
    listed = {path: _target(path, data) for path, data in checked.files.items()}
    for path, data in checked.files.items():
        tree.put(tree.target(listed[path]), data)
    sig = copy.deepcopy(chain.sig.signed)
    sig.targets = listed
    return advance(tree, ring, chain, now, sig=sig)


def _target(path: str, data: bytes) -> TargetFile:
    return TargetFile.from_data(path, data, ["sha256"])
