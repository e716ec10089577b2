"""Exceptions: what is let pass although a rule would stop it, since when, until when, by whose word, how often used."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.orders import boxes, proposal, wishes
from sekisho.center.orders.proposal import NoException, Wanted
from sekisho.center.orders.wishes import ChangedMeanwhile, Made, State, Wish
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.scope import Scope
from sekisho.center.tenants import Locale
from sekisho.center.views.alerts import ALERT
from sekisho.center.views.orders import uses
from sekisho.policy import source
from sekisho.policy.applications import table
from sekisho.policy.categories import titles
from sekisho.telemetry import events

_FUNCTIONS: Final = ("url_category", "application", "keyword", "web_guard")
"""What an exception without an alert may be about."""


class Shown(msgspec.Struct, frozen=True):
    """One row of the list."""

    made: Made
    place: str
    wanted: Wanted
    entry: str
    """What people call the category or application."""
    state: State
    why: str
    removing: bool
    over: bool
    until: str
    hits: int
    last: str


def router(portal: Portal) -> Router:
    """Routes of the exceptions."""

    @get("/exceptions", right="settings.see", sync_to_thread=True)
    def overview(request: Request[Any, Any, Any]) -> Response[Any]:
        who = viewer(request)
        with portal.reading.reading() as db:
            places = boxes.named(db, who.here, who.tenant) if who.tenant else {}
            decided = {wish.box: wish for wish in wishes.of_tenant(db, who.here)}
            used = uses(db, who.here)
            devices = boxes.devices(db, who.here)
            rows = [
                _row(one, decided, places, used, portal.now(), who.locale) for one in wishes.exceptions(db, who.here)
            ]
        return portal.page(request, "exceptions/list.html", rows=rows, places=places, devices=devices)

    @get("/exceptions/new", right="exceptions.make", sync_to_thread=True)
    def new(request: Request[Any, Any, Any]) -> Response[Any]:
        """A form, filled from an alert where one is named: its rule, its device, its destination."""
        who, alert = viewer(request), request.query_params.get("alert", "")
        form = {"box": request.query_params.get("box", ""), "days": str(proposal.DAYS), "device": "", "destination": ""}
        if alert:
            with portal.reading.reading() as db:
                box, event = _event(db, who.here, alert)
            wanted = proposal.from_event(event)
            if wanted is None:
                return portal.page(request, "exceptions/none.html", alert=alert)
            form |= {"box": box, "alert": alert, **_fields(wanted)}
        return _form(portal, request, who, form)

    @post("/exceptions/new", right="exceptions.make", sync_to_thread=True)
    def make(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        who = viewer(request)
        wish = _wish(portal, who, data.get("box", ""))
        try:
            wanted, until = _wanted(data), _until(data, portal.now(), who.zone)
            reason = data.get("reason", "")
            change = wishes.prepare(wish, lambda now: proposal.add(now, wanted, reason, until))
            if change is not None:
                with portal.database.transaction() as db:
                    wishes.commit(db, change, who.name)
                    audit.note(db, who, "exception.add", f"{wish.box} {_about(wanted)}")
        except NoException as err:
            return _form(portal, request, who, dict(data), err.field)
        except ChangedMeanwhile:
            return _form(portal, request, who, dict(data), "meanwhile")
        except RejectedInput:
            return _form(portal, request, who, dict(data), "too_much")
        return portal.go("/exceptions", "exceptions.made")

    @post("/exceptions/remove", right="exceptions.make", sync_to_thread=True)
    def remove(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        who, ident = viewer(request), data.get("id", "")
        wish = _wish(portal, who, data.get("box", ""))
        if all(one.id != ident for one in wish.overlay.exception):
            raise NotFoundException()
        try:
            change = wishes.prepare(wish, lambda now: proposal.remove(now, ident))
            if change is not None:
                with portal.database.transaction() as db:
                    wishes.commit(db, change, who.name)
                    audit.note(db, who, "exception.remove", f"{wish.box} {ident}")
        except RejectedInput:
            return portal.go("/exceptions", "exceptions.again")
        return portal.go("/exceptions", "exceptions.removed")

    return Router("/", route_handlers=[overview, new, make, remove])


def _wish(portal: Portal, who: Viewer, box: str) -> Wish:
    with portal.reading.reading() as db:
        if not who.tenant or box not in boxes.named(db, who.here, who.tenant):
            raise NotFoundException()
        return wishes.of_box(db, who.here, box) or Wish(box, who.tenant)


def _event(db: sa.Connection, scope: Scope, alert: str) -> tuple[str, events.Event]:
    """An alert's event and its box, where it is this customer's."""
    if not alert.isascii() or not alert.isdigit() or len(alert) > 18:
        raise NotFoundException()
    query = sa.select(ALERT.c.box, ALERT.c.body).where(ALERT.c.id == int(alert), scope.of(ALERT.c.tenant))
    row = db.execute(query).first()
    if row is None:
        raise NotFoundException()
    try:
        return row.box, events.decode(row.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise NotFoundException() from err


def _form(
    portal: Portal, request: Request[Any, Any, Any], who: Viewer, form: dict[str, str], wrong: str = ""
) -> Response[Any]:
    with portal.reading.reading() as db:
        places = boxes.named(db, who.here, who.tenant) if who.tenant else {}
        devices = boxes.devices(db, who.here)
    filled = {"what": "", "device": "", "destination": "", "reason": "", "days": "", "alert": "", "box": "", **form}
    return portal.page(
        request, "exceptions/new.html", status=400 if wrong else 200, form=filled, wrong=wrong, places=places,
        devices=devices, functions=_FUNCTIONS, categories=titles(), applications=table(),
    )  # fmt: skip


def _fields(wanted: Wanted) -> dict[str, str]:
    what = f"sid:{wanted.sid}" if wanted.sid else f"{wanted.function}:{wanted.entry}"
    return {"what": what, "device": wanted.device, "destination": wanted.destination}


def _wanted(data: dict[str, str]) -> Wanted:
    """What the form asks for.

    Raises:
        NoException: the rule is none.

    """
    function, _, entry = data.get("what", "").partition(":")
    sid = 0
    if function == "sid":
        if not entry.isascii() or not entry.isdigit() or not 0 < int(entry[:10]) < 1 << 32:
            raise NoException("what")
        function, entry, sid = "", "", int(entry[:10])
    return Wanted(function, entry, sid, data.get("device", "").strip(), data.get("destination", ""))


def _until(data: dict[str, str], now: dt.datetime, zone: str) -> dt.datetime:
    """The end of the last day, where the viewer is.

    Raises:
        NoException: no number of days, or too many.

    """
    days = data.get("days", "")
    if not days.isascii() or not days.isdigit() or not 1 <= int(days[:4]) <= proposal.MAX_DAYS:
        raise NoException("days")
    today = now.astimezone(zoneinfo.ZoneInfo(zone)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + dt.timedelta(days=int(days[:4]) + 1)).astimezone(dt.UTC)


def _about(wanted: Wanted) -> str:
    what = f"sid {wanted.sid}" if wanted.sid else f"{wanted.function} {wanted.entry}"
    return " ".join(part for part in (what, wanted.device, wanted.destination) if part)


def _row(
    one: Made, decided: dict[str, Wish], places: dict[str, str], used: dict[tuple[str, str], tuple[int, str]],
    now: dt.datetime, locale: Locale,
) -> Shown:  # fmt: skip
    what, wish = one.exemption, decided.get(one.box)
    until = what.expires
    if until is not None and until.tzinfo is None:
        until = until.replace(tzinfo=dt.UTC)
    device = next((_device(name) for name in what.groups if name.startswith("x-")), "")
    destination = ", ".join((*what.domains, *what.addresses))
    wanted = Wanted(what.function, what.entry, what.sids[0] if what.sids else 0, device, destination)
    hits, last = used.get((one.box, one.id), (0, ""))
    state = wish.of(one.gone_n or one.n) if wish else "none"
    return Shown(
        one, places.get(one.box, one.box), wanted, _entry(wanted, locale), state,
        wish.why if wish and state == "refused" else "", bool(one.gone_n), until is not None and until <= now,
        utc.text(until - dt.timedelta(seconds=1)) if until else "", hits, last,
    )  # fmt: skip


def _entry(wanted: Wanted, locale: Locale) -> str:
    found = table().get(wanted.entry) if wanted.function == "application" else None
    title = titles().get(wanted.entry) if wanted.function == "url_category" else found
    return getattr(title, locale) if title else wanted.entry


def _device(group: str) -> str:
    digits = group.removeprefix("x-")
    mac = ":".join(digits[at : at + 2] for at in range(0, 12, 2))
    return mac if source.is_mac(mac) else ""
