"""Sockets and servers: one HTTPS server on the box's own addresses, and one for the door in plain HTTP."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any, Final

import uvicorn
from litestar.types import ASGIApp

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.punctual import HEAD_CAP_BYTES, LOOP, Punctual
from sekisho.appliance.core.settings import Settings

AT_ONCE: Final = 64
"""Connections of each server; one office looks at one box."""
_IP_FREEBIND: Final = 15
_IPV6_FREEBIND: Final = 78


def listen(settings: Settings, port: int) -> list[socket.socket]:
    """One socket for each of the box's own addresses; they may come up later than this daemon.

    Raises:
        DeviceFault: a port cannot be taken.

    """
    made: list[socket.socket] = []
    for text in settings.bridge.addresses:
        address = text.partition("/")[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        made.append(sock)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
            sock.bind((address, port))
            sock.listen(AT_ONCE)
        except OSError as err:
            for each in made:
                each.close()
            raise DeviceFault(f"The page cannot listen on {address} port {port}: {err.strerror}.") from err
    return made


def server(app: ASGIApp, certificate: Path | None) -> uvicorn.Server:
    """A server that is ready to serve: HTTPS with a certificate, else HTTP.

    Raises:
        DeviceFault: the certificate cannot be used.

    """
    tls: dict[str, Any] = {}
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate)
        except (OSError, ValueError) as err:
            raise DeviceFault(f"The page's certificate {certificate} cannot be used: {err}.") from err
        tls = {"ssl_context_factory": lambda _config, _default: context}
    config = uvicorn.Config(
        app,
        http=Punctual, ws="none", loop=LOOP, lifespan="off", access_log=False,
        log_config=None, server_header=False, proxy_headers=False, limit_concurrency=AT_ONCE,
        h11_max_incomplete_event_size=HEAD_CAP_BYTES, timeout_graceful_shutdown=3, **tls,
    )  # fmt: skip
    return uvicorn.Server(config)
