"""Who may sign what, how many of them it takes, and for how long it holds (TUF 1.0.34, section 2.1)."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """One role's terms."""

    keys: int
    threshold: int
    life: dt.timedelta
    offline: bool
    """Its keys are on sticks in drawers; people bring them together to sign."""
    renewed_after: dt.timedelta
    """Age at which it is signed again: early enough that the centre may be down for the rest of its life."""


ROLES: Final = {
    "root": Role(keys=3, threshold=2, life=dt.timedelta(days=365), offline=True, renewed_after=dt.timedelta(days=180)),
    "targets": Role(keys=3, threshold=2, life=dt.timedelta(days=90), offline=True, renewed_after=dt.timedelta(days=45)),
    "sig": Role(keys=2, threshold=1, life=dt.timedelta(days=7), offline=False, renewed_after=dt.timedelta(days=2)),
    "snapshot": Role(keys=1, threshold=1, life=dt.timedelta(days=7), offline=False, renewed_after=dt.timedelta(days=2)),
    "timestamp": Role(
        keys=1, threshold=1, life=dt.timedelta(hours=24), offline=False, renewed_after=dt.timedelta(hours=6)
    ),
}
"""Of every repository."""
FURTHER: Final = {
    "fw": Role(keys=3, threshold=2, life=dt.timedelta(days=90), offline=True, renewed_after=dt.timedelta(days=45)),
    "operators": Role(
        keys=3, threshold=2, life=dt.timedelta(days=90), offline=True, renewed_after=dt.timedelta(days=45)
    ),
}
"""Delegations of `targets` that a repository may have besides (`ceremony.delegate`): releases of the boxes' own
programs, and who may sign jobs. What boxes would run is never signed by a key that lies on a server."""
TERMS: Final = ROLES | FURTHER
DELEGATED: Final = "sig"
"""The delegation of `targets` with online keys: may sign sets, and nothing else that a box would take."""
PATHS: Final = {"sig": ["sig/*"], "fw": ["fw/*/*"], "operators": ["operators/*"]}
"""What each delegation may sign; `*` ends at a slash."""
ISSUED: Final = "x_sk_issued"
"""Field of timestamp's `signed`: when it was signed (UTC, RFC 3339). A box's clock is never believed to be earlier."""
