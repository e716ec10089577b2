"""Puts in force what a ceremony made, with the online keys.

A box learns of new keys from the next root (for `sig`, the next targets), and takes what follows by the new keys
alone. While both the old and the new root are about, what is in force must satisfy both, or a crash between two files
would shut boxes out. So the role is first signed with old and new keys, and then the root that names the new ones is
put in place. `sig` needs no such step: its keys change with the snapshot, at once.

When keys were stolen, whoever has them may have shown boxes versions far ahead of ours (fast-forward, TUF 1.0.34,
5.3.11). Boxes forget those when root replaces the keys of timestamp and of snapshot: replace both then.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.depot import pruning
from sekisho.signatures.depot.announced import tell
from sekisho.signatures.depot.ceremony import Made, carried_name
from sekisho.signatures.depot.files import read
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import DELEGATED, FURTHER
from sekisho.signatures.depot.signing import advance, begin, keys_of
from sekisho.signatures.depot.tree import Chain, Tree

_CAP: Final = 512_000
"""Bytes of one file; what boxes allow a root."""


def load(paths: Sequence[Path]) -> Made:
    """The files of one ceremony, not judged yet.

    Raises:
        RejectedInput: not one file of each role at most, or not of the form.

    """
    root: Metadata[Root] | None = None
    lists: dict[str, Metadata[Targets]] = {}
    contents: dict[str, Path] = {}
    for path in paths:
        data = read(path, _CAP)
        try:
            kind = Metadata.from_bytes(data).signed.type
        except RepositoryError as err:
            raise RejectedInput(f"{path} is not signed metadata: {err}.") from err
        role = path.name.split(".")[1] if path.name.count(".") == 2 else ""
        if kind == Root.type and root is None:
            root = Metadata[Root].from_bytes(data)
        elif kind == Targets.type and role in ("targets", *FURTHER) and role not in lists:
            lists[role] = Metadata[Targets].from_bytes(data)
            for name, target in lists[role].signed.targets.items():
                contents[name] = path.with_name(carried_name(target))
        else:
            raise RejectedInput(f"{path} is not wanted.", "Name one N.ROLE.json of each role that was signed.")
    return Made(root, lists.pop("targets", None), lists, contents)


def adopt(
    tree: Tree, ring: Ring, made: Made, now: dt.datetime, *, lost: bool = False, clock_is_right: bool = False
) -> None:
    """Put it in force.

    `lost`: old online keys that the new root replaces are gone. After a crash in the middle boxes then have no news
    until `renew` was run, which finishes it; they keep what they have.

    Raises:
        RejectedInput: not signed by enough, not the next version, expired, or one file without the other.
        KeysMissing: an online key, old or new, is not in the ring; nothing was changed.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        try:
            _judge(chain, made, now)
            chain = _put(tree, ring, chain, made, now, lost)
        except RepositoryError as err:
            raise RejectedInput(f"This cannot be put in force: {err}.", "Sign it again, on a fresh copy.") from err
        tell(tree, chain, now)
        pruning.prune(tree, chain, now)


def _judge(chain: Chain, made: Made, now: dt.datetime) -> None:
    root = made.root
    if root is not None:
        if root.signed.version != chain.root.signed.version + 1:
            raise RejectedInput(f"Root {chain.root.signed.version} is in force; {root.signed.version} cannot be next.")
        for judge in (chain.root, root):
            judge.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    lists = dict(made.delegated) if made.targets is None else {"targets": made.targets, **made.delegated}
    for role, found in lists.items():
        last = chain.signed(role).version if role in chain.roles else 0
        if found.signed.version <= last:
            raise RejectedInput(f"{role} {last} is in force already.", "Sign it again, on a fresh copy.")
    delegations = (made.targets or chain.targets).signed.delegations
    if set(delegations.roles or () if delegations else ()) != {*chain.delegated, *made.delegated}:
        raise RejectedInput("What targets delegates and what was brought do not belong together.")
    for metadata in (root, *lists.values()):
        if metadata is not None and metadata.signed.expires <= now:
            raise RejectedInput("What was signed has expired since.", "Sign it again.")


def _put(tree: Tree, ring: Ring, chain: Chain, made: Made, now: dt.datetime, lost: bool) -> Chain:
    root = made.root or chain.root
    targets = made.targets or chain.targets
    roots = [root] if lost or root is chain.root else [chain.root, root]
    for judge in roots:
        judge.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
    for role, found in made.delegated.items():
        targets.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        for name, target in found.signed.targets.items():
            if not tree.target(target).is_file():
                tree.take(target, made.contents.get(name, Path(name)))
    path = tree.versioned(root.signed.version, "root")
    changed = {role for role in ("snapshot", "timestamp") if _ids(chain.root, role) != _ids(root, role)}
    sets_changed = _ids(chain.targets, DELEGATED) != _ids(targets, DELEGATED)
    if lost:
        for role in changed:
            ring.signers(role, *keys_of(root, role))  # asked before boxes need them
        tree.put(path, root.to_bytes())
        chain = replace(chain, root=root)
    if changed or made.targets is not None or made.delegated:
        chain = advance(
            tree,
            ring,
            chain,
            now,
            roots=roots,
            targets=made.targets,
            sig=copy.deepcopy(chain.sig.signed) if sets_changed else None,
            delegated=made.delegated,
            snapshot="snapshot" in changed,
        )
    tree.put(path, root.to_bytes())
    return replace(chain, root=root)


def _ids(judge: Metadata[Root] | Metadata[Targets], role: str) -> set[str]:
    return set(judge.signed.get_delegated_role(role).keyids)
