"""Removes what no box can need any more: a box in the middle of a refresh or of a slow download keeps its files.

A snapshot is needed for `GRACE` after its successor was written, and so is all it leads to. Of the archives the
newest `ARCHIVES` stay besides, because the next set's deltas are checked against them. Roots stay for ever: a box
that lay in a drawer for years climbs them one by one.
"""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Targets

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import sync_directory
from sekisho.signatures.depot.roles import DELEGATED, ROLES
from sekisho.signatures.depot.tree import Chain, Tree

GRACE: Final = ROLES["snapshot"].life
"""A snapshot older than this is refused by boxes anyway."""
ARCHIVES: Final = 32
_ARCHIVE: Final = re.compile(r"[0-9a-f]{64}\.(\d{1,16})\.tar\.zst")


def prune(tree: Tree, chain: Chain, now: dt.datetime) -> int:
    """Remove what is not needed; how many files that were. Whoever calls holds the lock.

    Raises:
        DeviceFault: the disk refuses it.

    """
    try:
        kept = _needed(tree, chain, now) | set(archives(tree)[-ARCHIVES:])
        named = [
            tree.versioned(version, role)
            for role in ("snapshot", "targets", *chain.delegated)
            for version in tree.versions(role)
            if version < chain.signed(role).version
        ]
        published = (path for path in tree.targets.rglob("*") if not path.is_dir())
        gone = [path for path in [*named, *published] if path not in kept]
        for path in gone:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in gone}:
            sync_directory(folder)
    except OSError as err:
        raise DeviceFault(f"Cannot clear out {tree.directory}: {err.strerror}.") from err
    return len(gone)


def archives(tree: Tree) -> list[Path]:
    """Archives that are on the disk, by the number of their set, ascending."""
    named = ((_ARCHIVE.fullmatch(path.name), path) for path in (tree.targets / DELEGATED).iterdir())
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def _needed(tree: Tree, chain: Chain, now: dt.datetime) -> set[Path]:
    kept: set[Path] = set()
    successor = None
    for version in reversed(tree.versions("snapshot")):
        path = tree.versioned(version, "snapshot")
        if successor is None or version >= chain.snapshot.signed.version or _age(successor, now) < GRACE:
            kept |= {path, *_led_to(tree, path)}
        successor = path
    return kept


def _led_to(tree: Tree, path: Path) -> set[Path]:
    try:
        meta = Metadata[Snapshot].from_bytes(path.read_bytes()).signed.meta
        found = {tree.versioned(told.version, name.removesuffix(".json")) for name, told in meta.items()}
        lists = [Metadata[Targets].from_bytes(path.read_bytes()).signed.targets.values() for path in found]
    except (RepositoryError, FileNotFoundError):
        return set()
    return found | {tree.target(target) for targets in lists for target in targets}


def _age(path: Path, now: dt.datetime) -> dt.timedelta:
    return now - dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
