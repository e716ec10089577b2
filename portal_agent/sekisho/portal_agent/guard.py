"""What every request meets before the application, and every answer carries; nothing here knows a route.

Shut while the rule that keeps the internet's side out is not in force (appliance.doorway). Only neighbours are
answered: senders in the networks of the box's own addresses. Only under the box's own address (Host, RFC 9110 7.2),
so that no web page elsewhere can be rebound onto this one; a form only from a page of our own (Origin, RFC 6454).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Send

from sekisho.appliance.core.settings import Settings

ANSWER_S: Final = 30.0
"""From the request's head to the beginning of the answer."""
DOWNLOAD_S: Final = 600.0
"""To its end: a file may be large and the radio slow."""
CSP: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": CSP.encode(),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    # Not no-referrer: browsers would send forms with "Origin: null" (Fetch, 4.6).
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}

log = logging.getLogger(__name__)


class Guard:
    """The rules for one box; `refusal` is pure."""

    def __init__(self, settings: Settings, port: int, scheme: str) -> None:
        interfaces = [ipaddress.ip_interface(address) for address in settings.bridge.addresses]
        self._settings = settings
        alone = any(interface.network.num_addresses == 1 for interface in interfaces)
        # An address without its network says nothing of who is near.
        home = settings.inspection.home_networks if alone else ()
        self._networks = [*(interface.network for interface in interfaces), *map(ipaddress.ip_network, home)]
        names = [f"[{i.ip}]" if i.version == 6 else str(i.ip) for i in interfaces]
        standard = port == (443 if scheme == "https" else 80)
        self.hosts = {f"{name}:{port}" for name in names} | (set(names) if standard else set())
        self._origins = {f"{scheme}://{host}" for host in self.hosts}

    def refusal(self, method: str, peer: str, headers: dict[str, list[str]]) -> int:
        """The status with which it is refused; 0 when it may go on."""
        if not self._settings.doorway.exists():
            return 503
        if not self._near(peer):
            return 403
        if [host.lower() for host in headers.get("host", [])][:2] not in ([host] for host in self.hosts):
            return 421
        if method not in ("GET", "POST"):
            return 405
        if method == "POST" and not (len(o := headers.get("origin", [])) == 1 and o[0] in self._origins):
            return 403
        return 0

    def _near(self, peer: str) -> bool:
        try:
            ip = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(ip.version == network.version and ip in network for network in self._networks)


def guarded(app: ASGIApp, guard: Guard) -> ASGIApp:
    """`app` behind the guard."""

    async def serve(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        status = guard.refusal(scope["method"], (scope.get("client") or ("", 0))[0], headers)
        sending = _Sending(send)
        if status:
            await sending.plain(status)
            return
        try:
            async with asyncio.timeout(ANSWER_S) as limit:
                sending.limit = limit
                await app(scope, receive, sending)
        except TimeoutError:
            if not sending.begun:
                await sending.plain(408)

    return serve


class _Sending:
    """Adds the headers, and lets an answer that has begun take its time."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.limit: asyncio.Timeout | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            if self.limit:
                self.limit.reschedule(asyncio.get_running_loop().time() + DOWNLOAD_S)
            own = {name.lower() for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *((k, v) for k, v in HEADERS.items() if k not in own)]
        await self._send(message)

    async def plain(self, status: int) -> None:
        """An answer without the application: a number and nothing else."""
        headers: Any = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": f"{status}\n".encode(), "more_body": False})
