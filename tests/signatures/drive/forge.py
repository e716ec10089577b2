"""A repository in memory whose every key is at hand: what an honest one publishes, and what a thief could.

forge.release("sig")       one more version of a role, and of what tells of it (snapshot, timestamp)
forge.snapshot.version = 1 ; forge.sign("snapshot")      anything else
copy.deepcopy(forge)       the state of this moment, to go on from or to offer again
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from sekisho.signatures.depot.roles import ISSUED, ROLES
from sekisho.signatures.published import MANIFEST, Manifest
from sekisho.signatures.trust import ChannelDown, Reply
from sekisho.signatures.trust.source import too_large

START = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)
_MADE: dict[str, list[CryptoSigner]] = {}


def signers(role: str) -> list[CryptoSigner]:
    """The first keys of a role, made once: what differs between tests is never the first key."""
    if role not in _MADE:
        _MADE[role] = [CryptoSigner.generate_ed25519() for _ in range(ROLES[role].keys)]
    return list(_MADE[role])


class Forge:
    """Times move only by `now`."""

    def __init__(self, now: dt.datetime = START) -> None:
        self.now = now
        self.keys = {role: signers(role) for role in ROLES}
        self.files: dict[str, bytes] = {}
        self.hashes = True
        """Whether snapshot and timestamp tell lengths and hashes of what they name."""
        self.root = Root(expires=now, consistent_snapshot=True)
        for role in ("root", "targets", "snapshot", "timestamp"):
            for signer in self.keys[role]:
                self.root.add_key(signer.public_key, role)
            self.root.roles[role].threshold = ROLES[role].threshold
        public: dict[str, Key] = {signer.public_key.keyid: signer.public_key for signer in self.keys["sig"]}
        rule = DelegatedRole("sig", list(public), ROLES["sig"].threshold, True, ["sig/*"])
        self.targets = Targets(expires=now, delegations=Delegations(public, {"sig": rule}))
        self.sig = Targets(expires=now)
        self.snapshot = Snapshot(expires=now, meta={})
        self.timestamp = Timestamp(expires=now, snapshot_meta=MetaFile(1))
        self.put_set(1)
        for role in ("root", "targets", "sig", "snapshot", "timestamp"):
            self.sign(role)
        self.trusted = self.files["metadata/1.root.json"]

    def signed(self, role: str) -> Any:
        return getattr(self, role)

    def put_set(self, number: int, **changed: Any) -> None:
        """A manifest of this number; `sig` is to be signed then."""
        manifest = Manifest(
            number=number,
            built=f"{self.now:%Y-%m-%dT%H:%M:%SZ}",
            sha256="0" * 64,
            length=1000,
            path=f"sig/{number}.tar.zst",
            packed=100,
            rules=10,
            yara=1,
        )
        self.put_target(self.sig, MANIFEST, msgspec.json.encode(msgspec.structs.replace(manifest, **changed)))

    def put_target(self, role: Targets, path: str, data: bytes) -> None:
        role.targets[path] = TargetFile.from_data(path, data)
        folder, name = path.rsplit("/", 1)
        self.files[f"targets/{folder}/{hashlib.sha256(data).hexdigest()}.{name}"] = data

    def sign(self, role: str, by: Sequence[CryptoSigner] | None = None, renew: bool = True) -> bytes:
        """Sign a role as it is now, put it up, and tell what names it; returns the file."""
        signed = self.signed(role)
        if renew:
            signed.expires = self.now.replace(microsecond=0) + ROLES[role].life
        if role == "timestamp":
            signed.unrecognized_fields[ISSUED] = f"{self.now:%Y-%m-%dT%H:%M:%SZ}"
        document = Metadata(signed)
        for signer in self.keys[role] if by is None else by:
            document.sign(signer, append=True)
        data = document.to_bytes()
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        self.files[f"metadata/{name}"] = data
        told = {"length": len(data), "hashes": {"sha256": hashlib.sha256(data).hexdigest()}} if self.hashes else {}
        if role in ("targets", "sig"):
            self.snapshot.meta[f"{role}.json"] = MetaFile(signed.version, **told)  # type: ignore[arg-type]
        elif role == "snapshot":
            self.timestamp.snapshot_meta = MetaFile(signed.version, **told)  # type: ignore[arg-type]
        return data

    def release(self, *roles: str) -> None:
        """One more version of these and of what tells of them."""
        wanted = {"timestamp", *roles} | ({"snapshot"} if {"targets", "sig"} & set(roles) else set())
        for role in ("root", "targets", "sig", "snapshot", "timestamp"):
            if role in wanted:
                self.signed(role).version += 1
                self.sign(role)

    def replace_keys(self, role: str) -> list[CryptoSigner]:
        """New keys for a role; who names them is to be released then. Returns the old ones."""
        old = self.keys[role]
        new = [CryptoSigner.generate_ed25519() for _ in old]
        judge = self.targets if role == "sig" else self.root
        for keyid in list(judge.get_delegated_role(role).keyids):
            judge.revoke_key(keyid, role)
        for signer in new:
            judge.add_key(signer.public_key, role)
        self.keys[role] = new
        if role == "root":  # both may sign the change
            self.keys[role] = new + old
        return old

    def copy(self) -> Forge:
        keys = self.keys
        self.keys = {}
        made = copy.deepcopy(self)
        self.keys = keys
        made.keys = {role: list(held) for role, held in keys.items()}
        return made


class Memory:
    """Serves a forge's files; what it is asked for is kept."""

    metadata, targets = "memory://here/metadata/", "memory://here/targets/"

    def __init__(self, forge: Forge) -> None:
        self.forge = forge
        self.asked: list[str] = []

    @contextmanager
    def read(self, url: str, cap: int, *, start: int = 0, etag: str = "", bulk: bool = False) -> Iterator[Reply]:
        name = url.removeprefix("memory://here/")
        self.asked.append(name)
        data = self.forge.files.get(name)
        if data is None:
            raise ChannelDown("unreachable", f"{name} is not there.", status=404)
        if len(data) > cap:
            raise too_large(url, cap)
        yield Reply(start, len(data), "", iter([data[start:]]))
