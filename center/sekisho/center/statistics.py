"""Counts of what was found and stopped, for the viewer's days, weeks and months."""

from __future__ import annotations

import datetime as dt
import itertools
import zoneinfo
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.scope import Scope
from sekisho.center.views.counts import TALLY, TALLY_DEVICE

By = Literal["day", "week", "month"]
SPANS: Final[dict[By, int]] = {"day": 14, "week": 12, "month": 12}
"""How many of each a page goes back, the running one included."""
DEVICES_DAYS: Final = 31
DEVICES_CAP: Final = 50


class Count(msgspec.Struct, frozen=True):
    """One function in one period."""

    blocked: int = 0
    detected: int = 0
    excepted: int = 0
    clean: int = 0

    @property
    def found(self) -> int:
        """Everything that was found, stopped or not; what an exception let pass is not counted as found."""
        return self.blocked + self.detected

    def plus(self, other: Count) -> Count:
        return Count(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))


class Period(msgspec.Struct, frozen=True):
    """One day, week or month of the viewer's calendar."""

    first: dt.date
    """Its first day; weeks begin on Mondays."""
    begin: str
    """The same as a time with zone."""
    functions: dict[str, Count]

    @property
    def total(self) -> Count:
        return total(list(self.functions.values()))


class Busy(msgspec.Struct, frozen=True):
    """One device in the last `DEVICES_DAYS` days."""

    box: str
    mac: str
    functions: dict[str, Count]
    total: Count


def total(counts: list[Count]) -> Count:
    sums = Count()
    for count in counts:
        sums = sums.plus(count)
    return sums


def periods(db: sa.Connection, scope: Scope, by: By, zone: str, now: dt.datetime) -> list[Period]:
    """The last periods, oldest first."""
    here = zoneinfo.ZoneInfo(zone)
    made = []
    for first, after in _calendar(by, now.astimezone(here).date()):
        begin, end = (dt.datetime.combine(day, dt.time(), here) for day in (first, after))
        which = (scope.of(TALLY.c.tenant), TALLY.c.hour >= _hour(begin), TALLY.c.hour < _hour(end))
        key = (TALLY.c.function, TALLY.c.outcome)
        rows = db.execute(sa.select(*key, sa.func.sum(TALLY.c.count)).where(*which).group_by(*key))
        functions: dict[str, Count] = {}
        for function, outcome, number in rows:
            functions[function] = functions.get(function, Count()).plus(Count(**{outcome: int(number)}))
        made.append(Period(first, begin.isoformat(), functions))
    return made


def devices(db: sa.Connection, scope: Scope, now: dt.datetime) -> list[Busy]:
    """The devices with the most found lately, the most first."""
    since = _hour(now - dt.timedelta(days=DEVICES_DAYS))
    of = (TALLY_DEVICE.c.box, TALLY_DEVICE.c.mac, TALLY_DEVICE.c.function, TALLY_DEVICE.c.outcome)
    which = (scope.of(TALLY_DEVICE.c.tenant), TALLY_DEVICE.c.hour >= since)
    rows = db.execute(sa.select(*of, sa.func.sum(TALLY_DEVICE.c.count)).where(*which).group_by(*of))
    found: dict[tuple[str, str], dict[str, Count]] = {}
    for box, mac, function, outcome, number in rows:
        functions = found.setdefault((box, mac), {})
        functions[function] = functions.get(function, Count()).plus(Count(**{outcome: int(number)}))
    made = [Busy(*key, functions, total(list(functions.values()))) for key, functions in found.items()]
    return sorted(made, key=lambda one: (-one.total.found, -one.total.excepted, one.mac))[:DEVICES_CAP]


def _calendar(by: By, today: dt.date) -> list[tuple[dt.date, dt.date]]:
    """First day of each period, and of the one after it."""
    edges = [today + dt.timedelta(days=1)]
    match by:
        case "day":
            edges += [today - dt.timedelta(days=n) for n in range(SPANS[by])]
        case "week":
            monday = today - dt.timedelta(days=today.weekday())
            edges += [monday - dt.timedelta(weeks=n) for n in range(SPANS[by])]
        case "month":
            months = (today.year * 12 + today.month - 1 - n for n in range(SPANS[by]))
            edges += [dt.date(month // 12, month % 12 + 1, 1) for month in months]
    edges.reverse()
    return list(itertools.pairwise(edges))


def _hour(at: dt.datetime) -> str:
    """The first hour of UTC that begins at or after this time."""
    up = at.astimezone(dt.UTC) + dt.timedelta(minutes=59, seconds=59)
    return up.strftime("%Y-%m-%dT%H")
