"""How the boxes are: heard or not, what they run, how hot and full they are, and when inspection was off."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center import pulse, tenants
from sekisho.center.refused import REFUSED
from sekisho.center.report.tally import WATCH
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.streams import GAP, STREAM
from sekisho.center.views.health import MOMENT, PART, VITALS

WEEK: Final = dt.timedelta(days=7)
DEAF: Final = dt.timedelta(minutes=2)
"""Without a word from the broker for so long it is the centre that cannot tell, not the box that is gone."""
MOMENTS_CAP: Final = 100
HOT: Final = 80.0
"""Degrees Celsius from which somebody should look at where the box stands."""
FULL: Final = 0.1
"""Share of free disk or memory below which somebody should know."""

State = Literal["on", "lost", "unknown"]


class Vital(msgspec.Struct, frozen=True):
    """Vital signs of one hour: its last ones, and the hottest."""

    hour: str
    at: str
    temperature: float
    hottest: float
    disk_free: int
    disk_size: int
    memory_free: int
    memory_size: int
    uptime: int
    version: str

    @property
    def is_hot(self) -> bool:
        return self.temperature >= HOT

    @property
    def is_full(self) -> bool:
        return self.disk_free < self.disk_size * FULL


class Part(msgspec.Struct, frozen=True):
    """The last word of one part of a box."""

    part: str
    at: str
    state: str
    detail: str
    rules: int
    yara_rules: int


class Moment(msgspec.Struct, frozen=True):
    """Something that happened."""

    at: str
    kind: str
    part: str
    state: str
    reason: str
    number: float


class Day(msgspec.Struct, frozen=True):
    """One day of the viewer's calendar."""

    begin: str
    watched_s: int
    off_s: float


class BoxHealth(msgspec.Struct, frozen=True):
    """One box at a glance."""

    box: str
    site: str
    state: State
    heard: str
    """When the centre last had something from it; empty: never."""
    changed: str
    """Since when it is on, or gone."""
    vital: Vital | None


def boxes(db: sa.Connection, scope: Scope, tenant: str, now: dt.datetime) -> list[BoxHealth]:
    """Every box of these customers."""
    heard = _heard(db, scope)
    said = {row.box: row for row in db.execute(sa.select(BOX).where(scope.of(BOX.c.tenant)))}
    sites = tenants.sites(db, tenant)
    deaf = _is_deaf(db, now)
    made = []
    for box in sorted({*heard, *said}):
        row = said.get(box)
        state: State = "unknown" if deaf or row is None else "on" if row.state == "on" else "lost"
        vital = next(iter(vitals(db, scope, box, now, limit=1)), None)
        changed = row.changed_at if row is not None else ""
        made.append(BoxHealth(box, sites.get(box, ""), state, heard.get(box, ""), changed, vital))
    return made


def vitals(db: sa.Connection, scope: Scope, box: str, now: dt.datetime, limit: int = 24 * 7) -> list[Vital]:
    """Hours of the last week, the newest first."""
    columns = (VITALS.c[name] for name in Vital.__struct_fields__)
    since = (now - WEEK).astimezone(dt.UTC).strftime("%Y-%m-%dT%H")
    which = (scope.of(VITALS.c.tenant), VITALS.c.box == box, VITALS.c.hour >= since)
    rows = db.execute(sa.select(*columns).where(*which).order_by(VITALS.c.hour.desc()).limit(limit))
    return [Vital(*row) for row in rows]


def parts(db: sa.Connection, scope: Scope, box: str) -> list[Part]:
    """The last word of each part."""
    columns = (PART.c[name] for name in Part.__struct_fields__)
    rows = db.execute(sa.select(*columns).where(scope.of(PART.c.tenant), PART.c.box == box).order_by(PART.c.part))
    return [Part(*row) for row in rows.fetchmany(64)]


def moments(db: sa.Connection, scope: Scope, box: str, now: dt.datetime) -> list[Moment]:
    """What happened in the last week, the newest first."""
    columns = (MOMENT.c[name] for name in Moment.__struct_fields__)
    since = (now - WEEK).astimezone(dt.UTC).strftime("%Y-%m-%dT%H")
    which = (scope.of(MOMENT.c.tenant), MOMENT.c.box == box, MOMENT.c.at >= since)
    order = (MOMENT.c.at.desc(), MOMENT.c.event.desc())
    return [Moment(*row) for row in db.execute(sa.select(*columns).where(*which).order_by(*order).limit(MOMENTS_CAP))]


def days(db: sa.Connection, scope: Scope, box: str, zone: str, now: dt.datetime) -> list[Day]:
    """How long the box watched on each of the last seven days, and how long inspection was off; oldest first."""
    here = zoneinfo.ZoneInfo(zone)
    today = now.astimezone(here).date()
    made = []
    for back in reversed(range(7)):
        first = today - dt.timedelta(days=back)
        begin, end = (dt.datetime.combine(day, dt.time(), here) for day in (first, first + dt.timedelta(days=1)))
        edges = [at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H") for at in (begin, end)]
        which = (WATCH.c.box == box, WATCH.c.hour >= edges[0], WATCH.c.hour < edges[1])
        sums = sa.select(sa.func.sum(WATCH.c.seconds), sa.func.sum(WATCH.c.off)).where(scope.of(WATCH.c.tenant), *which)
        seconds, off = db.execute(sums).one()
        made.append(Day(begin.isoformat(), int(seconds or 0), int(off or 0) / 10))
    return made


def dropped(db: sa.Connection, box: str) -> int:
    """Reports the box had to drop and never sent; the caller has asked the scope."""
    lost = sa.func.sum(GAP.c.last - GAP.c.first + 1)
    return int(db.scalar(sa.select(lost).where(GAP.c.box == box)) or 0)


def refused(db: sa.Connection, box: str, now: dt.datetime) -> int:
    """What the centre refused of the box in the last week; the caller has asked the scope."""
    since = str((now - WEEK).date())
    which = (REFUSED.c.day >= since, REFUSED.c.box == box)
    return int(db.scalar(sa.select(sa.func.sum(REFUSED.c.count)).where(*which)) or 0)


def _heard(db: sa.Connection, scope: Scope) -> dict[str, str]:
    last = sa.select(STREAM.c.box, sa.func.max(STREAM.c.last_at)).where(scope.of(STREAM.c.tenant))
    return {box: at for box, at in db.execute(last.group_by(STREAM.c.box))}


def _is_deaf(db: sa.Connection, now: dt.datetime) -> bool:
    """Whether the centre itself hears nothing; one that was never connected has nothing to be deaf to."""
    heard = pulse.heard(db)
    return bool(heard) and now - dt.datetime.fromisoformat(heard) > DEAF
