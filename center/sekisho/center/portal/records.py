"""The communication log as a page, and as a file for a spreadsheet."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from collections.abc import Iterator
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.exceptions import TooManyRequestsException
from litestar.params import QueryParameter
from litestar.response import Stream

from sekisho.center import protection, tenants, traffic
from sekisho.center.portal import audit, sheet
from sekisho.center.portal.amounts import octets
from sekisho.center.portal.rendering import HEADERS, Portal, shown
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.report.often import Often
from sekisho.center.traffic import Entry, Wanted
from sekisho.center.views.passages import KINDS
from sekisho.telemetry.events import Dns, Event, FileVerdict, Mail, Tls, Web

BOXES_CAP: Final = 8
"""Boxes searched at once; a customer with more chooses one."""
FILE_ROWS: Final = 10_000
FILE_STEPS: Final = 200
"""Rows of one file, and pages of the log that are read for it."""
CELL_CAP: Final = 2000
FILES_A_MINUTE: Final = 6
"""Of one person: each keeps a thread of the portal busy, of which everybody's pages are made too."""

Text = Annotated[str, QueryParameter(max_length=255)]
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}|mac-[a-z0-9]{10}")
_PLACE = re.compile(r"(\d{1,18})-(\d{1,18})")


class _Filter:
    """What the form of the page says, checked; what makes no sense is left out."""

    def __init__(self, who: Viewer, boxes: list[str], fields: dict[str, str]) -> None:
        self.box = fields["box"] if fields["box"] in boxes else ""
        if not self.box and len(boxes) > BOXES_CAP:
            self.box = boxes[0]
        self.kind = fields["kind"] if fields["kind"] in KINDS else ""
        mac = fields["mac"].strip().lower()
        mac = mac if mac.startswith("mac-") else mac.replace("-", ":")
        self.mac = mac if _MAC.fullmatch(mac) else ""
        self.site = fields["site"].strip().lower().strip(".")
        self.since, self.until = _day(fields["since"]), _day(fields["until"])
        zone = zoneinfo.ZoneInfo(who.zone)
        self.wanted = Wanted(
            (self.box,) if self.box else tuple(boxes),
            (self.kind,) if self.kind else KINDS,
            self.mac,
            self.site,
            _begin(self.since, zone) if self.since else 0,
            _begin(self.until + dt.timedelta(days=1), zone) if self.until else 1 << 60,
        )

    def fields(self) -> dict[str, str]:
        """What stays in the address from page to page."""
        days = {"since": str(self.since or ""), "until": str(self.until or "")}
        all_ = {"box": self.box, "kind": self.kind, "mac": self.mac, "site": self.site, **days}
        return {key: value for key, value in all_.items() if value}


def router(portal: Portal) -> Router:
    """The page and the file."""
    often = Often(FILES_A_MINUTE, 60)

    @get("/log", right="log.see", sync_to_thread=True)
    def page(
        request: Request[Any, Any, Any],
        box: Text = "",
        kind: Text = "",
        mac: Text = "",
        site: Text = "",
        since: Text = "",
        until: Text = "",
        after: Text = "",
    ) -> Response[Any]:
        who = viewer(request)
        fields = {"box": box, "kind": kind, "mac": mac, "site": site, "since": since, "until": until}
        place = _PLACE.fullmatch(after)
        with portal.reading.reading() as db:
            boxes = protection.boxes(db, who.here)
            chosen = _Filter(who, boxes, fields)
            start = (int(place[1]), int(place[2])) if place else None
            found = traffic.search(db, who.here, chosen.wanted, start)
            names = protection.names(db, who.here, {(entry.box, _mac(entry)) for entry in found.entries})
            devices = protection.named(db, who.here)
            sites = tenants.sites(db, who.tenant)
        lines = [_line(who, entry, names) for entry in found.entries]
        next_ = f"{found.place[0]}-{found.place[1]}" if found.place else ""
        return portal.page(
            request,
            "log/page.html",
            lines=lines,
            chosen=chosen,
            fields=chosen.fields(),
            boxes=boxes if len(boxes) > 1 else [],
            every_box=len(boxes) <= BOXES_CAP,
            devices=devices,
            kinds=KINDS,
            sites=sites,
            next=next_,
            looked=found.looked,
            reached=_time(found.place[0]) if found.place else "",
            rows=FILE_ROWS,
        )

    @get("/log.csv", right="log.see", sync_to_thread=True)
    def file(
        request: Request[Any, Any, Any],
        box: Text = "",
        kind: Text = "",
        mac: Text = "",
        site: Text = "",
        since: Text = "",
        until: Text = "",
    ) -> Stream:
        """The newest `FILE_ROWS` of what the page would show, written as they are read."""
        who = viewer(request)
        if not often.may(who.account, portal.now().timestamp()):
            raise TooManyRequestsException()
        fields = {"box": box, "kind": kind, "mac": mac, "site": site, "since": since, "until": until}
        with portal.reading.reading() as db:
            chosen = _Filter(who, protection.boxes(db, who.here), fields)
        with portal.database.transaction() as db:
            audit.note(db, who, "log.export", " ".join(f"{k}={v}" for k, v in chosen.fields().items()))
        headers = {**HEADERS, "content-disposition": 'attachment; filename="log.csv"', "cache-control": "no-store"}
        return Stream(_rows(portal, who, chosen.wanted), media_type="text/csv; charset=utf-8", headers=headers)

    return Router("/", route_handlers=[page, file])


