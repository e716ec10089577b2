"""Replaces all keys of a role in one go, where the keys of everybody who must agree are at hand."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from sekisho.signatures.depot.adopting import adopt
from sekisho.signatures.depot.ceremony import replace
from sekisho.signatures.depot.keys import Ring
from sekisho.signatures.depot.tree import Tree


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
    """Make new keys below `place`, put them in force, and return the begins of their ids.

    Raises:
        KeysMissing: keys of whoever must agree are not in the ring; nothing is in force that was not before.
        RejectedInput: no such role, or root's own keys are lost.
        DeviceFault: the clock is not to be believed, the disk refuses, or the repository is damaged.

    """
    made = replace(tree, ring, role, place, now, lost=lost, passphrase=passphrase, clock_is_right=clock_is_right)
    adopt(tree, ring, made, now, lost=lost, clock_is_right=clock_is_right)
    return list(made.keys)
