"""The first page: is my office safe today, in one sentence, three numbers and one chart; never more than is known."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa
from litestar import Request, Response, Router, get

from sekisho.appliance.core import utc
from sekisho.center import bulletins, pulse, rulesets, tenants
from sekisho.center.portal import alert_view, charts
from sekisho.center.portal.charts import Chart, Series
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.tenants import Locale
from sekisho.center.views import alert_list
from sekisho.center.views.alert_list import Sum, Wanted

DAYS: Final = 14
URGENT: Final = 5
BOXES_CAP: Final = 500
DEAF: Final = dt.timedelta(minutes=1)
"""A broker that was not heard for so long: nothing is known of any box."""

Level = Literal["good", "bad", "unknown", "none"]


class Standing(msgspec.Struct, frozen=True):
    """How the office is, and why it is said."""

    level: Level
    reasons: list[tuple[str, dict[str, object], str]]
    """(key in [home], its values, where it leads), the gravest first."""


class Day(msgspec.Struct):
    """One day of the viewer's."""

    detections: int = 0
    blocked: int = 0


def router(portal: Portal) -> Router:
    """The route."""

    @get("/", right="home.see", sync_to_thread=True)
    def home(request: Request[Any, Any, Any]) -> Response[Any]:
        who, now = viewer(request), portal.now()
        if not who.tenant:
            return portal.page(request, "home/choose.html")
        with portal.reading.reading() as db:
            waiting = alert_list.waiting(db, who.here)
            urgent = alert_list.listed(db, who.here, Wanted(stars=3, state="open"), URGENT).lines
            recent = alert_list.listed(db, who.here, Wanted(), URGENT).lines
            values: dict[str, Any] = {
                "standing": standing(db, who.here, waiting, now),
                "urgent": alert_view.entries(db, urgent, who.locale),
                "recent": alert_view.entries(db, recent, who.locale),
                "latest": alert_list.newest(db, who.here),
                "unread": len(bulletins.unread(db, who.account, bulletins.of_tenant(db, who.tenant, utc.text(now)))),
            }
            days = by_day(alert_list.sums(db, who.here, _first_hour(now, who.zone)), now, who.zone)
        today = days[max(days)]
        return portal.page(
            request,
            "home/home.html",
            **values,
            waiting=waiting,
            waiting_cap=alert_list.COUNT_CAP,
            today=today,
            chart=chart(days, who),
            now=utc.text(now),
        )

    return Router("/", route_handlers=[home])


def standing(db: sa.Connection, scope: Scope, waiting: int, now: dt.datetime) -> Standing:
    """What can be said truthfully: what is not known is never called safe."""
    boxes = _boxes(db, scope)
    if not boxes:
        return Standing("none", [("no_boxes", {}, "")])
    bad: list[tuple[str, dict[str, object], str]] = []
    unknown: list[tuple[str, dict[str, object], str]] = []
    if waiting:
        bad.append(("waiting", {"number": min(waiting, alert_list.COUNT_CAP)}, "/alerts?stars=3&show=open"))
    there = {box for box, _, _, _ in boxes}
    bad += [
        ("uninspected", {"box": name, "at": at}, "/alerts?function=box")
        for box, at in alert_list.uninspected(db, scope)
        if box in there
        for name in [next(place for one, place, _, _ in boxes if one == box)]
    ]
    sets = rulesets.of_boxes(db, scope)
    places = [(place, sets[box]) for box, place, _, _ in boxes if box in sets]
    bad += [
        ("rules_silent", {"box": place, "at": one.silent}, "/health-of-boxes") for place, one in places if one.silent
    ]
    heard = pulse.heard(db)
    if heard and now - dt.datetime.fromisoformat(heard) > DEAF:
        unknown.append(("deaf", {"at": heard}, ""))
    unknown += [("offline", {"box": place, "at": at}, "") for _, place, state, at in boxes if state != "on"]
    old = [place for place, one in places if one.grade(now) == "stale" and not one.silent]
    aged = [("rules_stale", {"box": old[0], "number": len(old)}, "/health-of-boxes")] if old else []
    return Standing("bad" if bad else "unknown" if unknown else "good", [*bad, *unknown, *aged])


def by_day(sums: list[Sum], now: dt.datetime, zone: str) -> dict[dt.date, Day]:
    """The last DAYS days as the viewer's calendar has them, today last."""
    here = zoneinfo.ZoneInfo(zone)
    today = now.astimezone(here).date()
    days = {today - dt.timedelta(days=back): Day() for back in reversed(range(DAYS))}
    for one in sums:
        at = dt.datetime.fromisoformat(f"{one.hour}:00:00+00:00").astimezone(here).date()
        if day := days.get(at):
            day.detections += one.detections
            day.blocked += one.blocked
    return days


def chart(days: dict[dt.date, Day], who: Viewer) -> Chart:
    """What was detected each day, and how much of it was stopped."""
    say = _Say(who.locale)
    labels = [f"{day.month}/{day.day}" if who.locale == "ja" else f"{day.day} {day:%b}" for day in days]
    stopped = Series(say("blocked"), [day.blocked for day in days.values()])
    passed = Series(say("only_detected"), [max(0, day.detections - day.blocked) for day in days.values()])
    return charts.bars(say("chart", days=DAYS), labels, [stopped, passed], stacked=True, unit=say("unit"))


class _Say:
    """The sentences of [home] in one language."""

    def __init__(self, locale: Locale) -> None:
        self._locale: Locale = locale

    def __call__(self, key: str, **values: object) -> str:
        return catalogue().say(self._locale, "home", key, **values)


def _first_hour(now: dt.datetime, zone: str) -> str:
    first = now.astimezone(zoneinfo.ZoneInfo(zone)).date() - dt.timedelta(days=DAYS - 1)
    begins = dt.datetime.combine(first, dt.time(), zoneinfo.ZoneInfo(zone))
    return begins.astimezone(dt.UTC).strftime("%Y-%m-%dT%H")


def _boxes(db: sa.Connection, scope: Scope) -> list[tuple[str, str, str, str]]:
    """(box, what its people call the place, state, since when)."""
    query = sa.select(BOX.c.tenant, BOX.c.box, BOX.c.state, BOX.c.changed_at).where(scope.of(BOX.c.tenant))
    rows = db.execute(query.order_by(BOX.c.tenant, BOX.c.box).limit(BOXES_CAP)).all()
    sites = {box: name for tenant in {row.tenant for row in rows} for box, name in tenants.sites(db, tenant).items()}
    return [(row.box, sites.get(row.box, row.box), row.state, row.changed_at) for row in rows]
