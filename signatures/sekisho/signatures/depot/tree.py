"""The repository's directory, as it is served, and what in it is in force.

    metadata/VERSION.ROLE.json       every role but timestamp: never changed once written (consistent snapshots)
    metadata/timestamp.json          the one file that is replaced: whoever has it finds all others
    targets/FOLDER/SHA256.NAME       what is published
    published.json                   `Published`: the newest set's number, for who announces it; not served

In force is what timestamp.json leads to, verified from the first root on; a file that nothing leads to is a leftover
of a publication that was cut short, and is harmless. Versions are never used twice, not even those of leftovers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import sync_directory, write_atomic
from sekisho.signatures.depot.roles import DELEGATED, PATHS
from sekisho.signatures.published import MANIFEST, Manifest

PUBLIC: Final = 0o644
_VERSIONED: Final = re.compile(rf"(\d{{1,15}})\.(root|targets|snapshot|{'|'.join(PATHS)})\.json")
_COPY_BYTES: Final = 1 << 20


class Published(msgspec.Struct, frozen=True):
    """`published.json`."""

    number: int
    """Of the newest set; 0: none yet."""
    at: str
    """When it was published (UTC, RFC 3339)."""


@dataclass(frozen=True)
class Chain:
    """What is in force, each verified by what leads to it. Expiry is not judged here."""

    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    delegated: Mapping[str, Metadata[Targets]]
    orphans: frozenset[str] = frozenset()
    """Roles whose keys the newest root replaced, and that were not signed again: a rotation was cut short."""

    @property
    def sig(self) -> Metadata[Targets]:
        """What lists the sets."""
        return self.delegated[DELEGATED]

    @property
    def roles(self) -> list[str]:
        """Those that this repository has."""
        return ["root", "targets", *self.delegated, "snapshot", "timestamp"]

    def signed(self, role: str) -> Signed:
        found: Signed = (self.delegated[role] if role in self.delegated else getattr(self, role)).signed
        return found


class Tree:
    """One repository's files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metadata = directory / "metadata"
        self.targets = directory / "targets"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the repository; waits for another that is at it.

        Raises:
            DeviceFault: the directory is not there or not writable.

        """
        try:
            fd = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise DeviceFault(
                f"{self.directory}: {err.strerror}.", "Is it the repository, and may you write it?"
            ) from err
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def put(self, path: Path, data: bytes) -> None:
        """Write a file that all may read, whole or not at all, on the disk at return; the same content is left alone.

        Raises:
            DeviceFault: the disk refuses it.

        """
        try:
            if path.is_file() and path.read_bytes() == data:
                return
            write_atomic(path, data, PUBLIC)
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space and run the command again.") from err

    def take(self, target: TargetFile, source: Path) -> None:
        """Put a published file in place from `source`, compared with what was signed on the way.

        Raises:
            RejectedInput: it is not there, or not what was signed.
            DeviceFault: the disk refuses it.

        """
        path = self.target(target)
        aside = path.with_name(f".{path.name}.tmp")
        digest = hashlib.sha256()
        try:
            with source.open("rb") as given:
                for folder in (path.parent.parent, path.parent):
                    folder.mkdir(mode=0o755, exist_ok=True)
                with aside.open("wb") as out:
                    left = target.length + 1
                    while left > 0 and (chunk := given.read(min(_COPY_BYTES, left))):
                        digest.update(chunk)
                        out.write(chunk)
                        left -= len(chunk)
                    out.flush()
                    os.fsync(out.fileno())
            if left != 1 or digest.hexdigest() != target.hashes["sha256"]:
                raise RejectedInput(f"{source} is not the {target.path} that was signed.")
            aside.chmod(PUBLIC)
            aside.replace(path)
            sync_directory(path.parent)
        except FileNotFoundError as err:
            raise RejectedInput(f"{source} is missing.", "Bring it with what was signed.") from err
        except OSError as err:
            raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space and run the command again.") from err
        finally:
            aside.unlink(missing_ok=True)

    def versioned(self, version: int, role: str) -> Path:
        return self.metadata / f"{version}.{role}.json"

    def target(self, target: TargetFile) -> Path:
        """Where the content of a target is."""
        folder, name = target.path.rsplit("/", 1)
        return self.targets / folder / f"{target.hashes['sha256']}.{name}"

    def versions(self, role: str) -> list[int]:
        """Every version of `role` that is on the disk, ascending."""
        named = (_VERSIONED.fullmatch(path.name) for path in self.metadata.iterdir())
        return sorted(int(match[1]) for match in named if match and match[2] == role)

    def chain(self) -> Chain:
        """What is in force.

        Raises:
            DeviceFault: there is no repository, or it is damaged: a box would not take it either.

        """
        if not (self.metadata / "timestamp.json").is_file():
            raise DeviceFault(
                f"{self.directory} is not a complete repository.", "Make one: sekisho signatures repository init"
            )
        try:
            return self._chain()
        except (RepositoryError, OSError, KeyError, ValueError) as err:
            raise DeviceFault(
                f"The repository in {self.directory} is damaged: {err}.",
                "Put it back from a backup, then publish again.",
            ) from err

    def manifest(self, chain: Chain) -> Manifest | None:
        """The newest published set's; None when there is none yet.

        Raises:
            DeviceFault: its file is damaged.

        """
        target = chain.sig.signed.targets.get(MANIFEST)
        if target is None:
            return None
        try:
            data = self.target(target).read_bytes()
            target.verify_length_and_hashes(data)
            return msgspec.json.decode(data, type=Manifest)
        except (RepositoryError, OSError, msgspec.DecodeError) as err:
            raise DeviceFault(f"The repository in {self.directory} is damaged: {MANIFEST}: {err}.") from err

    def _chain(self) -> Chain:
        roots = [Metadata[Root].from_bytes(self.versioned(1, "root").read_bytes())]
        roots[0].signed.verify_delegate("root", roots[0].signed_bytes, roots[0].signatures)
        while (path := self.versioned(roots[-1].signed.version + 1, "root")).is_file():
            later = Metadata[Root].from_bytes(path.read_bytes())
            for judge in (roots[-1], later):
                judge.signed.verify_delegate("root", later.signed_bytes, later.signatures)
            roots.append(later)
        timestamp = Metadata[Timestamp].from_bytes((self.metadata / "timestamp.json").read_bytes())
        snapshot = Metadata[Snapshot].from_bytes(self._named("snapshot", timestamp.signed.snapshot_meta))
        targets = Metadata[Targets].from_bytes(self._named("targets", snapshot.signed.meta["targets.json"]))
        roles = targets.signed.delegations.roles if targets.signed.delegations else None
        delegated = {
            role: Metadata[Targets].from_bytes(self._named(role, snapshot.signed.meta[f"{role}.json"]))
            for role in roles or ()
        }
        orphans = {
            role
            for role, found in (("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets))
            if _orphaned(roots, role, found)
        }
        for role, signed in delegated.items():
            targets.signed.verify_delegate(role, signed.signed_bytes, signed.signatures)
        return Chain(roots[-1], timestamp, snapshot, targets, delegated, frozenset(orphans))

    def _named(self, role: str, told: MetaFile) -> bytes:
        data = self.versioned(told.version, role).read_bytes()
        told.verify_length_and_hashes(data)
        return data


def _orphaned(
    roots: list[Metadata[Root]], role: str, found: Metadata[Timestamp] | Metadata[Snapshot] | Metadata[Targets]
) -> bool:
    """Whether only the root before the newest vouches for it.

    Raises:
        UnsignedMetadataError: neither does.

    """
    try:
        roots[-1].signed.verify_delegate(role, found.signed_bytes, found.signatures)
    except UnsignedMetadataError:
        if len(roots) == 1:
            raise
        roots[-2].signed.verify_delegate(role, found.signed_bytes, found.signatures)
        return True
    return False
