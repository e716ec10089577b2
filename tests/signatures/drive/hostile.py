"""An HTTP server that answers as it is told, byte by byte: a hostile one, or a poor line.

    with Hostile({"/a": Answer(b"...")}) as server: ... server.url, server.asked
    server.answers["/a"] = [cut(data, 100), Answer(data)]        one after the other; the last one stays

Times are scaled: what is 29 seconds out there is a tenth of one here, and the limits of who asks with it.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

NEVER_S = 30.0
"""A stall; whoever waits for its end has failed."""


@dataclass
class Answer:
    """What goes out for one request."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    """Whether a Range is honoured, where If-Range names the ETag."""
    sent: int | None = None
    """Of the body, before the line is cut; None: all."""
    stall_after: int | None = None
    """Bytes of the body after which nothing comes any more."""
    drip: float = 0.0
    """Seconds between bytes, of head and body."""
    head: bytes | None = None
    """In place of a proper one."""
    endless: bool = False
    """The body again and again, without a length."""


def cut(body: bytes, after: int, etag: str = '"1"') -> Answer:
    return Answer(body, headers={"ETag": etag}, sent=after)


def stall(body: bytes, after: int) -> Answer:
    return Answer(body, headers={"ETag": '"1"'}, stall_after=after)


def drip(body: bytes, seconds: float) -> Answer:
    return Answer(body, drip=seconds)


def redirect(to: str) -> Answer:
    return Answer(b"", 302, {"Location": to})


def gzip_bomb(size: int) -> Answer:
    return Answer(gzip.compress(bytes(size)), headers={"Content-Encoding": "gzip"})


def wrong_range(body: bytes, said: str) -> Answer:
    """Answers 206 to anything, with this Content-Range."""
    return Answer(body, 206, {"Content-Range": said, "ETag": '"1"'}, ranges=False)


class Hostile:
    """Serves until the context ends. A path that is not among the answers is 404."""

    def __init__(self, answers: Mapping[str, Answer | list[Answer]], tls: tuple[Path, Path] | None = None) -> None:
        """`tls`: PEM files of a certificate and its key."""
        self.answers: dict[str, Answer | list[Answer]] = dict(answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Paths and headers (names in lower case)."""
        self.connections = 0
        self._done = threading.Event()
        self._live: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*tls)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for live in [self._listening, *self._live]:
            with suppress(OSError):
                live.shutdown(socket.SHUT_RDWR)
            live.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while not self._done.is_set():
            try:
                caller = self._listening.accept()[0]
            except OSError:
                return
            self.connections += 1
            self._live.add(caller)
            self._threads.append(threading.Thread(target=self._serve, args=(caller,), daemon=True))
            self._threads[-1].start()

    def _serve(self, caller: socket.socket) -> None:
        with suppress(OSError, ssl.SSLError), caller:
            line = self._tls.wrap_socket(caller, server_side=True) if self._tls else caller
            self._live.add(line)
            with line, line.makefile("rb") as incoming:
                while (request := incoming.readline(4096)).strip():
                    headers = {}
                    while (header := incoming.readline(4096)).strip():
                        name, _, value = header.decode("latin-1").partition(":")
                        headers[name.lower()] = value.strip()
                    path = request.split()[1].decode("latin-1")
                    self.asked.append((path, headers))
                    if not self._answer(line, self._next(path), headers):
                        return

    def _next(self, path: str) -> Answer:
        found = self.answers.get(path, Answer(b"", 404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    def _answer(self, line: socket.socket, answer: Answer, asked: dict[str, str]) -> bool:
        """Whether the connection goes on."""
        body, status, headers = answer.body, answer.status, dict(answer.headers)
        first = asked.get("range", "").removeprefix("bytes=").removesuffix("-")
        if answer.ranges and first and asked.get("if-range") == headers.get("ETag"):
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            body, status = body[int(first) :], 206
        if not answer.endless:
            headers.setdefault("Content-Length", str(len(body)))
        head = f"HTTP/1.1 {status} x\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        self._send(line, answer.head if answer.head is not None else head.encode(), answer.drip)
        while answer.endless and not self._done.is_set():
            line.sendall(body)
        if answer.stall_after is not None:
            self._send(line, body[: answer.stall_after], 0)
            self._done.wait(NEVER_S)
            return False
        self._send(line, body[: answer.sent], answer.drip)
        return answer.sent is None and answer.head is None

    def _send(self, line: socket.socket, data: bytes, gap_s: float) -> None:
        if not gap_s:
            line.sendall(data)
            return
        for byte in data:
            line.sendall(bytes((byte,)))
            if self._done.wait(gap_s):
                return


def answers_of(files: Mapping[str, bytes]) -> dict[str, Answer | list[Answer]]:
    """A repository's files as an honest server has them."""
    return {f"/{name}": Answer(data, headers={"ETag": f'"{zlib.crc32(data)}"'}) for name, data in files.items()}
