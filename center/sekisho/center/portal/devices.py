"""Devices: which there are, and whether each is really protected, at a glance (the terms ask customers to look)."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException, ValidationException
from litestar.params import PathParameter, QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import devices, protection, tenants
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.portal.words import catalogue
from sekisho.center.protection import Shares, State, Watched

_STANDINGS: Final[dict[str, devices.Standing]] = {"": "", "expected": "expected", "stranger": "stranger"}
_ORDER: Final[tuple[State, ...]] = ("partly", "unknown", "guarded")
"""What needs a look comes first."""

Box = Annotated[str, PathParameter(max_length=64)]
Mac = Annotated[str, PathParameter(max_length=17)]
Word = Annotated[str, QueryParameter(max_length=160, pattern=r"^[ -~]*\Z")]


def router(portal: Portal) -> Router:
    """The list, one device, and what people say of it."""

    @get("/devices", right="devices.see", sync_to_thread=True)
    def listing(request: Request[Any, Any, Any], show: Word = "", before: Word = "") -> Response[Any]:
        who, now = viewer(request), portal.now()
        place = tuple(before.split(",", 2)) if before else ()
        if before and len(place) != 3:
            raise ValidationException()
        with portal.reading.reading() as db:
            found = protection.listing(db, who.here, now, before=place)
            counts = protection.count(db, who.here, now)
            sites = tenants.sites(db, who.tenant)
            loose = protection.nobodys(db, who.here, counts, now)
        shown = [device for device in found if show not in _ORDER or device.state == show]
        last = found[-1] if len(found) == protection.PAGE else None
        return portal.page(
            request,
            "devices/list.html",
            devices=sorted(shown, key=_urgency),
            numbers={name: sum(device.state == name for device in found) for name in _ORDER},
            strangers=sum(device.standing == "stranger" for device in found),
            chosen=show if show in _ORDER else "",
            counts=counts,
            sites=sites,
            most=protection.CONTRACT_DEVICES,
            loose=loose,
            reason=_reason,
            more=f"{last.last_seen},{last.box},{last.mac}" if last else "",
        )

    @get("/devices/{box:str}/{mac:str}", right="devices.see", sync_to_thread=True)
    def one(request: Request[Any, Any, Any], box: Box, mac: Mac) -> Response[Any]:
        who, now = viewer(request), portal.now()
        device = _find(portal, who, box, mac, now)
        with portal.reading.reading() as db:
            days = _by_day(protection.hours(db, who.here, box, mac, now), who.zone)
            site = tenants.sites(db, who.tenant).get(box, box)
        return portal.page(request, "devices/one.html", device=device, days=days, site=site, reason=_reason)

    @post("/devices/{box:str}/{mac:str}", right="devices.name", sync_to_thread=True)
    def say(request: Request[Any, Any, Any], data: Fields, box: Box, mac: Mac) -> Response[Any]:
        """What people call it, whose it is, and whether it belongs here."""
        who = viewer(request)
        _find(portal, who, box, mac, portal.now())
        name, whose, standing = (data.get(key, "").strip() for key in ("name", "whose", "standing"))
        if standing not in _STANDINGS:
            raise ValidationException()
        try:
            with portal.database.transaction() as db:
                chosen = _STANDINGS[standing]
                devices.enter(db, who.tenant, box, mac, name=name, whose=whose, standing=chosen)
                audit.note(db, who, "device.name", f"{box} {mac}")
        except RejectedInput:
            return portal.go(f"/devices/{box}/{mac}", "devices.too_long")
        return portal.go(f"/devices/{box}/{mac}", "devices.kept")

    return Router("/", route_handlers=[listing, one, say])


def _find(portal: Portal, who: Viewer, box: str, mac: str, now: dt.datetime) -> Watched:
    with portal.reading.reading() as db:
        device = protection.one(db, who.here, box, mac, now)
    if device is None:
        raise NotFoundException()
    return device


def _urgency(device: Watched) -> tuple[bool, int, str]:
    return (device.standing != "stranger", _ORDER.index(device.state), (device.own_name or device.name).lower())


def _reason(why: str) -> str:
    """The key of the sentence for a reason; a newer box may have one that this release does not know."""
    return f"why_{why}" if catalogue().has("devices", f"why_{why}") else "why_other"


def _by_day(hours: list[tuple[str, Shares]], zone: str) -> list[tuple[str, Shares]]:
    """Days as the viewer's calendar has them, the newest first; each with a time of its first hour."""
    days: dict[dt.date, tuple[str, Shares]] = {}
    for hour, shares in hours:
        day = dt.datetime.fromisoformat(hour).astimezone(zoneinfo.ZoneInfo(zone)).date()
        first, sums = days.get(day, (hour, Shares()))
        days[day] = (first, sums.plus(shares))
    return list(reversed(days.values()))
