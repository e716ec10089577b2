"""Signing in with the owner's password, signing out, changing it."""

from __future__ import annotations

import math
from typing import Any, Final

from litestar import Response, get, post
from litestar.response import Redirect

from sekisho.portal_agent.office import COOKIE, Asked, back, form_of, office_of
from sekisho.portal_agent.password import MAX_CHARS, MIN_CHARS


@get("/sign-in", right="public", sync_to_thread=False)
def sign_in_page(request: Asked) -> Response[Any]:
    if request.state.session is not None:
        return Redirect("/", status_code=303)
    return _page(request)


@post("/sign-in", right="public", sync_to_thread=True)
def sign_in(request: Asked) -> Response[Any]:
    office, peer = office_of(request), _peer(request)
    now = office.now()
    if wait := office.delays.wait_s(peer, now):
        return _page(request, 429, wait)
    office.delays.tried(now)
    if not office.password.is_right(form_of(request).get("password", "")):
        count = office.delays.wrong(peer, office.now())
        office.note(request, "wrong_password", str(count))
        return _page(request, 403, office.delays.wait_s(peer, office.now()), wrong=True)
    office.delays.right(peer)
    office.sessions.end(request.cookies.get(COOKIE, ""))
    office.note(request, "signed_in")
    answer = Redirect("/", status_code=303)
    answer.set_cookie(COOKIE, office.sessions.begin(now), path="/", secure=True, httponly=True, samesite="strict")
    return answer


@post("/sign-out", right="owner", sync_to_thread=False)
def sign_out(request: Asked) -> Redirect:
    office = office_of(request)
    office.sessions.end(request.cookies.get(COOKIE, ""))
    office.note(request, "signed_out")
    answer = Redirect("/", status_code=303)
    answer.set_cookie(COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="strict")
    return answer


@post("/care/password", right="owner", sync_to_thread=True)
def change(request: Asked) -> Response[Any]:
    """The old password is asked for again: an unlocked screen is not enough. All other sessions end."""
    office, form, peer = office_of(request), form_of(request), _peer(request)
    old, new = form.get("old", ""), form.get("new", "")
    now = office.now()
    if office.delays.wait_s(peer, now):
        return back(request, "/care", "password_wait")
    office.delays.tried(now)
    if not office.password.is_right(old):
        office.note(request, "wrong_password", str(office.delays.wrong(peer, now)))
        return back(request, "/care", "password_wrong")
    if new != form.get("again", "") or not MIN_CHARS <= len(new) <= MAX_CHARS:
        return back(request, "/care", "password_unfit")
    office.password.change(new)
    office.delays.right(peer)
    office.sessions.end_all()
    office.keep_sessions()
    office.note(request, "password_changed")
    token = office.sessions.begin(now)
    request.state.session = office.sessions.of(token, now)
    answer = back(request, "/care", "password_changed")
    answer.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="strict")
    return answer


def _page(request: Asked, status: int = 200, wait_s: float = 0.0, *, wrong: bool = False) -> Response[Any]:
    wait = math.ceil(wait_s)
    page = office_of(request).page(request, "sign_in.html", status, wait=wait, wrong=wrong)
    if wait:
        page.headers["retry-after"] = str(wait)
    return page


def _peer(request: Asked) -> str:
    return request.client.host if request.client else ""


HANDLERS: Final = (sign_in_page, sign_in, sign_out, change)
