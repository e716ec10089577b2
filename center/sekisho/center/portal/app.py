"""The portal's application: which rooms have pages, who is asking, and what every answer has in common.

A room is a module with `router(portal) -> Router`, named in `_ROOMS`. Every handler names its `right`; the
application does not start where one is missing. Nobody gets further than the guard here without it.

What else a handler may say:
- `fresh="/members"` for what is dangerous: who has not proved a short while ago who they are does so first, and is led
  to that page;
- `background=True` for what a page asks by itself: it does not keep a session alive (a script says it of a page with
  the header x-background);
- `enrol=True` for what somebody may use who must add a second factor first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from litestar import Litestar, Request, Response, Router
from litestar.connection import ASGIConnection
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotAuthorizedException,
    PermissionDeniedException,
)
from litestar.handlers.base import BaseRouteHandler
from litestar.types import Guard

from sekisho.center.portal import (
    alerts,
    apply,
    assets,
    audit_page,
    boxes,
    cases,
    contract,
    customers,
    devices,
    entrance,
    exceptions_pages,
    fleet,
    forms,
    health_page,
    home,
    jobs_pages,
    live,
    members,
    notices,
    own,
    records,
    report,
    rights,
    rollouts,
    sessions,
    settings_pages,
    shell,
    statistics_page,
    update_page,
    vendors,
)
from sekisho.center.portal.access.signing_in import ENROL
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.rights import Right
from sekisho.center.settings import CenterSettings

BODY_CAP_BYTES: Final = 256 << 10

_ROOMS: Final[tuple[Callable[[Portal], Router], ...]] = (
    entrance.router,
    own.router,
    shell.router,
    home.router,
    alerts.router,
    live.router,
    notices.router,
    devices.router,
    records.router,
    health_page.router,
    statistics_page.router,
    customers.router,
    boxes.router,
    contract.router,
    apply.router,
    fleet.router,
    rollouts.router,
    jobs_pages.router,
    cases.router,
    vendors.router,
    report.router,
    settings_pages.router,
    update_page.router,
    exceptions_pages.router,
    members.router,
    audit_page.router,
)

BACKGROUND: Final = "x-background"
"""What a page's script says when it asks for something that nobody clicked on."""
_SAFE: Final = ("GET", "HEAD", "OPTIONS")

log = logging.getLogger(__name__)


def create_app(settings: CenterSettings) -> Litestar:
    """The application with the routes of every room.

    Raises:
        ValueError: a route does not say which right it needs.

    """
    portal = Portal(settings)
    app = Litestar(
        [assets.serve, *(room(portal) for room in _ROOMS)],
        guards=[_guard(portal)],
        exception_handlers={Detour: _detour(portal), HTTPException: portal.refusal, Exception: _fault(portal)},
        request_max_body_size=BODY_CAP_BYTES,
        openapi_config=None,
        logging_config=None,
        on_shutdown=[portal.close],
    )
    rights.check_routes(app)
    return app


def _guard(portal: Portal) -> Guard:
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        by_itself = handler.opt.get("background") or BACKGROUND in connection.headers
        who = await portal.identify(connection, used=not by_itself)
        connection.scope["state"]["viewer"] = who
        changes = connection.scope.get("method") not in _SAFE
        if changes:
            await forms.check_origin(connection, portal.origin)
        await forms.check_text(connection)
        right: Right | None = handler.opt.get("right")
        if right is None:  # the framework's own answer to OPTIONS: nobody needs it here
            raise MethodNotAllowedException()
        if right == "public":
            return
        if who is None:
            raise NotAuthorizedException()
        if not who.may(right):
            raise PermissionDeniedException()
        if changes:
            await forms.check_token(connection, who)
        if who.stage == "enrol" and not handler.opt.get("enrol"):
            raise Detour(ENROL)
        if (back := handler.opt.get("fresh")) and not sessions.fresh(who, portal.now()):
            raise Detour(f"/confirm?next={quote(back, safe='')}")

    return guard


class Detour(HTTPException):
    """Something comes first: another page."""

    status_code = 303

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path


def _detour(portal: Portal) -> Callable[[Request[Any, Any, Any], Detour], Response[Any]]:
    return lambda _request, err: portal.go(err.path)


def _fault(portal: Portal) -> Callable[[Request[Any, Any, Any], Exception], Response[Any]]:
    def answer(request: Request[Any, Any, Any], err: Exception) -> Response[Any]:
        if isinstance(err, RecursionError):  # a body of brackets, deeper than the decoder goes
            return portal.refuse(request, 400)
        log.error("a page failed", exc_info=err)
        return portal.refuse(request, 500)

    return answer
