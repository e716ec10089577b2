"""A month's figures: everything a report says, and nothing else is ever in one. Metadata only.

They are what is hashed, signed and kept, so the same figures give the same report.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections import Counter
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.cases import desk
from sekisho.center.devices import DEVICE, OWN
from sekisho.center.report import tally
from sekisho.center.report.month import Month
from sekisho.center.report.tally import COUNT, WATCH
from sekisho.center.scope import only
from sekisho.center.store import BOX
from sekisho.center.tenants import Tenant
from sekisho.center.views.devices import COVERED, EVERYBODY

BLOCKED: Final = ("blocked", "file_blocked", "neutralised")
"""What was kept from its receiver."""
FILES: Final = ("file_blocked", "neutralised")
DEVICES_CAP: Final = 30
REASONS_CAP: Final = 12
BOXES_CAP: Final = 50


class Day(msgspec.Struct, frozen=True):
    """One day of the customer's calendar."""

    day: str
    blocked: int
    passed: int


class Reason(msgspec.Struct, frozen=True):
    """One kind of thing that happened."""

    why: str
    stars: int
    number: int
    blocked: int


class Bytes(msgspec.Struct, frozen=True):
    """Of the traffic: what was looked at, what was encrypted, what was not looked at."""

    inspected: int = 0
    opaque: int = 0
    unlooked: int = 0

    @property
    def total(self) -> int:
        return self.inspected + self.opaque + self.unlooked


class Device(msgspec.Struct, frozen=True):
    """One device of the office."""

    name: str
    mac: str
    detections: int
    blocked: int
    important: int
    traffic: Bytes


class Box(msgspec.Struct, frozen=True):
    """One UTM: how long it told what it watches, and how long inspection was off."""

    box: str
    site: str
    watched_s: int
    off_s: int


class Figures(msgspec.Struct, frozen=True):
    """All of it."""

    customer: str
    month: str
    zone: str
    over: bool
    """Whether the month was over; what comes late may still be missing."""
    detections: int
    blocked: int
    important: int
    files: int
    """Files that were stopped or made harmless."""
    days: list[Day]
    reasons: list[Reason]
    devices: list[Device]
    devices_seen: int
    traffic: Bytes
    boxes: list[Box]
    cases_opened: int
    cases_open: int
    """Of these, how many are not closed."""
    uses: int
    """Visits of this month that count as uses of the insurance."""

    @property
    def watched_s(self) -> int:
        return sum(box.watched_s for box in self.boxes)

    @property
    def off_s(self) -> int:
        return sum(box.off_s for box in self.boxes)


def figures(db: sa.Connection, tenant: str, month: Month, now: dt.datetime) -> Figures:
    """The customer's figures; the caller has asked the scope."""
    settings = tenants.load(db, tenant)
    counted = _counted(db, tenant, month, COUNT.c.box, COUNT.c.mac, COUNT.c.why, COUNT.c.stars, COUNT.c.done)
    hourly = _counted(db, tenant, month, COUNT.c.hour, COUNT.c.done)
    traffic = _traffic(db, tenant, month)
    devices = _devices(db, tenant, counted, traffic)
    first, until = utc.text(month.first), utc.text(month.until)
    cases = desk.counts(db, only(tenant), first, until)
    blocked = sum(row.number for row in counted if row.done in BLOCKED)
    return Figures(
        customer=settings.name or tenant,
        month=str(month),
        zone=month.zone,
        over=month.over(now),
        detections=sum(row.number for row in counted),
        blocked=blocked,
        important=sum(row.number for row in counted if row.stars == 3),
        files=sum(row.number for row in counted if row.done in FILES),
        days=_days(hourly, month),
        reasons=_reasons(counted),
        devices=devices[:DEVICES_CAP],
        devices_seen=len(devices),
        traffic=_sum(traffic.values()),
        boxes=_boxes(db, settings, month),
        cases_opened=sum(cases.values()),
        cases_open=sum(number for state, number in cases.items() if state != "closed"),
        uses=desk.used_within(db, tenant, month.days[0], month.days[-1]),
    )


def _counted(db: sa.Connection, tenant: str, month: Month, *keys: sa.Column[Any]) -> list[Any]:
    """The month's numbers by these keys."""
    first, until = tally.hours(month.first, month.until)
    which = (COUNT.c.tenant == tenant, COUNT.c.hour >= first, COUNT.c.hour < until)
    number = sa.cast(sa.func.sum(COUNT.c.number), sa.BigInteger).label("number")
    return list(db.execute(sa.select(*keys, number).where(*which).group_by(*keys)))


