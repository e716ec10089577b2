"""The scripted server behind a lab's box or bridge."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import clients
import msgspec

from sekisho.lab.evader import Scripts, plain
from sekisho.lab.lab import Lab

HELLO = plain(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello")


@contextmanager
def answering(lab: Lab, scripts: Scripts, port: int = 80) -> Iterator[None]:
    """The scripted server on the internet side, for a while."""
    file = lab.lay.wan / f"scripts-{port}.json"
    file.write_bytes(msgspec.json.encode({"GET /": HELLO} | scripts))
    argv = [sys.executable, "-I", "-m", "sekisho.lab.evader", "--scripts", str(file), "--port", str(port)]
    server = lab.popen("wan", argv)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
    finally:
        clients.ended(server)
