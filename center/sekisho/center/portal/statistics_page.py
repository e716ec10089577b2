"""Statistics: what each function has found and stopped, by day, week or month, and on which devices."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.params import QueryParameter

from sekisho.center import protection, statistics
from sekisho.center.portal import charts, sheet
from sekisho.center.portal.charts import Series
from sekisho.center.portal.rendering import HEADERS, Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.statistics import By, Count, Period
from sekisho.center.views.counts import FUNCTIONS

_BY: Final[dict[str, By]] = {"day": "day", "week": "week", "month": "month"}
Word = Annotated[str, QueryParameter(max_length=10)]


def router(portal: Portal) -> Router:
    """The page and its numbers as a file."""

    @get("/statistics", right="statistics.see", sync_to_thread=True)
    def page(request: Request[Any, Any, Any], by: Word = "day") -> Response[Any]:
        who, chosen = viewer(request), _BY.get(by, "day")
        with portal.reading.reading() as db:
            periods = statistics.periods(db, who.here, chosen, who.zone, portal.now())
            devices = statistics.devices(db, who.here, portal.now())
            names = protection.names(db, who.here, {(one.box, one.mac) for one in devices})
        sums = {name: statistics.total([p.functions.get(name, Count()) for p in periods]) for name in FUNCTIONS}
        return portal.page(
            request,
            "statistics/page.html",
            by=chosen,
            every=list(_BY),
            over_time=_over_time(who, chosen, periods),
            sums=sums,
            all_=statistics.total(list(sums.values())),
            devices=devices,
            names=names,
            days=statistics.DEVICES_DAYS,
        )

    @get("/statistics.csv", right="statistics.see", sync_to_thread=True)
    def file(request: Request[Any, Any, Any], by: Word = "day") -> Response[str]:
        """Every period and function, one line each."""
        who, chosen = viewer(request), _BY.get(by, "day")
        with portal.reading.reading() as db:
            periods = statistics.periods(db, who.here, chosen, who.zone, portal.now())
        heads = ("period", "function", "blocked", "detected", "excepted", "clean")
        lines = [[_say(who, head) for head in heads]]
        for period in periods:
            for name, c in sorted(period.functions.items()):
                numbers = (c.blocked, c.detected, c.excepted, c.clean)
                lines.append([str(period.first), _name(who, name), *map(str, numbers)])
        headers = {**HEADERS, "content-disposition": f'attachment; filename="statistics-{chosen}.csv"'}
        text = sheet.BOM + "".join(sheet.row(line) for line in lines)
        return Response(text, media_type="text/csv; charset=utf-8", headers=headers)

    return Router("/", route_handlers=[page, file])


def _over_time(who: Viewer, by: By, periods: list[Period]) -> charts.Chart:
    labels = [_label(who, by, period) for period in periods]
    series = [
        Series(_say(who, "blocked"), [period.total.blocked for period in periods]),
        Series(_say(who, "detected"), [period.total.detected for period in periods]),
    ]
    return charts.bars(_say(who, f"chart_{by}"), labels, series, stacked=True)


def _label(who: Viewer, by: By, period: Period) -> str:
    day = period.first
    if who.locale == "en":
        return f"{day:%b %Y}" if by == "month" else f"{day.day} {day:%b}"
    return f"{day.year}/{day.month}" if by == "month" else f"{day.month}/{day.day}"


def _name(who: Viewer, function: str) -> str:
    return catalogue().say(who.locale, "alert_function", function)


def _say(who: Viewer, key: str) -> str:
    return catalogue().say(who.locale, "statistics", key)
