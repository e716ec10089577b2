"""What a customer is shown of a box's software: what is in use, what waits, what came of it, what it may cost."""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.rollout.model import About
from sekisho.center.rollout.tables import ROLLOUT, ROLLOUT_BOX
from sekisho.center.scope import Scope
from sekisho.center.views.firmware import RELEASE, RUNNING
from sekisho.policy import overlay

When = Literal["now", "tonight", "window", "later"]
CHOICES: Final[tuple[When, ...]] = ("now", "tonight", "window", "later")
ENDS: Final = ("succeeded", "reverted", "failed", "rejected", "canceled", "expired")
UNDER_WAY: Final = ("armed", "activating", "trial")
"""Of these it is too late to choose another time."""
NOW_S: Final = 2 * 3600
"""Who chose "now" wanted it now: a box that hears of it later asks again."""
NIGHT: Final = (1, 5)
"""Hours of "tonight", by the customer's clock."""
LATER_S: Final = 7 * 86_400
HISTORY: Final = 10
LEAST: Final = 3
"""Measured times from which a ninth decile is one; of fewer the longest is told."""


class Release(msgspec.Struct, frozen=True):
    """One release on one box, by its newest word."""

    counter: int
    version: str
    tier: int
    state: str
    why: str
    by: str
    at: str
    took_s: float
    expected_s: float
    deadline: str
    detail: str
    notes_ja: str = ""
    notes_en: str = ""
    urgent: bool = False

    @property
    def over(self) -> bool:
        return self.state in ENDS


class Software(msgspec.Struct, frozen=True):
    """The software of one box."""

    running: int
    """0: as delivered, or it has not said."""
    version: str
    waiting: Release | None
    """The newest that is on its way, or waits to be chosen."""
    past: list[Release]
    expected_s: float
    """Seconds without traffic for `waiting`; 0: not known."""
    measured: int
    """From how many of this box's own earlier times that is."""

    @property
    def interrupts(self) -> bool:
        return self.waiting is not None and self.waiting.tier != 1

    @property
    def can_choose(self) -> bool:
        return self.waiting is not None and self.waiting.tier != 1 and self.waiting.state not in UNDER_WAY


def of_box(db: sa.Connection, scope: Scope, box: str) -> Software:
    """What the box said of its software; nothing of a box outside the scope."""
    mine = (scope.of(RUNNING.c.tenant), RUNNING.c.box == box)
    runs = db.execute(sa.select(RUNNING.c.counter, RUNNING.c.version).where(*mine)).first()
    running = runs.counter if runs else 0
    found = _releases(db, scope, box)
    waiting = max((one for one in found if not one.over and one.counter > running), key=_number, default=None)
    version = next((one.version for one in found if one.counter == running), "") or (runs.version if runs else "")
    expected, measured = expectation(found, waiting)
    past = [one for one in found if one.over][:HISTORY]
    return Software(running, version, waiting, past, expected, measured)


def expectation(found: list[Release], waiting: Release | None) -> tuple[float, int]:
    """Seconds without traffic that nine of ten of this box's own restarts of that kind did not exceed; how many."""
    if waiting is None:
        return 0.0, 0
    took = sorted(one.took_s for one in found if one.tier == waiting.tier and one.took_s > 0)
    if not took:
        return waiting.expected_s, 0
    place = math.ceil(0.9 * len(took)) - 1 if len(took) >= LEAST else len(took) - 1
    return took[place], len(took)


def choice(
    waiting: Release, when: str, now: dt.datetime, zone: str, by: str, decided: overlay.Overlay
) -> overlay.Overlay:
    """The settings with this choice about that release.

    Raises:
        RejectedInput: no such choice, or the weekly window was never set.

    """
    if when not in CHOICES:
        raise RejectedInput("There is no such choice.")
    if when == "window" and decided.restart is None:
        raise RejectedInput("No weekly time was chosen.")
    begin, end = int(now.timestamp()), 0
    if when == "now":
        end = begin + NOW_S
    elif when == "tonight":
        begin, end = (int(one.timestamp()) for one in night(now, zone))
    elif when == "later":
        begin += LATER_S
    chosen = max(int(now.timestamp()), decided.firmware.serial + 1 if decided.firmware else 0)
    made = overlay.Update(counter=waiting.counter, when=when, since=begin, until=end, by=by[:64], chosen=chosen)
    return msgspec.structs.replace(decided, firmware=made, zone=decided.zone or zone)


def night(now: dt.datetime, zone: str) -> tuple[dt.datetime, dt.datetime]:
    """The coming night, or what is left of this one."""
    here = now.astimezone(zoneinfo.ZoneInfo(zone))
    first = here.replace(hour=NIGHT[0], minute=0, second=0, microsecond=0)
    last = here.replace(hour=NIGHT[1], minute=0, second=0, microsecond=0)
    if here >= last:
        first, last = (
            dt.datetime.combine(one.date() + dt.timedelta(days=1), one.time(), one.tzinfo) for one in (first, last)
        )
    return max(first, here), last


def _number(one: Release) -> int:
    return one.counter


def _releases(db: sa.Connection, scope: Scope, box: str) -> list[Release]:
    names = ("counter", "version", "tier", "state", "why", "by", "at", "took_s", "expected_s", "deadline", "detail")
    mine = (scope.of(RELEASE.c.tenant), RELEASE.c.box == box)
    order = (RELEASE.c.at.desc(), RELEASE.c.counter.desc())
    rows = db.execute(sa.select(*(RELEASE.c[name] for name in names)).where(*mine).order_by(*order)).all()
    notes = _notes(db, scope, box) if rows else {}
    made = []
    for row in rows:
        about = notes.get(row.counter)
        more = (about.notes_ja, about.notes_en, about.urgent) if about else ()
        made.append(Release(*row, *more))
    return made


def _notes(db: sa.Connection, scope: Scope, box: str) -> dict[int, About]:
    """What the rollouts this box is in say of their release."""
    mine = (scope.of(ROLLOUT_BOX.c.tenant), ROLLOUT_BOX.c.box == box)
    query = sa.select(ROLLOUT.c.counter, ROLLOUT.c.about).join(ROLLOUT_BOX, ROLLOUT_BOX.c.rollout == ROLLOUT.c.id)
    rows = db.execute(query.where(*mine).order_by(ROLLOUT.c.id.desc()).limit(50))
    return {row.counter: msgspec.json.decode(row.about, type=About) for row in rows}