def _days(hourly: list[Any], month: Month) -> list[Day]:
    zone = zoneinfo.ZoneInfo(month.zone)
    blocked: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for row in hourly:
        day = dt.datetime.fromisoformat(f"{row.hour}:00:00+00:00").astimezone(zone).date().isoformat()
        (blocked if row.done in BLOCKED else passed)[day] += row.number
    return [Day(day, blocked[day], passed[day]) for day in map(str, month.days)]


def _reasons(counted: list[Any]) -> list[Reason]:
    number: Counter[tuple[str, int]] = Counter()
    blocked: Counter[tuple[str, int]] = Counter()
    for row in counted:
        number[row.why, row.stars] += row.number
        blocked[row.why, row.stars] += row.number if row.done in BLOCKED else 0
    order = sorted(number, key=lambda key: (-key[1], -number[key], key[0]))
    return [Reason(why, stars, number[why, stars], blocked[why, stars]) for why, stars in order[:REASONS_CAP]]


def _traffic(db: sa.Connection, tenant: str, month: Month) -> dict[tuple[str, str], Bytes]:
    """(box, device) -> bytes; hours that are past their time are in none."""
    first, until = (f"{hour}:00:00Z" for hour in tally.hours(month.first, month.until))
    which = (COVERED.c.tenant == tenant, COVERED.c.hour >= first, COVERED.c.hour < until)
    sums = (COVERED.c.inspected, COVERED.c.opaque, COVERED.c.bypassed + COVERED.c.unseen)
    query = sa.select(COVERED.c.box, COVERED.c.mac, *(sa.func.sum(one) for one in sums)).where(*which)
    rows = db.execute(query.group_by(COVERED.c.box, COVERED.c.mac))
    return {(box, mac): Bytes(int(a), int(b), int(c)) for box, mac, a, b, c in rows}


def _devices(db: sa.Connection, tenant: str, counted: list[Any], traffic: dict[tuple[str, str], Bytes]) -> list[Device]:
    """What needs a look comes first."""
    named = {(row.box, row.mac): row.name for row in db.execute(sa.select(DEVICE).where(DEVICE.c.tenant == tenant))}
    own = db.execute(sa.select(OWN).where(OWN.c.tenant == tenant))
    named |= {(row.box, row.mac): row.name for row in own if row.name}
    found = {key for key in traffic if key[1] not in ("", EVERYBODY)}
    numbers: dict[tuple[str, str], Counter[str]] = {}
    for row in counted:
        counts = numbers.setdefault((row.box, row.mac), Counter())
        counts["all"] += row.number
        counts["blocked"] += row.number if row.done in BLOCKED else 0
        counts["important"] += row.number if row.stars == 3 else 0
    found |= {key for key in numbers if key[1]}
    made = [
        Device(
            named.get(key, ""), key[1], counts["all"], counts["blocked"], counts["important"], traffic.get(key, Bytes())
        )
        for key in found
        for counts in [numbers.get(key, Counter())]
    ]
    return sorted(made, key=lambda one: (-one.important, -one.detections, -one.traffic.unlooked, one.mac))


def _boxes(db: sa.Connection, tenant: Tenant, month: Month) -> list[Box]:
    first, until = tally.hours(month.first, month.until)
    which = (WATCH.c.tenant == tenant.id, WATCH.c.hour >= first, WATCH.c.hour < until)
    query = sa.select(WATCH.c.box, sa.func.sum(WATCH.c.seconds), sa.func.sum(WATCH.c.off)).where(*which)
    told = {box: (int(seconds), round(int(off) / 10)) for box, seconds, off in db.execute(query.group_by(WATCH.c.box))}
    every = set(db.scalars(sa.select(BOX.c.box).where(BOX.c.tenant == tenant.id))) | set(told)
    sites = tenants.sites(db, tenant.id)
    return [Box(box, sites.get(box, ""), *told.get(box, (0, 0))) for box in sorted(every)[:BOXES_CAP]]


def _sum(parts: Any) -> Bytes:
    found = list(parts)
    return Bytes(sum(p.inspected for p in found), sum(p.opaque for p in found), sum(p.unlooked for p in found))
