"""The alerts' pages: the list with its filters, one alert with what to do about it, and what people did."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from contextlib import suppress
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.cases import desk as cases
from sekisho.center.devices import DEVICE
from sekisho.center.portal import alert_view, alert_work
from sekisho.center.portal.alert_work import NOTE_CAP, State
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal, shown
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.scope import Scope
from sekisho.center.views import alert_list
from sekisho.center.views.alert_list import Wanted, Whole
from sekisho.center.views.alerts import ALERT, FUNCTIONS

DEVICES_CAP: Final = 200
ID_CAP: Final = 1 << 62
_MAC: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_STATES: Final = ("open", "done")
_Number = FromPath[int]
_Word = Annotated[str, QueryParameter(max_length=80)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/alerts", right="alerts.see", sync_to_thread=True)
    def overview(
        request: Request[Any, Any, Any],
        stars: _Word = "",
        show: _Word = "",
        mac: _Word = "",
        function: _Word = "",
        since: _Word = "",
        until: _Word = "",
        q: _Word = "",
        before: _Word = "",
    ) -> Response[Any]:
        """The list, newest first; what a filter does not know is as if it were not set."""
        who = viewer(request)
        chosen = {
            "stars": stars if stars in ("1", "2", "3") else "",
            "show": show if show in _STATES else "",
            "mac": mac if _MAC.fullmatch(mac) else "",
            "function": function if function in FUNCTIONS else "",
            "since": since if _day(since) else "",
            "until": until if _day(until) else "",
            "q": shown(q, 80).strip(),
        }
        wanted = _wanted(chosen, before, who.zone)
        with portal.reading.reading() as db:
            found = alert_list.listed(db, who.here, wanted)
            entries = alert_view.entries(db, found.lines, who.locale)
            devices = _devices(db, who.here)
            latest = alert_list.newest(db, who.here)
        kept = {key: value for key, value in chosen.items() if value}
        further = "/alerts?" + urlencode({**kept, "before": found.next}) if found.next else ""
        return portal.page(
            request,
            "alerts/list.html",
            entries=entries,
            chosen=chosen,
            filtered=bool(kept),
            functions=FUNCTIONS,
            devices=devices,
            latest=latest,
            first_page=not wanted.before,
            first="/alerts?" + urlencode(kept) if kept else "/alerts",
            further=further,
            more_to_search=found.more_to_search,
        )

    @get("/alerts/{alert:int}", right="alerts.see", sync_to_thread=True)
    def one(request: Request[Any, Any, Any], alert: _Number) -> Response[Any]:
        """What happened, why it matters, what to do."""
        who = viewer(request)
        whole = _find(portal, who, alert)
        if not whole.line.seen_at and who.role in ("admin", "member"):
            with suppress(DeviceFault):  # it is shown even when that cannot be written down
                _see(portal, who, whole)
        with portal.reading.reading() as db:
            detail = alert_view.detail(db, whole, who.locale)
            others = alert_view.entries(db, alert_list.others(db, who.scope, whole), who.locale)
            notes = alert_list.notes(db, who.scope, alert)
            case = cases.case_of(db, who.scope, whole.line.box, whole.epoch, whole.seq)
        values: dict[str, Any] = {
            "detail": detail,
            "whole": whole,
            "others": others,
            "notes": notes,
            "case": case,
            "note_cap": NOTE_CAP,
            "functions": FUNCTIONS,
        }
        return portal.page(request, "alerts/one.html", **values)

    @post("/alerts/{alert:int}/state", right="alerts.act", sync_to_thread=True)
    def handle(request: Request[Any, Any, Any], alert: _Number, data: Fields) -> Response[Any]:
        """It was dealt with, or it has to be again."""
        who = viewer(request)
        to: State = "done" if data.get("to") == "done" else "open"
        whole = _find(portal, who, alert)
        with portal.database.transaction() as db:
            alert_work.handle(db, who, whole.line, to, utc.text(portal.now()))
        return portal.go(f"/alerts/{alert}", f"alerts.said_{to}")

    @post("/alerts/{alert:int}/note", right="alerts.act", sync_to_thread=True)
    def write(request: Request[Any, Any, Any], alert: _Number, data: Fields) -> Response[Any]:
        """Somebody's note about it."""
        who, text = viewer(request), alert_work.clean(data.get("text", ""))
        whole = _find(portal, who, alert)
        if not text:
            return portal.go(f"/alerts/{alert}", "alerts.said_empty")
        with portal.database.transaction() as db:
            alert_work.note(db, who, whole.line, text, utc.text(portal.now()))
        return portal.go(f"/alerts/{alert}", "alerts.said_note")

    return Router("/", route_handlers=[overview, one, handle, write])


def _find(portal: Portal, who: Viewer, alert: int) -> Whole:
    whole = None
    if 0 < alert < ID_CAP:
        with portal.reading.reading() as db:
            whole = alert_list.find(db, who.scope, alert)
    if whole is None:
        raise NotFoundException()
    return whole


def _see(portal: Portal, who: Viewer, whole: Whole) -> None:
    at = utc.text(portal.now())
    mine = (ALERT.c.tenant == whole.line.tenant, ALERT.c.id == whole.line.id, ALERT.c.seen_at == "")
    with portal.database.transaction() as db:
        if db.execute(ALERT.update().where(*mine).values(seen_at=at)).rowcount:
            alert_work.keep(db, who, whole.line, "seen", "", at)


def _wanted(chosen: dict[str, str], before: str, zone: str) -> Wanted:
    number = int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else 0
    until = _day(chosen["until"])
    return Wanted(
        stars=int(chosen["stars"] or 0),
        state=chosen["show"],
        mac=chosen["mac"],
        function=chosen["function"],
        since=_begins(_day(chosen["since"]), zone),
        until=_begins(until + dt.timedelta(days=1) if until else None, zone),
        text=chosen["q"],
        before=number,
    )


def _day(text: str) -> dt.date | None:
    """A day a calendar has, within the years a database's times are in."""
    try:
        day = dt.date.fromisoformat(text) if len(text) == 10 else None
    except ValueError:
        return None
    return day if day and 2000 <= day.year < 2200 else None


def _begins(day: dt.date | None, zone: str) -> str:
    """When the day begins for the viewer, as stored times are written."""
    if day is None:
        return ""
    return utc.text(dt.datetime.combine(day, dt.time(), zoneinfo.ZoneInfo(zone)).astimezone(dt.UTC))


def _devices(db: sa.Connection, scope: Scope) -> list[tuple[str, str]]:
    """(MAC, name) to choose from."""
    key = (DEVICE.c.tenant, DEVICE.c.box, DEVICE.c.mac)
    query = sa.select(DEVICE.c.mac, DEVICE.c.name).where(scope.of(DEVICE.c.tenant)).order_by(*key).limit(DEVICES_CAP)
    return sorted(((row.mac, row.name) for row in db.execute(query)), key=lambda one: (not one[1], one[1], one[0]))
