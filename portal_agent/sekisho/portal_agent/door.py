"""The door in plain HTTP: one page that says why the browser will warn, and leads on. Asks nothing, sets no cookie.

Not a silent redirect: the warning that follows frightens people who were never told of it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar.types import Receive, Send

from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent import certificate, words
from sekisho.portal_agent.office import certificate_file
from sekisho.portal_agent.style import KINDS, static


class Door:
    """An ASGI application; goes behind a `Guard` of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        templates = Environment(loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined)
        self._template = templates.get_template("door.html")

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        name = scope["path"].removeprefix("/static/")
        if name in KINDS:
            await _answer(send, 200, KINDS[name].encode(), static(name))
            return
        host = headers.get(b"host", b"").decode("latin-1")
        bare = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        port = self._settings.page.port
        locale = words.preferred(headers.get(b"accept-language", b"").decode("latin-1"))
        body = self._template.render(
            both={key: msgspec.structs.asdict(each) for key, each in words.sentences()["door"].items()},
            locale=locale,
            locales=sorted(words.LOCALES, key=lambda each: each != locale),
            address=f"https://{bare}{'' if port == 443 else f':{port}'}/",
            fingerprint=certificate.fingerprint(certificate_file(self._settings)),
        )
        await _answer(send, 200 if scope["path"] == "/" else 404, b"text/html; charset=utf-8", body.encode())


async def _answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    headers: Any = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
