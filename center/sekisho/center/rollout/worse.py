"""Boxes that have the release and do worse with it than before: by what they say of themselves anyway.

Each is compared with its own last day before it was asked. Only what is far from it counts: a rollout that halts for
nothing is one that nobody believes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.rollout.model import Rollout, Rule, Seen
from sekisho.center.rollout.tables import ROLLOUT_BOX
from sekisho.center.views.counts import TALLY
from sekisho.center.views.health import MOMENT, VITALS

EVERY_S: Final = 300.0
BEFORE_S: Final = 86_400.0
AFTER_S: Final = 7 * 86_400.0
"""So long it is compared once it has the release, or for the soak where that is longer;"""
LATE_S: Final = 86_400.0
"""and so long after that what it said of that time may still come."""
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
"""Asked of the database at one time."""
HOUR_S: Final = 3600.0


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


def found(
    db: sa.Connection, row: sa.Row[Any], rollout: Rollout, rule: Rule, seen: Sequence[Seen], now: float
) -> dict[str, str]:
    """Box -> what is worse, of those of the ring under way of which that was not known."""
    late, span = now - (1 + LEAST_HOURS) * HOUR_S, max(rule.soak_s, AFTER_S)
    have = [
        one for one in seen
        if one.ring == rollout.ring and not one.worse and _has_it(one) and late - span - LATE_S <= one.word_at <= late
    ]  # fmt: skip
    before = _signs(db, row.id, {one.box: (one.asked_at - BEFORE_S, one.asked_at) for one in have})
    after = _signs(db, row.id, {one.box: (one.word_at, min(now, one.word_at + span)) for one in have})
    return {one.box: what for one in have if (what := compare(before[one.box], after[one.box]))}


def _has_it(seen: Seen) -> bool:
    return seen.firmware == "succeeded" or (seen.state == "SUCCEEDED" and not seen.firmware)


def _signs(db: sa.Connection, rollout: str, spans: Mapping[str, tuple[float, float]]) -> dict[str, Signs]:
    """Of the whole hours between two times of each box; those of the same hours are asked for at once."""
    alike: dict[tuple[str, str], list[str]] = {}
    for box, (since, until) in spans.items():
        alike.setdefault((_hour(since + HOUR_S - 1), _hour(until)), []).append(box)
    made: dict[str, Signs] = {}
    for (first, last), boxes in alike.items():
        for start in range(0, len(boxes), BOXES_CAP):
            made |= _said(db, rollout, boxes[start : start + BOXES_CAP], first, last)
    return made


def _said(db: sa.Connection, rollout: str, boxes: Sequence[str], first: str, last: str) -> dict[str, Signs]:
    """What they said of themselves from one hour to before another: the database counts, they are many rows."""
    mine = (ROLLOUT_BOX.c.rollout == rollout, ROLLOUT_BOX.c.box.in_(boxes))
    places = [tuple(row) for row in db.execute(sa.select(ROLLOUT_BOX.c.tenant, ROLLOUT_BOX.c.box).where(*mine))]
    of = (sa.tuple_(VITALS.c.tenant, VITALS.c.box).in_(places), VITALS.c.hour >= first, VITALS.c.hour < last)
    share = sa.case((VITALS.c.memory_size > 0, VITALS.c.memory_free * 1.0 / VITALS.c.memory_size), else_=1.0)
    columns = (VITALS.c.box, sa.func.count(), sa.func.min(share), sa.func.max(VITALS.c.hottest))
    vitals = {row[0]: row[1:] for row in db.execute(sa.select(*columns).where(*of).group_by(VITALS.c.box))}
    of = (TALLY.c.tenant.in_({tenant for tenant, _ in places}), TALLY.c.hour >= first, TALLY.c.hour < last)
    counts = sa.select(TALLY.c.box, sa.func.sum(TALLY.c.count)).where(*of, TALLY.c.box.in_(boxes))
    counts = counts.where(TALLY.c.outcome.in_(("blocked", "detected"))).group_by(TALLY.c.box)
    alerts = {box: float(number) for box, number in db.execute(counts)}
    of = (sa.tuple_(MOMENT.c.tenant, MOMENT.c.box).in_(places), MOMENT.c.at >= first, MOMENT.c.at < last)
    told = sa.select(MOMENT.c.box, MOMENT.c.kind, sa.func.sum(MOMENT.c.number)).group_by(MOMENT.c.box, MOMENT.c.kind)
    ended = MOMENT.c.state.in_(("ended", "dropped"))
    moments = {(box, kind): float(number) for box, kind, number in db.execute(told.where(*of, ended))}
    made = {}
    for box in boxes:
        hours, memory, hottest = vitals.get(box, (0, 1.0, 0.0))
        off, drops = moments.get((box, "bypass"), 0.0), moments.get((box, "gap"), 0.0)
        made[box] = Signs(float(hours), alerts.get(box, 0.0), off, drops, float(memory), float(hottest))
    return made


def _hour(at: float) -> str:
    return dt.datetime.fromtimestamp(max(at, 0.0), dt.UTC).strftime("%Y-%m-%dT%H")
