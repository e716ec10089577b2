"""What people with the offline keys make: the next root, targets or offline delegation.

Needs no online key and changes nothing: it works on a copy of the repository, on a machine that was never on a
network, and gives files that `adopting` puts in force at the centre.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import keys
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import DELEGATED, FURTHER, PATHS, TERMS
from sekisho.signatures.depot.signing import begin, following, keys_of, sign
from sekisho.signatures.depot.tree import Chain, Tree


@dataclass(frozen=True)
class Made:
    """What a ceremony gave; new keys are at hand in the ring and in their files."""

    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    delegated: Mapping[str, Metadata[Targets]] = field(default_factory=dict)
    """Of the offline delegations."""
    contents: Mapping[str, Path] = field(default_factory=dict)
    """Files to be published with it, by their path as a target."""
    keys: tuple[str, ...] = ()
    """Begins of the new keys' ids."""

    def files(self) -> dict[str, bytes]:
        """By the names they have in the repository."""
        found: dict[str, bytes] = {}
        if self.root is not None:
            found[f"{self.root.signed.version}.root.json"] = self.root.to_bytes()
        if self.targets is not None:
            found[f"{self.targets.signed.version}.targets.json"] = self.targets.to_bytes()
        for role, signed in self.delegated.items():
            found[f"{signed.signed.version}.{role}.json"] = signed.to_bytes()
        return found

    def carried(self) -> dict[str, Path]:
        """Where the content of what is published is, by the name it goes by beside `files`."""
        listed = {path: file for signed in self.delegated.values() for path, file in signed.signed.targets.items()}
        return {carried_name(listed[path]): source for path, source in self.contents.items()}


def carried_name(target: TargetFile) -> str:
    """What the content of a target is called on its way to the centre."""
    return f"{target.hashes['sha256']}.{target.path.rsplit('/', 1)[-1]}"


def extend(tree: Tree, ring: Ring, role: str, now: dt.datetime, clock_is_right: bool = False) -> Made:
    """The next version of an offline role, the same with a new expiry.

    Raises:
        KeysMissing: fewer keys of the role are in the ring than it takes.
        RejectedInput: this repository has no such role.
        DeviceFault: the clock is not to be believed, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        if role == "root":
            return Made(root=_root(ring, chain, now))
        if role in FURTHER:
            return Made(delegated={role: _delegated(tree, ring, chain, role, now)})
        return Made(targets=_targets(tree, ring, chain, [chain.root], now))


def delegate(
    tree: Tree,
    ring: Ring,
    role: str,
    place: Path,
    now: dt.datetime,
    *,
    passphrase: bytes | None = None,
    clock_is_right: bool = False,
) -> Made:
    """Let new keys, made below `place`, sign for `role` of `FURTHER`; what it lists is empty at first.

    Raises:
        KeysMissing: keys of targets are not in the ring; no key was made.
        RejectedInput: the repository has that role already.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        if role in chain.delegated:
            raise RejectedInput(f"The repository has {role} already.", "To replace its keys: repository rotate.")
        ring.signers("targets", *keys_of(chain.root, "targets"))  # asked before new keys are made for nothing
        made = keys.make_role(role, place, passphrase)
        ring.hold(made)
        targets = copy.deepcopy(chain.targets.signed)
        if targets.delegations is None or targets.delegations.roles is None:
            raise RejectedInput("This repository delegates nothing; it was not made here.")
        targets.delegations.roles[role] = DelegatedRole(
            role, [], FURTHER[role].threshold, terminating=True, paths=PATHS[role]
        )
        for signer in made:
            targets.add_key(signer.public_key, role)
        signed = following(tree, ring, "targets", targets, [chain.root], now)
        first = following(tree, ring, role, Targets(), [signed], now)
        told = tuple(keys.short(signer.public_key.keyid) for signer in made)
        return Made(targets=signed, delegated={role: first}, keys=told)


