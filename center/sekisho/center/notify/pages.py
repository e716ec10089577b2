"""The pages behind a mail's buttons. GET shows what would be done, only POST does it.

Mail scanners and previews follow links; they must not answer for people. A token is all that is needed: whoever has
the mail may answer it, and nothing else is shown than what the mail said.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Annotated, Final

import jinja2
from litestar import MediaType, Response, Router, get, post
from litestar.params import Parameter

from sekisho.center.database import Database
from sekisho.center.notify import links, requests, words
from sekisho.center.notify.links import Grant
from sekisho.center.notify.requests import Subject
from sekisho.center.notify.view import view, when
from sekisho.center.settings import CenterSettings
from sekisho.center.tenants import Locale

Token = Annotated[str, Parameter(max_length=links.TOKEN_CAP)]
_BOTH: Final[tuple[Locale, ...]] = ("ja", "en")


def router(settings: CenterSettings) -> Router:
    """The routes under /t."""
    return make_router(settings.store, settings.notify.help_desk, lambda: dt.datetime.now(dt.UTC))


def make_router(store: str, help_desk: str, now: Callable[[], dt.datetime]) -> Router:
    """The same with another clock."""
    database, reading = Database(store), Database(store, read_only=True)

    def find(token: str) -> tuple[Grant, Subject, bool] | None:
        with reading.reading() as db:
            grant = links.read(links.keys(db), token, now())
            about = requests.subject(db, grant) if grant else None
            return (grant, about, requests.kept(db, grant)) if grant and about else None

    @get("/{token:str}", sync_to_thread=True)
    def show(token: Token) -> Response[str]:
        found = find(token)
        if found is None:
            return _page(404, _BOTH, "unknown", help_desk)
        grant, about, done = found
        if grant.expired:
            return _page(410, (about.letter.locale,), "expired", help_desk)
        return _page(200, (about.letter.locale,), "done" if done else "ask", help_desk, grant, about)

    @post("/{token:str}", status_code=200, sync_to_thread=True)
    def act(token: Token) -> Response[str]:
        found = find(token)
        if found is None:
            return _page(404, _BOTH, "unknown", help_desk)
        grant, about, done = found
        if grant.expired:
            return _page(410, (about.letter.locale,), "expired", help_desk)
        if not done:
            with database.transaction() as db:
                requests.keep(db, grant, about, now())
        return _page(200, (about.letter.locale,), "done", help_desk, grant, about)

    return Router("/t", route_handlers=[show, act])


def _page(
    status: int,
    locales: tuple[Locale, ...],
    state: str,
    help_desk: str,
    grant: Grant | None = None,
    about: Subject | None = None,
) -> Response[str]:
    template, style, policy = _template()
    action = grant.action if grant else ""
    body = template.render(
        locale=locales[0],
        style=style,
        title=words.say(locales[0], "page", f"title_{action}") if action else "",
        sentences=[words.say(locale, "page", f"{state}_{action}" if action else state) for locale in locales],
        about=_about(about) if about else "",
        button=words.say(locales[0], "page", f"do_{action}") if state == "ask" else "",
        help=words.say(locales[0], "frame", "help", help=help_desk) if help_desk else "",
    )
    headers = {"content-security-policy": policy, "x-robots-tag": "noindex"}
    return Response(body, media_type=MediaType.HTML, status_code=status, headers=headers)


def _about(about: Subject) -> str:
    letter = about.letter
    at = when(letter.at, letter.time_zone, letter.locale)
    return words.say(letter.locale, "page", "about", at=at, title=view(letter).title)


@cache
def _template() -> tuple[jinja2.Template, str, str]:
    """(page, its style, the policy that allows that style and the form and nothing else)."""
    style = resources.files(__package__).joinpath("templates/page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    loader = jinja2.PackageLoader("sekisho.center.notify", "templates")
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "page.html"
    )
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'"
    return page, style, f"{policy}; frame-ancestors 'none'"
