"""The web application: which rooms offer routes, and what every answer of theirs has in common.

A room that answers requests has a module with `router(settings) -> Router`, named in `_ROOMS`. Bodies have at most
`BODY_CAP_BYTES`; an error is `{"error": "..."}` without inner detail. What surrounds the application is in `guard`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from litestar import Litestar, MediaType, Request, Response, Router, get
from litestar.exceptions import HTTPException

from sekisho.center.ca import routes as ca_routes
from sekisho.center.notify import pages
from sekisho.center.settings import CenterSettings

BODY_CAP_BYTES: Final = 64 << 10

_ROOMS: Final[tuple[Callable[[CenterSettings], Router], ...]] = (ca_routes.router, pages.router)

log = logging.getLogger(__name__)


@get("/health", media_type=MediaType.TEXT)
async def _health() -> str:
    return "ok\n"


def create_app(settings: CenterSettings) -> Litestar:
    """The application with the routes of every room."""
    return Litestar(
        [_health, *(room(settings) for room in _ROOMS)],
        exception_handlers={HTTPException: _refusal, Exception: _fault},
        request_max_body_size=BODY_CAP_BYTES,
        openapi_config=None,
        logging_config=None,
    )


def _refusal(_request: Request[Any, Any, Any], err: HTTPException) -> Response[dict[str, str]]:
    return Response({"error": err.detail or "Refused."}, status_code=err.status_code, headers=err.headers)


def _fault(_request: Request[Any, Any, Any], err: Exception) -> Response[dict[str, str]]:
    if isinstance(err, RecursionError):  # a body of brackets, deeper than the decoder goes
        return Response({"error": "Refused."}, status_code=400)
    log.error("a request failed", exc_info=err)
    return Response({"error": "The centre cannot answer now."}, status_code=500)
