"""What uvicorn lacks for a server strangers reach: an end for connections that do not ask, and for TLS that hangs."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HANDSHAKE_S: Final = 10.0
"""TLS must stand after this, and be taken down after this."""
HEAD_S: Final = 10.0
"""A connection that has no complete head of a request this long after its start or its last answer is closed."""
HEAD_CAP_BYTES: Final = 16 << 10
LOOP: Final = f"{__name__}:Loop"
"""`uvicorn.Config(loop=LOOP)`."""


class Loop(asyncio.SelectorEventLoop):
    """uvicorn leaves TLS its minute for the handshake."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        if kwargs.get("ssl"):
            kwargs |= {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": HANDSHAKE_S}
        made: asyncio.Server = await super().create_server(*args, **kwargs)
        return made


class Punctual(H11Protocol):
    """Closes what does not ask for anything in time: uvicorn's own timer ends with the first byte of a next head."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._late = self.loop.call_later(HEAD_S, self._close_if_silent)

    def on_response_complete(self) -> None:
        self._late.cancel()
        self._late = self.loop.call_later(HEAD_S, self._close_if_silent)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._late.cancel()
        super().connection_lost(exc)

    def _close_if_silent(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
