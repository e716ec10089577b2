"""Replaces all keys of a role: one was lost, stolen, or whoever held it left.

A box learns of new keys from the next root (or, for `sig`, the next targets), and takes what follows by the new keys
alone. While both the old and the new root are about, what is in force must satisfy both, or a crash between two files
would shut boxes out. So, with the old keys at hand, the role is first signed with old and new keys, and then the
root that names the new ones is put in place. `sig` needs no such step: its keys change with the snapshot, at once.

When a role's keys were stolen, whoever has them may have shown boxes versions far ahead of ours (fast-forward, TUF
1.0.34, 5.3.11). Boxes forget those when root replaces the keys of timestamp and of snapshot: rotate both then.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Targets

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import keys
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import DELEGATED, ROLES
from sekisho.signatures.depot.signing import advance, begin, keys_of, sign
from sekisho.signatures.depot.tree import Chain, Tree


def rotate(
    tree: Tree,
    ring: Ring,
    role: str,
    place: Path,
    now: dt.datetime,
    *,
    lost: bool = False,
    passphrase: bytes | None = None,
    clock_is_right: bool = False,
) -> list[str]:
    """Replace the keys of `role` by new ones made below `place`; returns the ids of the new ones.

    `lost`: there are not enough of the old keys left to sign with. After a crash in the middle boxes
    have no news until `renew` was run, which finishes it; they keep what they have.

    Raises:
        KeysMissing: keys of whoever must agree are not in the ring; nothing was put in force.
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
        if role != DELEGATED and not lost:
            ring.signers(role, *keys_of(chain.root, role))
        made = keys.make_role(role, place, passphrase)
        ring.hold(made)
        if role == DELEGATED:
            targets = copy.deepcopy(chain.targets.signed)
            _replace(targets, role, made)
            advance(tree, ring, chain, now, targets=targets, sig=copy.deepcopy(chain.sig.signed))
        else:
            _replace_top(tree, ring, chain, role, made, now, lost)
    return [keys.short(signer.public_key.keyid) for signer in made]


def _replace_top(
    tree: Tree, ring: Ring, chain: Chain, role: str, made: Sequence[CryptoSigner], now: dt.datetime, lost: bool
) -> None:
    following = copy.deepcopy(chain.root.signed)
    following.version += 1
    _replace(following, role, made)
    root = sign(ring, "root", following, [chain.root, Metadata(following)], now)
    path = tree.versioned(following.version, "root")
    if role == "root":
        tree.put(path, root.to_bytes())
        return
    roots = [root] if lost else [chain.root, root]
    if lost:
        tree.put(path, root.to_bytes())
    advance(
        tree,
        ring,
        replace(chain, root=root) if lost else chain,
        now,
        roots=roots,
        targets=copy.deepcopy(chain.targets.signed) if role == "targets" else None,
        snapshot=role == "snapshot",
    )
    tree.put(path, root.to_bytes())


def _replace(judge: Root | Targets, role: str, made: Sequence[CryptoSigner]) -> None:
    for keyid in list(judge.get_delegated_role(role).keyids):
        judge.revoke_key(keyid, role)
    for signer in made:
        judge.add_key(signer.public_key, role)
