"""The API's application: its routes, who gets to them, and what every answer has in common.

A room is a module with `router(desk) -> Router`, named in `_ROOMS`. Every handler names its `right`, one of the
portal's; the application does not start where one is missing. "public" is for every partner.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from litestar import Litestar, Router
from litestar.exceptions import HTTPException
from litestar.types import Message
from litestar.types import Scope as AsgiScope

from sekisho.center.api import alerts, boxes, cases, devices, document, problems, reports, statistics, tenants
from sekisho.center.api.desk import Desk
from sekisho.center.api.versions import VERSIONS, Version
from sekisho.center.portal import rights
from sekisho.center.settings import CenterSettings

BODY_CAP_BYTES: Final = 16 << 10

_ROOMS: Final[tuple[Callable[[Desk], Router], ...]] = (
    tenants.router,
    alerts.router,
    devices.router,
    boxes.router,
    statistics.router,
    cases.router,
    reports.router,
)

log = logging.getLogger(__name__)


def create_app(
    settings: CenterSettings,
    versions: Sequence[Version] = VERSIONS,
    now: Callable[[], dt.datetime] | None = None,
) -> Litestar:
    """The application with the routes of every room.

    Raises:
        ValueError: a route does not say which right it needs.

    """
    desk = Desk(settings, versions, now)
    first = versions[0].name
    described = document.describe([Router(f"/{first}", route_handlers=[room(desk) for room in _ROOMS])], first)
    app = Litestar(
        [Router(f"/{first}", route_handlers=[document.router(described), *(room(desk) for room in _ROOMS)])],
        guards=[desk.guard],
        exception_handlers={HTTPException: problems.refused, Exception: problems.failed},
        before_send=[_sending(desk)],
        request_max_body_size=BODY_CAP_BYTES,
        openapi_config=None,
        logging_config=None,
        on_shutdown=[desk.close],
    )
    rights.check_routes(app)
    return app


def _sending(desk: Desk) -> Callable[[Message, AsgiScope], Any]:
    async def sending(message: Message, scope: AsgiScope) -> None:
        """Every answer says how long its version lives; every request is in the log with the partner's name."""
        if message["type"] != "http.response.start":
            return
        version = desk.version(scope["path"])
        message["headers"] = [*message["headers"], *(version.headers(desk.now()) if version else ())]
        who = scope["state"].get("viewer")
        template = scope.get("path_template") or "-"
        log.info("%s %s %s %d", who.name if who else "-", scope.get("method"), template, message["status"])

    return sending
