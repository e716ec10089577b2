"""HTTPS around the application: TLS, connections that say nothing, a certificate that is replaced while it runs."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any, Final

import uvicorn
from litestar import Litestar
from litestar.types import ASGIApp

from sekisho.appliance.core import sdnotify
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import stamp
from sekisho.appliance.core.punctual import HEAD_CAP_BYTES, LOOP, Punctual
from sekisho.center.settings import Api, Web
from sekisho.center.web.guard import guarded
from sekisho.center.web.sources import Listener

BEAT_S: Final = 5


def make_server(app: Litestar, web: Web) -> uvicorn.Server:
    """A server that is ready to `run`.

    Raises:
        RejectedInput: the certificate or its key cannot be used.

    """
    certificate = _Certificate(Path(web.cert), Path(web.key))
    if isinstance(web, Api):
        certificate.demand(Path(web.client_ca))

    async def beat() -> None:
        certificate.refresh()
        sdnotify.notify("READY=1\nWATCHDOG=1")

    config = uvicorn.Config(
        guarded(app),
        http=_Acquainted if isinstance(web, Api) else Punctual,
        ws="none",
        loop=LOOP,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(web.behind),
        forwarded_allow_ips=list(web.behind),
        limit_concurrency=web.connections,
        h11_max_incomplete_event_size=HEAD_CAP_BYTES,
        timeout_graceful_shutdown=5,
        callback_notify=beat,
        timeout_notify=BEAT_S,
        ssl_context_factory=lambda _config, _default: certificate.context,
    )
    return uvicorn.Server(config)


def listen(web: Web) -> socket.socket:
    """The socket to serve on.

    Raises:
        DeviceFault: the address or the port cannot be taken.

    """
    both = not web.address and socket.has_dualstack_ipv6()
    address = web.address or ("::" if both else "0.0.0.0")  # noqa: S104 - a server for everyone
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        made = socket.create_server((address, web.port), family=family, dualstack_ipv6=both, backlog=1024)
    except OSError as err:
        raise DeviceFault(f"The web service cannot listen on {address} port {web.port}: {err.strerror}.") from err
    return Listener(made, web.connections_of_one, web.behind)


class _Acquainted(Punctual):
    """Tells the application which certificate the other side has shown, as ASGI's TLS extension (0.2) spells it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.app = _introduced(self.app, (ssl.DER_cert_to_PEM_cert(shown),) if shown else ())


def _introduced(app: ASGIApp, chain: tuple[str, ...]) -> ASGIApp:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {**scope.get("extensions", {}), "tls": {"client_cert_chain": chain}}
        await app(scope, receive, send)

    return serve


class _Certificate:
    """The server's certificate; a new file is taken for the connections that come after it."""

    def __init__(self, cert: Path, key: Path) -> None:
        self._files, self._stamp = (cert, key), stamp(cert)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.context.load_cert_chain(cert, key)
        except (OSError, ValueError) as err:
            raise RejectedInput(f"The web service's certificate {cert} cannot be used: {err}.") from err

    def demand(self, client_ca: Path) -> None:
        """Let nobody past the handshake who has no certificate of this CA.

        Raises:
            RejectedInput: the file cannot be used.

        """
        try:
            self.context.load_verify_locations(client_ca)
        except (OSError, ValueError) as err:
            raise RejectedInput(f"The clients' CA {client_ca} cannot be used: {err}.") from err
        self.context.verify_mode = ssl.CERT_REQUIRED

    def refresh(self) -> None:
        """Take a replaced file; one that cannot be used yet (its key is still to come) is tried again."""
        now = stamp(self._files[0])
        if now == self._stamp:
            return
        try:
            self.context.load_cert_chain(*self._files)
        except (OSError, ValueError):
            return
        self._stamp = now
