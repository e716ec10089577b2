"""Boxes that have the release and do worse with it than before: by what they say of themselves anyway.

Each is compared with its own last day before it was asked. Only what is far from it counts: a rollout that halts for
nothing is one that nobody believes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.rollout.model import Rollout, Seen
from sekisho.center.rollout.tables import ROLLOUT_BOX
from sekisho.center.views.counts import TALLY
from sekisho.center.views.health import MOMENT, VITALS

EVERY_S: Final = 300.0
BEFORE_S: Final = 86_400.0
LEAST_HOURS: Final = 1.0
"""Of the time after it, before anything is compared."""
HOT: Final = 85.0
"""Degrees Celsius which a box that was below `WARM` before has no reason to reach."""
WARM: Final = 75.0
FULL: Final = 0.05
"""Share of memory that is left: less than that, where it was more than twice as much before."""
ALERTS: Final = 50
"""Alerts, and ten times as many an hour as before;"""
MORE: Final = 10.0
OFF_S: Final = 60.0
"""and so many seconds without inspection, or reports dropped, likewise."""
DROPS: Final = 100
BOXES_CAP: Final = 500


class Signs(msgspec.Struct, frozen=True):
    """One box in one time."""

    hours: float = 0.0
    alerts: float = 0.0
    off_s: float = 0.0
    drops: float = 0.0
    """Reports it could not keep."""
    memory: float = 1.0
    """The smallest share that was free, of the hours' last words."""
    hottest: float = 0.0


def compare(before: Signs, after: Signs) -> str:
    """What is far worse than it was: a code, or nothing."""
    if after.hours < LEAST_HOURS or before.hours < LEAST_HOURS:
        return ""

    def rose(name: str, least: float) -> bool:
        was, now = getattr(before, name) / before.hours, getattr(after, name) / after.hours
        return bool(getattr(after, name) >= least and now > MORE * max(was, 0.1))

    if rose("off_s", OFF_S):
        return "off"
    if rose("drops", DROPS):
        return "drops"
    if after.memory < FULL and before.memory > 2 * FULL:
        return "memory"
    if after.hottest >= HOT and 0 < before.hottest < WARM:
        return "heat"
    return "alerts" if rose("alerts", ALERTS) else ""


def is_due(rollout: Rollout, now: float) -> bool:
    """Whether it is looked at in this turn: as often as boxes tell of themselves, more would show nothing new."""
    return int(now // EVERY_S) != int(rollout.looked_at // EVERY_S)


def found(db: sa.Connection, row: sa.Row[Any], rollout: Rollout, seen: Sequence[Seen], now: float) -> dict[str, str]:
    """Box -> what is worse, of those of the ring under way of which that was not known."""
    have = [one for one in seen if one.ring == rollout.ring and not one.worse and _has_it(one)][:BOXES_CAP]
    if not have:
        return {}
    of = (ROLLOUT_BOX.c.rollout == row.id, ROLLOUT_BOX.c.box.in_([one.box for one in have]))
    tenants = {box: tenant for box, tenant in db.execute(sa.select(ROLLOUT_BOX.c.box, ROLLOUT_BOX.c.tenant).where(*of))}
    made = {}
    for one in have:
        key = (tenants[one.box], one.box)
        before = signs(db, *key, one.asked_at - BEFORE_S, one.asked_at)
        what = compare(before, signs(db, *key, one.word_at, now))
        if what:
            made[one.box] = what
    return made


def _has_it(seen: Seen) -> bool:
    return seen.firmware == "succeeded" or (seen.state == "SUCCEEDED" and not seen.firmware)


def signs(db: sa.Connection, tenant: str, box: str, since: float, until: float) -> Signs:
    """What the box said of whole hours between two times."""
    first, last = _hour(since + 3599), _hour(until)
    which = (VITALS.c.tenant == tenant, VITALS.c.box == box, VITALS.c.hour >= first, VITALS.c.hour < last)
    rows = db.execute(sa.select(VITALS.c.memory_free, VITALS.c.memory_size, VITALS.c.hottest).where(*which)).all()
    hours = (TALLY.c.tenant == tenant, TALLY.c.hour >= first, TALLY.c.hour < last, TALLY.c.box == box)
    alerts = db.scalar(
        sa.select(sa.func.sum(TALLY.c.count)).where(*hours, TALLY.c.outcome.in_(("blocked", "detected")))
    )
    of = (MOMENT.c.tenant == tenant, MOMENT.c.box == box, MOMENT.c.at >= first, MOMENT.c.at < last)
    sums = sa.select(MOMENT.c.kind, sa.func.sum(MOMENT.c.number)).where(*of, MOMENT.c.state.in_(("ended", "dropped")))
    moments = {kind: float(number) for kind, number in db.execute(sums.group_by(MOMENT.c.kind))}
    return Signs(
        hours=float(len(rows)),
        alerts=float(alerts or 0),
        off_s=moments.get("bypass", 0.0),
        drops=moments.get("gap", 0.0),
        memory=min((row.memory_free / row.memory_size for row in rows if row.memory_size), default=1.0),
        hottest=max((row.hottest for row in rows), default=0.0),
    )


def _hour(at: float) -> str:
    return dt.datetime.fromtimestamp(max(at, 0.0), dt.UTC).strftime("%Y-%m-%dT%H")
