"""The page's routes and what comes before each: every one names its right, or the application does not start.

`right="public"`: whoever is in the office, for what is about no person. `right="owner"`: whoever knows the password.
A form of somebody signed in carries the session's token; forms are small and URL-encoded, nothing else is read.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import parse_qsl

from litestar import Litestar, MediaType, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Redirect

from sekisho.appliance.core.errors import PeerError, SekishoError
from sekisho.portal_agent.office import Asked, Office, office_of
from sekisho.portal_agent.rooms import care, devices, home, quarantine, sent, sign, updates
from sekisho.portal_agent.sessions import is_of

BODY_CAP_BYTES: Final = 8 << 10
FIELDS_CAP: Final = 16
RIGHTS: Final = ("public", "owner")
_ROOMS: Final = (home, sign, devices, quarantine, sent, updates, care)
_FORM: Final = "application/x-www-form-urlencoded"

log = logging.getLogger(__name__)


def create_app(office: Office) -> Litestar:
    """The application of one box.

    Raises:
        ValueError: a route has no right.

    """
    handlers = [handler for room in _ROOMS for handler in room.HANDLERS]
    for handler in handlers:
        if handler.opt.get("right") not in RIGHTS:
            raise ValueError(f"the route {sorted(handler.paths)} names no right")
    app = Litestar(
        handlers,
        before_request=_before,
        exception_handlers={SekishoError: _failed, HTTPException: _refused, Exception: _fault},
        request_max_body_size=BODY_CAP_BYTES,
        openapi_config=None,
        logging_config=None,
    )
    app.state.office = office
    return app


async def _before(request: Asked) -> Response[Any] | None:
    office = office_of(request)
    request.state.session = session = office.session(request)
    request.state.form = {}
    handler: HTTPRouteHandler = request.scope["route_handler"]  # type: ignore[assignment]  # of its many kinds
    if request.method == "POST":
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
            return _words_only(request, 415)
        request.state.form = _fields(await request.body())
        if session is not None and not is_of(session, request.state.form.get("csrf", "")):
            return _words_only(request, 403)
    if handler.opt["right"] == "owner" and session is None:
        return Redirect("/sign-in", status_code=303)
    return None


def _fields(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=FIELDS_CAP, errors="strict")
    except ValueError:
        return {}
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else {}


def _failed(request: Asked, err: SekishoError) -> Response[Any]:
    """Another daemon does not answer, or refuses: said in the owner's words, with the other's own beside them."""
    status = 503 if isinstance(err, PeerError) else 409
    if not hasattr(request.state, "session"):
        return _words_only(request, status)
    return office_of(request).page(request, "failed.html", status, away=isinstance(err, PeerError), detail=str(err))


def _refused(request: Asked, err: HTTPException) -> Response[Any]:
    return _words_only(request, err.status_code)


def _fault(request: Asked, err: Exception) -> Response[Any]:
    log.error("a request failed", exc_info=err)
    return _words_only(request, 500)


def _words_only(request: Asked, status: int) -> Response[Any]:
    if not hasattr(request.state, "session"):
        request.state.session = None
    page = office_of(request).page(request, "refused.html", status, number=status)
    page.media_type = MediaType.HTML
    return page