def _rows(portal: Portal, who: Viewer, wanted: Wanted) -> Iterator[str]:
    zone, place, number = zoneinfo.ZoneInfo(who.zone), None, 0
    yield sheet.BOM + sheet.row(
        [_say(who, key) for key in ("time", "box", "device", "mac", "kind", "partner", "detail")]
    )
    for _ in range(FILE_STEPS):
        with portal.reading.reading() as db:
            found = traffic.search(db, who.here, wanted, place, page=500)
            names = protection.names(db, who.here, {(entry.box, _mac(entry)) for entry in found.entries})
        for entry in found.entries[: FILE_ROWS - number]:
            line = _line(who, entry, names)
            at = dt.datetime.fromisoformat(_time(entry.place[0])).astimezone(zone).isoformat(timespec="seconds")
            told = (at, entry.box, line["device"], _mac(entry), line["kind"], line["partner"], line["detail"])
            yield sheet.row([shown(text, CELL_CAP) for text in told])
        number += len(found.entries)
        place = found.place
        if place is None or number >= FILE_ROWS:
            break
    if place is not None or number > FILE_ROWS:
        yield sheet.row([_say(who, "cut")])


def _line(who: Viewer, entry: Entry, names: dict[tuple[str, str], str]) -> dict[str, str]:
    event, mac = entry.event, _mac(entry)
    ours = getattr(event, "flow", None)
    back = isinstance(event, FileVerdict)
    ip = (ours.dst_ip if back else ours.src_ip) if ours else ""
    return {
        "at": _time(entry.place[0]),
        "box": entry.box,
        "mac": mac,
        "device": names.get((entry.box, mac)) or ip or mac,
        "ip": ip,
        "kind": _say(who, f"kind_{entry.kind}"),
        "partner": _partner(event),
        "detail": _detail(who, event),
    }


def _mac(entry: Entry) -> str:
    flow = getattr(entry.event, "flow", None)
    return flow.mac if flow else ""


def _partner(event: Event) -> str:
    match event:
        case Web(host=name) | Tls(sni=name) | Dns(name=name) | FileVerdict(host=name) if name:
            return name
        case Mail():
            return ", ".join(event.mail_to)
        case FileVerdict():
            return event.mail_from or event.flow.src_ip
        case Web() | Tls() | Dns():
            return event.flow.dst_ip
        case _:
            return ""


def _detail(who: Viewer, event: Event) -> str:
    match event:
        case Web():
            return " ".join(text for text in (event.method, event.url, str(event.status or "")) if text)
        case Tls():
            return " ".join(text for text in (event.application, event.version) if text)
        case Dns():
            return event.rrtype
        case Mail():
            return _say(who, "mail_from", sender=event.mail_from)
        case FileVerdict():
            size, outcome = octets(event.size), _say(who, f"outcome_{event.outcome}")
            return f"{outcome}: {event.file_name or event.sha256[:16]} ({size})"
        case _:
            return ""


def _say(who: Viewer, key: str, **values: object) -> str:
    return catalogue().say(who.locale, "log", key, **values)


def _time(at_us: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=min(at_us, 1 << 57))).isoformat()


def _day(text: str) -> dt.date | None:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2200 else None


def _begin(day: dt.date, zone: zoneinfo.ZoneInfo) -> int:
    return traffic.micros(dt.datetime.combine(day, dt.time(), zone))
