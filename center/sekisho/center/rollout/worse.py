"""Boxes that have the release and do worse with it than before: by what they say of themselves anyway.

Each is compared with its own last day before it was asked. Only what is far from it counts: a rollout that halts for
nothing is one that nobody believes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
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


def found(db: sa.Connection, row: sa.Row[Any], rollout: Rollout, seen: Sequence[Seen], now: float) -> dict[str, str]:
    """Box -> what is worse, of those of the ring under way of which that was not known."""
    late = now - (1 + LEAST_HOURS) * HOUR_S
    have = [one for one in seen if one.ring == rollout.ring and not one.worse and _has_it(one) and one.word_at <= late]
    made = {}
    for start in range(0, len(have), BOXES_CAP):
        some = have[start : start + BOXES_CAP]
        of = _Said(db, row.id, [one.box for one in some], min(one.asked_at for one in some) - BEFORE_S, now)
        for one in some:
            before = of.signs(one.box, one.asked_at - BEFORE_S, one.asked_at)
            what = compare(before, of.signs(one.box, one.word_at, now))
            if what:
                made[one.box] = what
    return made


def _has_it(seen: Seen) -> bool:
    return seen.firmware == "succeeded" or (seen.state == "SUCCEEDED" and not seen.firmware)


class _Said:
    """What some boxes of a rollout said of whole hours: (box, hour) -> rows."""

    def __init__(self, db: sa.Connection, rollout: str, boxes: Sequence[str], since: float, until: float) -> None:
        mine = (ROLLOUT_BOX.c.rollout == rollout, ROLLOUT_BOX.c.box.in_(boxes))
        places = [tuple(row) for row in db.execute(sa.select(ROLLOUT_BOX.c.tenant, ROLLOUT_BOX.c.box).where(*mine))]
        first, last = _hour(since), _hour(until)
        of = (sa.tuple_(VITALS.c.tenant, VITALS.c.box).in_(places), VITALS.c.hour >= first, VITALS.c.hour < last)
        columns = (VITALS.c.box, VITALS.c.hour, VITALS.c.memory_free, VITALS.c.memory_size, VITALS.c.hottest)
        self._vitals = _by_box(db.execute(sa.select(*columns).where(*of)))
        of = (TALLY.c.tenant.in_({tenant for tenant, _ in places}), TALLY.c.hour >= first, TALLY.c.hour < last)
        found = sa.select(TALLY.c.box, TALLY.c.hour, sa.func.sum(TALLY.c.count)).where(*of, TALLY.c.box.in_(boxes))
        found = found.where(TALLY.c.outcome.in_(("blocked", "detected"))).group_by(TALLY.c.box, TALLY.c.hour)
        self._alerts = _by_box(db.execute(found))
        of = (sa.tuple_(MOMENT.c.tenant, MOMENT.c.box).in_(places), MOMENT.c.at >= first, MOMENT.c.at < last)
        moments = sa.select(MOMENT.c.box, sa.func.substr(MOMENT.c.at, 1, 13), MOMENT.c.kind, MOMENT.c.number)
        self._moments = _by_box(db.execute(moments.where(*of, MOMENT.c.state.in_(("ended", "dropped")))))

    def signs(self, box: str, since: float, until: float) -> Signs:
        """Of the whole hours between two times."""
        first, last = _hour(since + HOUR_S - 1), _hour(until)

        def within(rows: dict[str, list[Any]]) -> list[Any]:
            return [row for row in rows.get(box, []) if first <= row[1] < last]

        vitals, moments = within(self._vitals), within(self._moments)
        return Signs(
            hours=float(len(vitals)),
            alerts=float(sum(row[2] for row in within(self._alerts))),
            off_s=sum(row[3] for row in moments if row[2] == "bypass"),
            drops=sum(row[3] for row in moments if row[2] == "gap"),
            memory=min((row.memory_free / row.memory_size for row in vitals if row.memory_size), default=1.0),
            hottest=max((row.hottest for row in vitals), default=0.0),
        )


def _by_box(rows: Iterable[Any]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {}
    for row in rows:
        made.setdefault(row[0], []).append(row)
    return made


def _hour(at: float) -> str:
    return dt.datetime.fromtimestamp(max(at, 0.0), dt.UTC).strftime("%Y-%m-%dT%H")
