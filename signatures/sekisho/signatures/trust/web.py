"""The channel's files from an HTTPS server that may be hostile, or stand behind one.

No redirects, no content encodings, no cookies, no retries: a static server needs none of them. Whatever part of an
answer a server dribbles (head, chunk sizes, body), a watch ends the connection when the time for it is over. The
connection is kept between requests, so that a refresh costs one handshake.

A certificate's period is not held against the box's clock, as in enrolment: a box that boots in 1970 must reach the
channel too, and what comes through it is judged by its own signatures. Plain HTTP is for the box itself only.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.trust.faults import ChannelDown
from sekisho.signatures.trust.source import CHUNK, Limits, Reply, name_of, too_large
from sekisho.telemetry.tls import NO_CHECK_TIME
from sekisho.telemetry.ways import Proxy, parse_proxy

LOOK_S: Final = 0.2
"""How late a deadline that was moved forward may be noticed."""
_WORD: Final = 4096
"""Bytes of an error's text that are read to keep the connection."""
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_DEAD: Final = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class Web:
    """One server. Not for several threads."""

    def __init__(
        self,
        channel: str,
        *,
        ca: str = "",
        cert: str = "",
        key: str = "",
        proxy: str = "",
        limits: Limits = Limits(),  # noqa: B008 - frozen
        metadata: str = "",
        targets: str = "",
    ) -> None:
        """Read the certificates; nothing is sent yet.

        Args:
            channel: the repository, https://name[:port]/path; `metadata` and `targets` where they are not below it.
            ca: PEM file of the one authority that counts; empty: the system's.
            cert: PEM file of the box's certificate; empty: none is shown.
            key: PEM file of its key.
            proxy: as `telemetry.proxy`: tried first, then directly.
            limits: how long the server may take.
            metadata: URL of the directory, where it is another.
            targets: likewise.

        Raises:
            RejectedInput: an address or a certificate cannot be used.

        """
        self.metadata = f"{(metadata or f'{channel}/metadata').rstrip('/')}/"
        self.targets = f"{(targets or f'{channel}/targets').rstrip('/')}/"
        self._limits = limits
        self._proxy = parse_proxy(proxy)
        for url in (self.metadata, self.targets):
            _origin(url)
        try:
            self._tls = _context(ca, cert, key)
        except (OSError, ssl.SSLError) as err:
            raise RejectedInput(
                f"The channel's certificates cannot be used: {err}.", "See signatures.channel_ca."
            ) from err
        self._kept: tuple[tuple[str, str, int], http.client.HTTPConnection] | None = None

    def close(self) -> None:
        """Hang up."""
        if self._kept is not None:
            self._kept[1].close()
        self._kept = None

    @contextmanager
    def read(self, url: str, cap: int, *, start: int = 0, etag: str = "", bulk: bool = False) -> Iterator[Reply]:
        watch = _Watch(self._limits.head_s)
        answer = None
        try:
            try:
                answer = self._ask(url, start, etag, watch)
                if answer.status not in (200, 206) and 0 <= (answer.length or -1) <= _WORD:
                    answer.read()  # a few words about what is not there: the connection goes on
            except (OSError, http.client.HTTPException, ValueError) as err:
                raise _down(err, url, watch) from err
            if answer.status not in (200, 206):
                raise _status(answer.status, url)
            offset, length = _placed(answer, url, start)
            if length is not None and length > cap:
                raise too_large(url, cap)
            chunks = self._chunks(answer, url, cap - offset, watch, bulk)
            yield Reply(offset, length, _strong(answer.getheader("ETag") or ""), chunks)
        finally:
            watch.stop()
            if answer is None or not answer.isclosed() or answer.will_close:
                self.close()

    def _ask(self, url: str, start: int, etag: str, watch: _Watch) -> http.client.HTTPResponse:
        """The head of an answer 200 or 206."""
        origin = _origin(url)
        parts = urlsplit(url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "sekisho"}
        if start and etag:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        kept = self._kept is not None and self._kept[0] == origin
        try:
            answer = self._request(origin, path, headers, watch)
        except _DEAD:
            if not kept or watch.fired:
                raise
            self.close()  # the server hung up while nothing was asked: ask again, once
            answer = self._request(origin, path, headers, watch)
        plain = answer.status not in (200, 206)  # what it says then is not read as a file
        if not plain and (answer.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise ChannelDown("bad_answer", f"{name_of(url)} came packed in a way that was not asked for.")
        return answer

    def _request(
        self, origin: tuple[str, str, int], path: str, headers: dict[str, str], watch: _Watch
    ) -> http.client.HTTPResponse:
        if self._kept is None or self._kept[0] != origin:
            self.close()
            self._kept = (origin, self._connect(origin, watch))
        connection = self._kept[1]
        watch.on(connection)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def _connect(self, origin: tuple[str, str, int], watch: _Watch) -> http.client.HTTPConnection:
        scheme, host, port = origin
        if scheme == "http":
            made = http.client.HTTPConnection(host, port, timeout=self._limits.gap_s)
            watch.on(made)
            made.connect()
            return made
        if self._proxy is not None:
            with suppress(OSError, http.client.HTTPException):
                return self._secure(host, port, self._proxy, watch)
        return self._secure(host, port, None, watch)

    def _secure(self, host: str, port: int, proxy: Proxy | None, watch: _Watch) -> http.client.HTTPConnection:
        to = (proxy.host, proxy.port) if proxy else (host, port)
        made = http.client.HTTPSConnection(*to, timeout=self._limits.gap_s, context=self._tls)
        if proxy:
            login = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
            made.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {login}"} if proxy.user else {})
        watch.on(made)
        try:
            made.connect()
        except BaseException:
            made.close()
            raise
        return made

    def _chunks(
        self, answer: http.client.HTTPResponse, url: str, cap: int, watch: _Watch, bulk: bool
    ) -> Iterator[bytes]:
        limits = self._limits
        got, counted = 0, 0
        watch.until(limits.window_s if bulk else limits.small_s)
        try:
            while more := answer.read1(CHUNK):
                got += len(more)
                if got > cap:
                    raise too_large(url, cap)
                if bulk and got - counted >= limits.rate * limits.window_s:
                    counted = got
                    watch.until(limits.window_s)
                yield more
            if watch.fired:
                raise TimeoutError
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
            answer.close()  # read to its end: the connection is free for the next request
        except (OSError, http.client.HTTPException, ValueError) as err:
            raise _down(err, url, watch) from err


class _Watch:
    """Ends a connection when its time is over, whatever it is doing."""

    def __init__(self, seconds: float) -> None:
        self.fired = False
        self._until = time.monotonic() + seconds
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._done = threading.Event()
        threading.Thread(target=self._run, name="channel-watch", daemon=True).start()

    def on(self, connection: http.client.HTTPConnection) -> None:
        # An answer without a length takes the socket from its connection: remember it while it is there.
        self._connection, self._socket = connection, connection.sock

    def until(self, seconds: float) -> None:
        """From now."""
        self._until = time.monotonic() + seconds

    def stop(self) -> None:
        self._done.set()

    def _run(self) -> None:
        while (left := self._until - time.monotonic()) > 0:
            if self._done.wait(min(left, LOOK_S)):
                return
        self.fired = True
        live = (self._connection.sock if self._connection else None) or self._socket
        if live is not None:
            with suppress(OSError):
                socket.socket.shutdown(live, socket.SHUT_RDWR)  # below TLS: its state is the other thread's


def _context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=ca or None)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.verify_flags = ssl.VerifyFlags(int(made.verify_flags) | NO_CHECK_TIME)
    if cert:
        made.load_cert_chain(cert, key or None)
    return made


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as err:
        raise RejectedInput(f"This is not an address: {url[:200]}.") from err
    if host and parts.scheme == "https":
        return "https", host, port or 443
    if parts.scheme == "http" and _is_here(host):
        return "http", host, port or 80
    raise RejectedInput(f"The channel must be of the form https://name[:port]/path, not {url[:200]}.")


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _placed(answer: http.client.HTTPResponse, url: str, start: int) -> tuple[int, int | None]:
    """Where the answer's body begins, and how long the whole file is."""
    if answer.status == 200:
        return 0, answer.length
    match = _RANGE.fullmatch(answer.getheader("Content-Range") or "")
    if match is None or int(match[1]) != start or int(match[2]) + 1 != int(match[3]):
        raise ChannelDown("bad_answer", f"The server sent another part of {name_of(url)} than was asked for.")
    return start, int(match[3])


