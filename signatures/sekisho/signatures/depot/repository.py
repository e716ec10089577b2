"""Makes a repository, and keeps what it signed from expiring."""

from __future__ import annotations

import copy
import datetime as dt
from pathlib import Path

from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.metadata import Role as TufRole

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures.depot import keys, pruning
from sekisho.signatures.depot.announced import tell
from sekisho.signatures.depot.keys import KeysMissing, Ring
from sekisho.signatures.depot.roles import DELEGATED, FURTHER, PATHS, ROLES, TERMS
from sekisho.signatures.depot.signing import advance, begin, following, sign
from sekisho.signatures.depot.tree import Chain, Tree


def init(tree: Tree, place: Path, now: dt.datetime, passphrase: bytes | None = None) -> Ring:
    """Make all keys below `place` and an empty repository signed by them.

    Raises:
        RejectedInput: there is a repository or are keys already; neither is ever overwritten.
        DeviceFault: the disk refuses it.

    """
    if (tree.metadata / "1.root.json").exists():
        raise RejectedInput(f"There is a repository in {tree.directory} already.")
    if place.is_dir() and any(place.rglob("*.pem")):
        raise RejectedInput(f"There are keys in {place} already.", "Choose an empty directory for new ones.")
    try:
        for folder in (tree.directory, tree.metadata, tree.targets, tree.targets / DELEGATED):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as err:
        raise DeviceFault(f"Cannot make {tree.directory}: {err.strerror}.") from err
    with tree.locked():
        ring = Ring([place])
        made = {role: keys.make_role(role, place, passphrase) for role in ROLES}
        for signers in made.values():
            ring.hold(signers)
        public = {role: [signer.public_key for signer in signers] for role, signers in made.items()}
        top = [role for role in ROLES if role != DELEGATED]
        root = Root(
            version=1,
            keys={key.keyid: key for role in top for key in public[role]},
            roles={role: TufRole([key.keyid for key in public[role]], ROLES[role].threshold) for role in top},
            consistent_snapshot=True,
        )
        delegated = DelegatedRole(
            DELEGATED,
            [key.keyid for key in public[DELEGATED]],
            ROLES[DELEGATED].threshold,
            terminating=True,
            paths=PATHS[DELEGATED],
        )
        targets = Targets(
            delegations=Delegations({key.keyid: key for key in public[DELEGATED]}, {DELEGATED: delegated})
        )
        first = Metadata(root)
        signed = sign(ring, "root", root, [first], now)
        tree.put(tree.versioned(1, "root"), signed.to_bytes())
        empty = Chain(signed, Metadata(Timestamp()), Metadata(Snapshot()), Metadata(targets), {})
        second = following(tree, ring, "targets", targets, [signed], now)
        tell(tree, advance(tree, ring, empty, now, targets=second, sig=Targets()), now)
    return ring


def renew(tree: Tree, ring: Ring, now: dt.datetime, clock_is_right: bool = False) -> list[str]:
    """Sign again what is due, and say which roles that were; does nothing when nothing is.

    Offline roles are signed when their keys are in the ring, and passed over when they are not.

    Raises:
        KeysMissing: an online role is due and its key is not in the ring.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    with tree.locked():
        chain = begin(tree, now, clock_is_right)
        done = due(chain, now)
        if "root" in done:
            renewed = copy.deepcopy(chain.root.signed)
            renewed.version += 1
            try:
                root = sign(ring, "root", renewed, [chain.root], now)
                tree.put(tree.versioned(renewed.version, "root"), root.to_bytes())
            except KeysMissing:
                done.remove("root")
        targets = None
        if "targets" in done:
            try:
                targets = following(tree, ring, "targets", copy.deepcopy(chain.targets.signed), [chain.root], now)
            except KeysMissing:
                done.remove("targets")
        delegated: dict[str, Metadata[Targets]] = {}
        for role in [role for role in done if role in FURTHER]:
            judge = targets or chain.targets
            try:
                delegated[role] = following(tree, ring, role, copy.deepcopy(chain.delegated[role].signed), [judge], now)
            except KeysMissing:
                done.remove(role)
        if set(done) - {"root"}:
            chain = advance(
                tree,
                ring,
                tree.chain(),
                now,
                targets=targets,
                sig=copy.deepcopy(chain.sig.signed) if DELEGATED in done else None,
                delegated=delegated,
                snapshot="snapshot" in done,
            )
        tell(tree, chain, now)
        pruning.prune(tree, chain, now)
    return done


def due(chain: Chain, now: dt.datetime) -> list[str]:
    """Roles that are old enough to be signed again."""
    found = []
    for role in chain.roles:
        terms = TERMS[role]
        signed_at = chain.signed(role).expires - terms.life
        if role in chain.orphans or now >= signed_at + terms.renewed_after:
            found.append(role)
    return found