def enlist(
    tree: Tree,
    ring: Ring,
    role: str,
    contents: Mapping[str, Path],
    drop: Callable[[str], bool],
    now: dt.datetime,
    clock_is_right: bool = False,
) -> Made:
    """The next list of an offline delegation: with these files, by their path as a target, and without some others.

    Raises:
        KeysMissing: fewer keys of the role are in the ring than it takes.
        RejectedInput: this repository has no such role, or a file cannot be read.
        DeviceFault: the clock is not to be believed, or the repository is damaged.

    """
    try:
        listed = {path: TargetFile.from_file(path, str(file), ["sha256"]) for path, file in contents.items()}
    except OSError as err:
        raise RejectedInput(f"Cannot read {err.filename}: {err.strerror}.") from err
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        return Made(delegated={role: _delegated(tree, ring, chain, role, now, listed, drop)}, contents=contents)


def replace(
    tree: Tree,
    ring: Ring,
    role: str,
    place: Path,
    now: dt.datetime,
    *,
    lost: bool = False,
    passphrase: bytes | None = None,
    clock_is_right: bool = False,
) -> Made:
    """Replace the keys of `role` by new ones made below `place`: one was lost, stolen, or its holder left.

    `lost`: there are not enough of the old keys left to sign with, and the new ones alone must do.

    Raises:
        KeysMissing: keys of whoever must agree are not in the ring; no key was made.
        RejectedInput: no such role, or root's own keys are lost: then boxes need a new root by hand.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    if role not in TERMS:
        raise RejectedInput(f"There is no role {role!r}.", f"Roles are: {', '.join(TERMS)}.")
    if role == "root" and lost:
        raise RejectedInput("Without two of root's keys no new root can be made that boxes believe.")
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        if role not in chain.roles:
            raise _no_such(role)
        judge = "targets" if role in PATHS else "root"
        ring.signers(judge, *keys_of(chain.root, judge))  # asked before new keys are made for nothing
        if role == "targets" and not lost:
            ring.signers(role, *keys_of(chain.root, role))
        made = keys.make_role(role, place, passphrase)
        ring.hold(made)
        told = tuple(keys.short(signer.public_key.keyid) for signer in made)
        if role in PATHS:
            targets = _targets(tree, ring, chain, [chain.root], now, role, made)
            new = dataclasses.replace(chain, targets=targets)
            again = {role: _delegated(tree, ring, new, role, now)} if role != DELEGATED else {}
            return Made(targets=targets, delegated=again, keys=told)
        root = _root(ring, chain, now, role, made)
        if role == "targets":
            judges = [root] if lost else [chain.root, root]
            return Made(root=root, targets=_targets(tree, ring, chain, judges, now), keys=told)
        return Made(root=root, keys=told)


def _root(
    ring: Ring, chain: Chain, now: dt.datetime, role: str = "", made: Sequence[CryptoSigner] = ()
) -> Metadata[Root]:
    root = copy.deepcopy(chain.root.signed)
    root.version += 1
    if role:
        _swap(root, role, made)
    return sign(ring, "root", root, [chain.root, Metadata(root)], now)


def _targets(
    tree: Tree,
    ring: Ring,
    chain: Chain,
    judges: Sequence[Metadata[Root]],
    now: dt.datetime,
    role: str = "",
    made: Sequence[CryptoSigner] = (),
) -> Metadata[Targets]:
    targets = copy.deepcopy(chain.targets.signed)
    if role:
        _swap(targets, role, made)
    return following(tree, ring, "targets", targets, judges, now)


def _delegated(
    tree: Tree,
    ring: Ring,
    chain: Chain,
    role: str,
    now: dt.datetime,
    listed: Mapping[str, TargetFile] | None = None,
    drop: Callable[[str], bool] = lambda path: False,
) -> Metadata[Targets]:
    if role not in chain.delegated:
        raise _no_such(role)
    signed = copy.deepcopy(chain.delegated[role].signed)
    signed.targets = {path: file for path, file in signed.targets.items() if not drop(path)} | dict(listed or {})
    return following(tree, ring, role, signed, [chain.targets], now)


def _no_such(role: str) -> RejectedInput:
    return RejectedInput(f"This repository has no {role} yet.", f"Run: sekisho signatures repository delegate {role}")


def _swap(judge: Root | Targets, role: str, made: Sequence[CryptoSigner]) -> None:
    for keyid in list(judge.get_delegated_role(role).keyids):
        judge.revoke_key(keyid, role)
    for signer in made:
        judge.add_key(signer.public_key, role)
