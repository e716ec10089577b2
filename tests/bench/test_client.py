"""The measuring client against a real server on the loopback: whole and cut downloads are told apart."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sekisho.bench import client, processes

BODY = b"x" * 300_000


@contextmanager
def server(answers: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Gives each connection the next answer and closes it; keeps what was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                link, _ = listener.accept()
                with link:
                    asked.append(link.recv(4096))
                    link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            thread.join(10)


def reply(body: bytes, length: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + body


def test_a_cut_download_is_counted_and_a_whole_one_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [reply(BODY, len(BODY)), reply(BODY, len(BODY) + 1), b"HTTP/1.1 200"]
    with server(answers) as (port, asked):
        monkeypatch.setattr(client, "PORT", port)
        got = client.fetch("127.0.0.1", "/a.bin", 3)
    assert got["short"] == 2
    assert len(got["seconds"]) == 3
    assert all(0 < took < 10 for took in got["seconds"])
    assert all(request.startswith(b"GET /a.bin HTTP/1.1\r\n") for request in asked)


def test_every_beacon_has_an_address_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with server([b"", b""]) as (port, asked):
        monkeypatch.setattr(client, "PORT", port)
        got = client.beacon("127.0.0.1", "/check", 2)
    assert list(got["sent"]) == ["/check/0", "/check/1"]
    assert [request.split()[1] for request in asked] == [b"/check/0", b"/check/1"]


def test_the_machine_s_interrupt_time_is_readable_and_never_goes_back() -> None:
    first = processes.kernel_seconds()
    assert 0 <= first <= processes.kernel_seconds()
