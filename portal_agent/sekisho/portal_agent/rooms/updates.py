"""The box's own software: what is new, what it interrupts, and the owner's word on when it is used."""

from __future__ import annotations

import datetime as dt
import re
import time
from typing import Any, Final

import msgspec
from litestar import Response, get, post

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.firmware.keeper import desk
from sekisho.portal_agent import restarts
from sekisho.portal_agent.office import Asked, Office, back, form_of, office_of
from sekisho.portal_agent.rooms.care import BY, HOUR

LATER: Final = {"day": 86_400.0, "week": 7 * 86_400.0}
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,15}")


@get("/updates", right="owner", sync_to_thread=True)
def updates(request: Asked) -> Response[Any]:
    office = office_of(request)
    found: desk.Shown | None = None
    try:
        found = _ask(office, desk.Status())
    except (PeerError, RejectedInput):
        found = None
    return office.page(request, "updates.html", found=found, way=found.way if found else None, now=time.time())


@post("/updates/choice", right="owner", sync_to_thread=True)
def choose(request: Asked) -> Response[Any]:
    """Now, tonight at an hour, in the weekly window, later, or have the newest fetched: one of five words."""
    office, form = office_of(request), form_of(request)
    if form.get("when") == "fetch":
        _ask(office, desk.Stage(by=BY))
        office.note(request, "update_fetched")
        return back(request, "/updates", "update_fetched")
    number = _NUMBER.fullmatch(form.get("number", ""))
    if number is None:
        return back(request, "/updates", "update_unclear")
    counter = int(number[0])
    match form.get("when"):
        case "now" if form.get("sure") == "yes":
            _ask(office, desk.Activate(counter=counter, by=BY))
            office.note(request, "update_chosen", f"{counter}")
            return back(request, "/updates", "update_now")
        case "tonight" if hour := HOUR.fullmatch(form.get("at", "")):
            at = restarts.tonight(int(hour[1]), int(hour[2]), dt.datetime.now().astimezone())
            _ask(office, desk.Activate(counter=counter, by=BY, at=at.timestamp()))
            office.note(request, "update_chosen", f"{counter} {at.isoformat()}")
            return back(request, "/updates", "update_planned")
        case "window":
            _ask(office, desk.Activate(counter=counter, by=BY, window=True))
            office.note(request, "update_chosen", f"{counter} window")
            return back(request, "/updates", "update_planned")
        case "later" if wait := LATER.get(form.get("wait", "")):
            _ask(office, desk.Postpone(counter, time.time() + wait, BY))
            office.note(request, "update_put_off", f"{counter}")
            return back(request, "/updates", "update_put_off")
        case _:
            return back(request, "/updates", "update_unclear")


def _ask(office: Office, question: desk.Question) -> desk.Shown:
    frames = office.ask(office.settings.firmware_socket, question)
    return msgspec.json.decode(next(frames), type=desk.Shown)


HANDLERS: Final = (updates, choose)
