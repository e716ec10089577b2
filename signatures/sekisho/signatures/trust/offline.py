"""Judges what somebody hands over as proof that a role lists a file: without a network, a clock or files of its own.

For whoever must not believe the process that asked the channel: it hands over what it was shown, and all signatures
are verified again, from the root that the box was made with. Whether this is the newest there is cannot be told from
it, nor is expiry judged: that was the matter of `Trust`, and the caller keeps floors of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from sekisho.signatures.trust.chain import translated
from sekisho.signatures.trust.faults import ChannelRefused, ChannelUnfit
from sekisho.signatures.trust.floors import VERSION_CAP

ROOTS_CAP: Final = 256
"""As many changes of root as python-tuf follows."""
S = TypeVar("S", Root, Targets)


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Metadata files as they were served; believed for nothing but their signatures."""

    roots: Annotated[list[bytes], msgspec.Meta(max_length=ROOTS_CAP)]
    """Ascending; those up to the version the box was made with are passed over."""
    targets: bytes
    role: bytes
    """Of the delegated role."""


@dataclass(frozen=True)
class Listed:
    """A file that the role lists, and the versions of those above it. `file` verifies content."""

    root: int
    targets: int
    file: TargetFile


def listed(trusted: bytes, evidence: Evidence, role: str, path: str) -> Listed:
    """What `role`, a delegation of `targets`, lists under `path`.

    Args:
        trusted: TUF root metadata that came with the box.
        evidence: of any size and content; the caller caps its bytes.
        role: the delegation that may sign for `path`; no other counts, nor `targets` itself.
        path: of the target.

    Raises:
        ChannelRefused: `forged` where a signature is missing, or the role may not list that path; `missing`.
        ChannelUnfit: `bad_root`.

    """
    try:
        root = _read(trusted, Root)
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except Exception as err:
        raise ChannelUnfit(
            "bad_root", f"What this box was given to trust is no TUF root: {err}.", "See signatures.root."
        ) from err
    try:
        return _listed(root, evidence, role, path)
    except Exception as err:  # whatever a hostile file makes python-tuf raise: it is refused
        raise translated(err) from err


def _listed(root: Metadata[Root], evidence: Evidence, role: str, path: str) -> Listed:
    for data in evidence.roots:
        newer = _read(data, Root)
        if newer.signed.version <= root.signed.version:
            continue
        if newer.signed.version != root.signed.version + 1:
            raise ValueError(f"root {newer.signed.version} does not follow {root.signed.version}")
        for judge in (root, newer):
            judge.signed.verify_delegate(Root.type, newer.signed_bytes, newer.signatures)
        root = newer
    targets = _read(evidence.targets, Targets)
    root.signed.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
    found = _read(evidence.role, Targets)
    targets.signed.verify_delegate(role, found.signed_bytes, found.signatures)
    terms = targets.signed.get_delegated_role(role)
    if not (isinstance(terms, DelegatedRole) and terms.is_delegated_path(path)):
        raise ValueError(f"{role} may not sign {path}")
    if targets.signed.version >= VERSION_CAP:
        raise ValueError("version numbers that no honest channel has")
    info = found.signed.targets.get(path)
    if info is None:
        raise ChannelRefused("missing", f"The channel has no {path[:200]}.")
    return Listed(root.signed.version, targets.signed.version, info)


def _read(data: bytes, kind: type[S]) -> Metadata[S]:
    made: Metadata[Any] = Metadata.from_bytes(data)
    if not isinstance(made.signed, kind):
        raise ValueError(f"{made.signed.type} where {kind.type} must be")
    return made