def _strong(etag: str) -> str:
    return etag if re.fullmatch(r'"[!#-~]{1,128}"', etag) else ""


def _status(status: int, url: str) -> ChannelDown:
    if 300 <= status < 400:
        return ChannelDown(
            "bad_answer",
            "The server points elsewhere, which the channel never does.",
            "Is there a sign-in page between the box and the internet? Check signatures.channel.",
            status,
        )
    return ChannelDown("unreachable", f"The server answers {status} to {name_of(url)}.", status=status)


def _down(err: Exception, url: str, watch: _Watch) -> ChannelDown:
    if watch.fired or isinstance(err, TimeoutError):
        return ChannelDown("slow", f"The server takes too long over {name_of(url)}.")
    if isinstance(err, ssl.SSLCertVerificationError):
        return ChannelDown(
            "bad_answer", f"This is not the channel's server: {err.verify_message}.", "Check signatures.channel_ca."
        )
    if isinstance(err, http.client.IncompleteRead):
        return ChannelDown("unreachable", f"The connection ended in the middle of {name_of(url)}.")
    if isinstance(err, http.client.HTTPException | ValueError) and not isinstance(err, http.client.RemoteDisconnected):
        return ChannelDown("bad_answer", f"What the server says about {name_of(url)} is not HTTP: {err!r:.200}.")
    return ChannelDown("unreachable", f"The channel's server cannot be reached: {err}.")
