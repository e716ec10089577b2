"""What surrounds the web application, whatever the route: a time cap, strict headers, one log line.

The log names the route and not the path, because a path may carry a signed link.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

ANSWER_S: Final = 15.0
"""From the request's head to the answer's end; a body that comes slower is not waited for. See `prolong`."""
_PROLONG: Final = "sekisho.prolong"

HEADERS: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    b"base-uri 'none'; frame-ancestors 'none'",
    b"cross-origin-opener-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"strict-transport-security": b"max-age=31536000",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
"""On every answer that does not set its own."""

log = logging.getLogger(__name__)


def guarded(app: ASGIApp) -> ASGIApp:
    """`app` with all of it."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await _serve(app, scope, receive, send)
        else:
            await app(scope, receive, send)

    return serve


def prolong(scope: Any, seconds: float) -> None:
    """Let this one answer take so long from now: for a route that goes on sending, called once it knows who asks."""
    longer = (scope.get("extensions") or {}).get(_PROLONG)
    if longer is not None:
        longer(seconds)


async def _serve(app: ASGIApp, scope: Any, receive: Receive, send: Send) -> None:
    began, status = time.monotonic(), 0

    async def sending(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            own = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *((k, v) for k, v in HEADERS.items() if k not in own)]
        await send(message)

    try:
        async with asyncio.timeout(ANSWER_S) as cap:
            loop = asyncio.get_running_loop()
            longer = {_PROLONG: lambda seconds: cap.reschedule(loop.time() + seconds)}
            scope["extensions"] = {**(scope.get("extensions") or {}), **longer}
            await app(scope, receive, sending)
    except TimeoutError:
        if not status:
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await sending({"type": "http.response.start", "status": 408, "headers": headers})
            await sending({"type": "http.response.body", "body": b'{"error": "Too slow."}', "more_body": False})
    finally:
        took_ms = 1000 * (time.monotonic() - began)
        peer = (scope.get("client") or ("-",))[0]
        log.info("%s %s %s %d %.0f ms", peer, scope["method"], scope.get("path_template") or "-", status, took_ms)
