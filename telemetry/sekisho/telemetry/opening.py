"""A TCP connection to the centre, direct or through an HTTP proxy, that another thread can end at any moment."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from contextlib import suppress
from typing import Final

from sekisho.telemetry.ways import Proxy, Way

STEP_S: Final = 5.0
"""For each step: the connection, each line of the proxy's answer, each message of the handshake."""
_REASON_CHARS: Final = 200


class ProxyRefused(OSError):
    """The proxy answered, but not with a connection."""


class Opening:
    """One attempt. The library's own proxy support reads one line, however long, and leaves the rest in the way."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._tunnel: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._given_up = threading.Event()

    def open(self) -> socket.socket:
        """Connect.

        Raises:
            OSError: no answer within `STEP_S` a step, refused, given up, or the proxy would not.

        """
        way = self._way
        made = self._through(way.proxy) if way.proxy else socket.create_connection((way.host, way.port), STEP_S)
        self._socket = made
        # An alert is one small packet: do not let it wait for the answer to the one before.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._given_up.is_set():
            made.close()
            raise TimeoutError("given up")
        return made

    def give_up(self) -> None:
        """End it: whoever waits for the socket stops waiting."""
        self._given_up.set()
        held = self._socket or (self._tunnel and self._tunnel.sock)
        if held:
            with suppress(OSError):
                # Not the TLS layer's own: that would wait for the other side.
                socket.socket.shutdown(held, socket.SHUT_RDWR)

    def _through(self, proxy: Proxy) -> socket.socket:
        """A tunnel (RFC 9110 9.3.6) through the proxy."""
        tunnel = self._tunnel = http.client.HTTPConnection(proxy.host, proxy.port, timeout=STEP_S)
        name = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers = {"Proxy-Authorization": f"Basic {name}"} if proxy.user else {}
        tunnel.set_tunnel(self._way.host, self._way.port, headers)
        try:
            tunnel.connect()
        except http.client.HTTPException as err:
            tunnel.close()
            raise ProxyRefused("does not answer as one") from err
        except OSError as err:
            if tunnel.sock is None and "Tunnel connection failed" not in str(err):
                raise ProxyRefused(f"cannot be reached ({err})") from err
            tunnel.close()
            raise ProxyRefused(str(err).removeprefix("Tunnel connection failed: ")) from err
        return tunnel.sock


def explain(err: Exception) -> str:
    """What went wrong, for who runs the box; a stranger's words in it are short and printable."""
    text = "".join(c if c.isprintable() else " " for c in str(err))[:_REASON_CHARS]
    match err:
        case ProxyRefused() if text.startswith(("407", "401")):  # Tinyproxy says 401
            return f"the proxy wants another name and password ({text[:3]})"
        case ProxyRefused():
            return f"the proxy: {text}"
        case ssl.SSLCertVerificationError():
            return f"who answers is not the monitoring centre: {text}"
        case ssl.SSLError() if err.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"):
            return "who answers speaks no TLS, it is not the monitoring centre (a log-in page of the network?)"
        case ConnectionError() if "WebSocket" in text:
            return "who answers is a web server, not the monitoring centre's broker"
        case TimeoutError():
            return "no answer in time"
        case _:
            return text
