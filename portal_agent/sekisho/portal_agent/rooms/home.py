"""The first screen, without a password: is this office protected now, and is the box well. Nothing about a person."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Response, get, post
from litestar.response import Redirect

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.portal_agent import state
from sekisho.portal_agent.office import LANGUAGE, Asked, form_of, office_of
from sekisho.portal_agent.style import KINDS, static
from sekisho.portal_agent.words import LOCALES
from sekisho.telemetry.counter import LinkAsk, LinkTold

YEAR_S: Final = 365 * 86400
PAGES: Final = ("/", "/sign-in", "/devices", "/quarantine", "/sent", "/sent/fields", "/updates", "/care")


@get("/", right="public", sync_to_thread=True)
def home(request: Asked) -> Response[Any]:
    office = office_of(request)
    link: LinkTold | None = None
    with suppress(PeerError, RejectedInput):
        link = msgspec.json.decode(next(office.ask(office.settings.sent_socket, LinkAsk())), type=LinkTold)
    return office.page(
        request,
        "home.html",
        facts=state.facts(office.settings, dt.datetime.now().astimezone()),
        link=link,
        link_word=_link_word(link),
        waiting=sum(lane.rows for lane in link.lanes) if link else 0,
        version=version("sekisho"),
    )


def _link_word(link: LinkTold | None) -> str:
    if link is None:
        return "unknown"
    if not link.configured:
        return "alone"
    if not link.connected:
        return "away"
    return "well" if link.link.answered else "silent"


@post("/language", right="public", sync_to_thread=False)
def language(request: Asked) -> Redirect:
    """Remember the language that was chosen, and back to a page of ours, nowhere else."""
    form = form_of(request)
    page = form.get("page", "")
    answer = Redirect(page if page in PAGES else "/", status_code=303)
    if form.get("to") in LOCALES:
        answer.set_cookie(LANGUAGE, form["to"], max_age=YEAR_S, path="/", secure=True, httponly=True, samesite="strict")
    return answer


@get("/static/page.css", right="public", media_type=KINDS["page.css"], sync_to_thread=False)
def style() -> bytes:
    return static("page.css")


@get("/static/icon.svg", right="public", media_type=KINDS["icon.svg"], sync_to_thread=False)
def icon() -> bytes:
    return static("icon.svg")


HANDLERS: Final = (home, language, style, icon)
