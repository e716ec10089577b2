"""What the centre is told: made of the inspectors' own words about the set in force, not of the keeper's files."""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

from sekisho.signatures.keeper.facts import Looked
from sekisho.signatures.keeper.journal import Journal, Kept
from sekisho.telemetry.events import Signatures

State = Literal["active", "soaking", "refused", "rolled_back", "muted", "freshness"]
Freshness = Literal["fresh", "aging", "stale", "unknown"]
FRESH: Final = dt.timedelta(hours=24)
AGING: Final = dt.timedelta(hours=72)
BEHIND: Final = dt.timedelta(minutes=10)
"""A clock that stands this far before the last refresh is not believed."""
SIDS: Final = 64
DETAIL: Final = 500


def freshness(checked: str, at: str) -> Freshness:
    """How long ago (`at` is now, UTC) the channel was last asked with success. Stale rules protect all the same."""
    try:
        age = dt.datetime.fromisoformat(at) - dt.datetime.fromisoformat(checked)
    except (ValueError, TypeError):
        return "unknown"
    if age < -BEHIND:
        return "unknown"
    return "fresh" if age < FRESH else "aging" if age < AGING else "stale"


def in_force(journal: Journal, sight: Looked) -> Kept:
    """The set the engine names, or where it does not speak, the one `current` names; a stranger has number 0."""
    wanted = sight.engine.set_id if sight.engine is not None else sight.link
    known = (journal.candidate, journal.active, journal.previous)
    return next((kept for kept in known if wanted and kept.id == wanted), Kept(id=wanted))


def event(
    state: State, journal: Journal, sight: Looked, at: str, *, detail: str = "", sids: tuple[int, ...] = ()
) -> Signatures:
    """One event about `journal` as seen at `at`; `sids`: the rules it is about, else all that are muted."""
    held = in_force(journal, sight)
    newest = max(journal.refused, default=0)
    return Signatures(
        at=at,
        state=state,
        number=held.number,
        set=held.id[:16],
        rules=sight.engine.rules if sight.engine is not None else 0,
        yara=sight.scanner.rules if sight.scanner is not None and sight.scanner.set_id == held.id else 0,
        failed=sight.engine.failed if sight.engine is not None else 0,
        freshness=freshness(journal.checked, at),
        built=held.built,
        checked=journal.checked,
        refused=newest if newest > held.number else 0,
        sids=list(sids or journal.mine.sids)[:SIDS],
        detail=detail[:DETAIL],
    )
