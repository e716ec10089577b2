"""A box, a bare bridge beside it, and the scripted server behind either."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

import clients

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


def _lab(request: pytest.FixtureRequest, kind: str) -> Iterator[Lab]:
    short = request.module.__name__.rpartition("test_")[2].replace("_", "")[:8]
    with Lab(f"x{os.getpid()}-{short}-{kind}") as lab:
        lab.up(with_product=kind == "box", stopped=("nginx",))
        yield lab


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A whole lab whose web server is left to the tests."""
    yield from _lab(request, "box")


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The same without the product: a plain bridge, where a trick shows what it can do."""
    yield from _lab(request, "bare")
