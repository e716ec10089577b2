"""What people with the offline keys make: the next root or targets, the same for longer or with other keys.

Needs no online key and changes nothing: it works on a copy of the repository, on a machine that was never on a
network, and gives files that `adopting` puts in force at the centre.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import keys
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import DELEGATED, ROLES
from sekisho.signatures.depot.signing import begin, following, keys_of, sign
from sekisho.signatures.depot.tree import Chain, Tree


@dataclass(frozen=True)
class Made:
    """What a ceremony gave; new keys are at hand in the ring and in their files."""

    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    keys: tuple[str, ...] = ()
    """Begins of the new keys' ids."""

    def files(self) -> dict[str, bytes]:
        """By the names they have in the repository."""
        found: dict[str, bytes] = {}
        if self.root is not None:
            found[f"{self.root.signed.version}.root.json"] = self.root.to_bytes()
        if self.targets is not None:
            found[f"{self.targets.signed.version}.targets.json"] = self.targets.to_bytes()
        return found


def extend(tree: Tree, ring: Ring, role: str, now: dt.datetime, clock_is_right: bool = False) -> Made:
    """The next root or targets, the same with a new expiry.

    Raises:
        KeysMissing: fewer keys of the role are in the ring than it takes.
        DeviceFault: the clock is not to be believed, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        if role == "root":
            return Made(root=_root(ring, chain, now))
        return Made(targets=_targets(tree, ring, chain, [chain.root], now))


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
    if role not in ROLES:
        raise RejectedInput(f"There is no role {role!r}.", f"Roles are: {', '.join(ROLES)}.")
    if role == "root" and lost:
        raise RejectedInput("Without two of root's keys no new root can be made that boxes believe.")
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        judge = "targets" if role == DELEGATED else "root"
        ring.signers(judge, *keys_of(chain.root, judge))  # asked before new keys are made for nothing
        if role == "targets" and not lost:
            ring.signers(role, *keys_of(chain.root, role))
        made = keys.make_role(role, place, passphrase)
        ring.hold(made)
        told = tuple(keys.short(signer.public_key.keyid) for signer in made)
        if role == DELEGATED:
            return Made(targets=_targets(tree, ring, chain, [chain.root], now, made), keys=told)
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
    made: Sequence[CryptoSigner] = (),
) -> Metadata[Targets]:
    targets = copy.deepcopy(chain.targets.signed)
    if made:
        _swap(targets, DELEGATED, made)
    return following(tree, ring, "targets", targets, judges, now)


def _swap(judge: Root | Targets, role: str, made: Sequence[CryptoSigner]) -> None:
    for keyid in list(judge.get_delegated_role(role).keyids):
        judge.revoke_key(keyid, role)
    for signer in made:
        judge.add_key(signer.public_key, role)
