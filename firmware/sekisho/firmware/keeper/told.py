"""What the centre is told of an attempt, and what interruption the customer is to expect: by this box's own measure."""

from __future__ import annotations

import datetime as dt
import math
from typing import Final, Literal, cast

from sekisho.firmware.keeper.journal import Journal, State
from sekisho.firmware.published import Release
from sekisho.telemetry.events import Firmware

DETAIL: Final = 250
TOLD: Final = frozenset(State) - {State.ACCEPTED, State.INSTALLING, State.REVERTING}
_Word = Literal[
    "offered", "downloading", "verified", "staged", "armed", "activating", "trial",
    "succeeded", "reverted", "failed", "rejected", "canceled", "expired", "status",
]  # fmt: skip


def expected(journal: Journal, tier: int) -> float:
    """Seconds without traffic to be expected: the 90th percentile of the last ones of this tier; 0: none measured."""
    took = sorted(one.seconds for one in journal.history if one.tier == tier)
    return took[math.ceil(0.9 * len(took)) - 1] if took else 0.0


def event(journal: Journal, at: str, why: str = "", detail: str = "") -> Firmware:
    """One event about the attempt as it is now; about what runs where there is none."""
    attempt, running = journal.attempt, journal.running
    slot = running.place.slot
    if attempt is None:
        return Firmware(
            at=at, state="status", counter=running.counter, version=running.version, tier=running.tier,
            running=running.counter, slot=slot,
        )  # fmt: skip
    deadline = attempt.deadline
    return Firmware(
        at=at, state=cast(_Word, str(attempt.state)), counter=attempt.counter, version=attempt.version,
        tier=attempt.tier if attempt.release is not None or attempt.rollback else 0, running=running.counter,
        slot=slot, why=why or attempt.why,
        by=(attempt.choice.by if attempt.choice is not None else attempt.by)[:64],
        expected_s=expected(journal, attempt.tier), took_s=max(attempt.took_s, 0.0),
        deadline=dt.datetime.fromtimestamp(deadline, dt.UTC).isoformat() if deadline else "",
        detail=(detail or attempt.detail)[:DETAIL],
    )  # fmt: skip


def offer(release: Release, journal: Journal, at: str) -> Firmware:
    """The channel has a newer one, which nobody asked for yet."""
    return Firmware(
        at=at, state="offered", counter=release.counter, version=release.version, tier=release.tier,
        running=journal.running.counter, slot=journal.running.place.slot,
    )  # fmt: skip
