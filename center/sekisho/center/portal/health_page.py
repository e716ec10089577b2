"""Box health: is it alive, what does it run, how hot and full is it, and when was inspection off."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

from sekisho.center import health, rulesets
from sekisho.center.health import Day, Moment, Part, Vital
from sekisho.center.portal import charts
from sekisho.center.portal.charts import Series
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue

Box = Annotated[str, PathParameter(max_length=64)]
_OFTEN: Final = 3600


def router(portal: Portal) -> Router:
    """All boxes, and one."""

    @get("/health-of-boxes", right="health.see", sync_to_thread=True)
    def listing(request: Request[Any, Any, Any]) -> Response[Any]:
        who = viewer(request)
        with portal.reading.reading() as db:
            found, now = health.boxes(db, who.here, who.tenant, portal.now()), portal.now()
            sets = rulesets.of_boxes(db, who.here)
        return portal.page(request, "health/list.html", boxes=found, sets=sets, now=now, lasted=_lasted(who))

    @get("/health-of-boxes/{box:str}", right="health.see", sync_to_thread=True)
    def one(request: Request[Any, Any, Any], box: Box) -> Response[Any]:
        who, now = viewer(request), portal.now()
        with portal.reading.reading() as db:
            found = next((b for b in health.boxes(db, who.here, who.tenant, now) if b.box == box), None)
            if found is None:
                raise NotFoundException()
            vitals = health.vitals(db, who.here, box, now)
            days = health.days(db, who.here, box, who.zone, now)
            values: dict[str, Any] = {
                "parts": health.parts(db, who.here, box),
                "moments": health.moments(db, who.here, box, now),
                "dropped": health.dropped(db, box),
                "refused": health.refused(db, box, now),
                "rules": (rules := rulesets.of_boxes(db, who.here, box).get(box)),
                "grade": rules.grade(now) if rules else "unknown",
            }
        return portal.page(
            request,
            "health/one.html",
            box=found,
            off=_off(who, days),
            days=days,
            heat=_heat(who, vitals),
            lasted=_lasted(who),
            says=_says,
            says_part=_says_part,
            **values,
        )

    return Router("/", route_handlers=[listing, one])


def _off(who: Viewer, days: list[Day]) -> charts.Chart:
    labels = [_day(who, day.begin) for day in days]
    values = [round(day.off_s / 60, 1) if day.watched_s else None for day in days]
    return charts.bars(_say(who, "chart_off"), labels, [Series(_say(who, "off"), values)], unit=_say(who, "minutes"))


def _heat(who: Viewer, vitals: list[Vital]) -> charts.Chart | None:
    """Every third hour of the week; None where nothing was measured."""
    hours = [vital for vital in reversed(vitals) if vital.hottest]
    if len(hours) < 2:
        return None
    shown = hours[:: max(1, len(hours) // 56)]
    labels = [_day(who, f"{vital.hour}:00:00Z") for vital in shown]
    series = [Series(_say(who, "temperature"), [vital.hottest for vital in shown])]
    return charts.lines(_say(who, "chart_heat"), labels, series, unit="°C")


def _says(moment: Moment) -> str:
    """The key of the sentence for something that happened."""
    for key in (f"m_{moment.kind}_{moment.part}_{moment.state}", f"m_{moment.kind}_{moment.state}", f"m_{moment.kind}"):
        if catalogue().has("health", key):
            return key
    return "m_health"


def _says_part(part: Part) -> str:
    """The same for a part's last word; empty where this release does not know it."""
    return f"s_{part.state}" if catalogue().has("health", f"s_{part.state}") else ""


def _lasted(who: Viewer) -> Any:
    def say(seconds: float) -> str:
        if seconds < 60:
            return _say(who, "seconds_n", number=f"{seconds:.0f}" if seconds >= 10 or not seconds else f"{seconds:.1f}")
        if seconds < _OFTEN:
            return _say(who, "minutes_n", number=round(seconds / 60))
        if seconds < 48 * 3600:
            return _say(who, "hours_n", number=round(seconds / 3600))
        return _say(who, "days_n", number=int(seconds // 86400))

    return say


def _day(who: Viewer, at: str) -> str:
    day = dt.datetime.fromisoformat(at).astimezone(zoneinfo.ZoneInfo(who.zone))
    return f"{day.month}/{day.day}" if who.locale == "ja" else f"{day.day} {day:%b}"


def _say(who: Viewer, key: str, **values: object) -> str:
    return catalogue().say(who.locale, "health", key, **values)
