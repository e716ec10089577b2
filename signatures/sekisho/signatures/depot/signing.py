"""Makes the next versions of roles, and puts them in force in the one order that is safe at every instant.

Everything is signed and verified in memory first. Then it is written from the leaves up: targets, what they delegate,
snapshot, and timestamp last, each durable before the next begins. Until timestamp.json is renamed nothing leads to
the new files; afterwards everything is there. Whoever calls holds the repository's lock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.roles import DELEGATED, ISSUED, TERMS
from sekisho.signatures.depot.tree import Chain, Tree

LEAP: Final = dt.timedelta(days=14)
"""A clock this far past the last signature is not believed unasked: what it signs would move every box's clock."""
_SLACK: Final = dt.timedelta(minutes=1)

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)


def begin(tree: Tree, now: dt.datetime, clock_is_right: bool = False) -> Chain:
    """What is in force, once this machine's clock is fit to sign what follows it.

    Raises:
        DeviceFault: the clock is behind the last signature or far ahead of it, or the repository is damaged.

    """
    chain = tree.chain()
    last = issued(chain)
    if now < last - _SLACK:
        raise DeviceFault(f"This machine's clock ({utc.text(now)}) is behind the last signature ({utc.text(last)}).")
    if now > last + LEAP and not clock_is_right:
        raise DeviceFault(
            f"The last signature is {(now - last).days} days old, if this machine's clock ({utc.text(now)}) is right.",
            "Boxes would believe that time for ever. Look at a watch, then run it again with --clock-is-right.",
        )
    return chain


def issued(chain: Chain) -> dt.datetime:
    """When the timestamp in force was signed."""
    return dt.datetime.fromisoformat(str(chain.timestamp.signed.unrecognized_fields[ISSUED]))


def advance(
    tree: Tree,
    ring: Ring,
    chain: Chain,
    now: dt.datetime,
    *,
    roots: Sequence[Metadata[Root]] = (),
    targets: Metadata[Targets] | None = None,
    sig: Targets | None = None,
    delegated: Mapping[str, Metadata[Targets]] | None = None,
    snapshot: bool = False,
) -> Chain:
    """Put a new timestamp in force, with whatever else is given; `roots` are those that must all accept it.

    `targets` and `delegated` are signed already: their keys may be elsewhere.

    Raises:
        KeysMissing: nothing was written.
        DeviceFault: the disk refused something; what was in force still is.

    """
    roots = roots or (chain.root,)
    files: list[tuple[str, Metadata[Targets] | Metadata[Snapshot]]] = []
    if targets is not None:
        for root in roots:
            root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        chain = replace(chain, targets=targets)
        files.append(("targets", targets))
    if sig is not None:
        made = following(tree, ring, DELEGATED, sig, (chain.targets,), now)
        delegated = {**(delegated or {}), DELEGATED: made}
    if delegated:
        chain = replace(chain, delegated={**chain.delegated, **delegated})
        files += delegated.items()
    for role, found in chain.delegated.items():
        chain.targets.signed.verify_delegate(role, found.signed_bytes, found.signatures)
    if files or snapshot:
        listed = Snapshot(meta={"targets.json": _meta(chain.targets)})
        listed.meta |= {f"{role}.json": _meta(found) for role, found in chain.delegated.items()}
        chain = replace(chain, snapshot=following(tree, ring, "snapshot", listed, roots, now))
        files.append(("snapshot", chain.snapshot))
    beat = Timestamp(snapshot_meta=_meta(chain.snapshot), unrecognized_fields={ISSUED: utc.text(now)})
    beat.version = chain.timestamp.signed.version + 1
    chain = replace(chain, timestamp=sign(ring, "timestamp", beat, roots, now))
    for role, metadata in files:
        tree.put(tree.versioned(metadata.signed.version, role), metadata.to_bytes())
    tree.put(tree.metadata / "timestamp.json", chain.timestamp.to_bytes())
    return chain


def sign(
    ring: Ring,
    role: str,
    signed: T,
    judges: Sequence[Metadata[Root]] | Sequence[Metadata[Targets]],
    now: dt.datetime,
) -> Metadata[T]:
    """`signed` with a fresh expiry and as many signatures as every judge asks for, and no more.

    Raises:
        KeysMissing: the ring has not enough of a judge's keys.

    """
    signed.expires = (now + TERMS[role].life).replace(microsecond=0)
    metadata = Metadata(signed)
    for judge in judges:
        for signer in ring.signers(role, *keys_of(judge, role)):
            metadata.sign(signer, append=True)
    for judge in judges:
        judge.signed.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    return metadata


def keys_of(judge: Metadata[Root] | Metadata[Targets], role: str) -> tuple[list[Key], int]:
    """The keys that `judge` lets sign `role`, and how many of them it takes."""
    terms = judge.signed.get_delegated_role(role)
    return [judge.signed.get_key(keyid) for keyid in terms.keyids], terms.threshold


def following(
    tree: Tree,
    ring: Ring,
    role: str,
    signed: T,
    judges: Sequence[Metadata[Root]] | Sequence[Metadata[Targets]],
    now: dt.datetime,
) -> Metadata[T]:
    """`sign`, as a version that was never used before."""
    signed.version = max([*tree.versions(role), 0]) + 1
    return sign(ring, role, signed, judges, now)


def _meta(metadata: Metadata[T]) -> MetaFile:
    return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])
