"""What a slow, a large or an insistent client costs the web service: little, and not for long."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from sekisho.appliance.core import punctual
from sekisho.center import pki, settings
from sekisho.center.ca import routes
from sekisho.center.ca.routes import BURST, PACE_S, SOURCES_KEPT, Pace
from sekisho.center.portal import apply, entrance, report
from sekisho.center.web import guard, server, sources
from sekisho.center.web.app import BODY_CAP_BYTES, create_app
from sekisho.lab.ports import free_port

POST = (
    b"POST /box/1/enrol HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
)


class Door:
    """The service in a thread, with short patience; `say` sends bytes and returns what came until it was closed."""

    def __init__(self, root: Path, of_one: int = 32) -> None:
        pki.create_ca(root)
        files = pki.issue(root, "centre", "server", ("127.0.0.1",))
        port = free_port()
        web = settings.Web(
            str(files.cert), str(files.key), "127.0.0.1", port=port, connections=8, connections_of_one=of_one
        )
        link = settings.BrokerLink("127.0.0.1", str(files.ca), "", "")
        config = settings.CenterSettings(link, store=str(root / "center.db"), web=web)
        listener = server.listen(web)
        self._address = listener.getsockname()
        self._context = ssl.create_default_context(cafile=files.ca)
        self._server = server.make_server(create_app(config), web)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        return self._context.wrap_socket(self.knock(source), server_hostname="127.0.0.1")

    def knock(self, source: str = "127.0.0.1") -> socket.socket:
        """A connection without TLS yet."""
        return socket.create_connection(self._address, timeout=20, source_address=(source, 0))

    def say(self, *parts: bytes) -> bytes:
        with self.connect() as tls:
            heard = b""
            for part in parts:
                tls.sendall(part)
            while more := tls.recv(65536):
                heard += more
        return heard

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(punctual, "HEAD_S", 0.5)
    monkeypatch.setattr(punctual, "HANDSHAKE_S", 2.0)
    monkeypatch.setattr(guard, "ANSWER_S", 0.5)
    made = Door(tmp_path)
    yield made
    made.stop()


def test_who_says_nothing_or_half_a_head_is_shown_the_door(door: Door) -> None:
    began = time.monotonic()
    assert door.say() == b""
    assert door.say(b"GET /health HTTP/1.1\r\nx: ") == b""
    assert time.monotonic() - began < 10


def test_half_a_head_after_an_answer_is_not_waited_for_either(door: Door) -> None:
    with door.connect() as tls:
        tls.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        heard = b""
        while b"ok\n" not in heard:
            heard += tls.recv(65536)
        began = time.monotonic()
        tls.sendall(b"GET /health HTTP/1.1\r\nx: ")
        assert tls.recv(65536) == b""
        assert time.monotonic() - began < 10


def test_who_does_not_begin_tls_is_shown_the_door(door: Door) -> None:
    with door.knock() as raw:
        assert raw.recv(1) == b""


def test_one_source_has_so_many_connections_and_the_others_have_theirs(tmp_path: Path) -> None:
    ask = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    door = Door(tmp_path, of_one=3)
    try:
        held = [door.connect(), door.knock(), door.knock()]
        with door.knock() as beyond, suppress(ConnectionResetError):
            assert beyond.recv(1) == b""
        with door.connect("127.0.0.2") as other:
            other.sendall(ask)
            assert b" 200 " in other.recv(65536)
        for one in held:
            one.close()
        until, answer = time.monotonic() + 20, b""
        while b" 200 " not in answer:
            assert time.monotonic() < until
            with suppress(OSError):
                answer = door.say(ask)
    finally:
        door.stop()


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_source_is_an_address_or_a_network_of_ipv6(address: str, source: str) -> None:
    assert sources.source_of(address) == source


def test_a_body_that_does_not_come_is_not_waited_for(door: Door) -> None:
    answer = door.say(POST % 1000, b"{")
    assert b" 408 " in answer.split(b"\r\n")[0] and b"Too slow" in answer


def test_too_large_heads_and_bodies_are_refused_unread(door: Door) -> None:
    assert b" 400 " in door.say(b"GET / HTTP/1.1\r\nx: " + b"y" * (punctual.HEAD_CAP_BYTES + 1000)).split(b"\r\n")[0]
    assert b" 413 " in door.say(POST % (BODY_CAP_BYTES + 1)).split(b"\r\n")[0]


def test_more_connections_than_allowed_get_an_answer_and_the_door_opens_again(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(punctual, "HEAD_S", 10.0)  # all are there at once, also on a machine that is busy
    held = [door.connect() for _ in range(10)]
    try:
        assert b" 503 " in door.say(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").split(b"\r\n")[0]
    finally:
        for tls in held:
            tls.close()
    until = time.monotonic() + 20
    while b" 200 " not in door.say(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"):
        assert time.monotonic() < until


@pytest.mark.parametrize("module", [routes, apply, report, entrance])
def test_on_a_socket_for_both_kinds_of_addresses_each_ipv4_address_is_a_source_of_its_own(module: ModuleType) -> None:
    counted = vars(module)["source_of"]
    assert (counted("::ffff:192.0.2.1"), counted("::ffff:192.0.2.2")) == ("192.0.2.1", "192.0.2.2")


def test_a_source_may_ask_in_a_burst_and_then_at_a_pace() -> None:
    pace = Pace()
    assert [pace.wait_s("a", 100.0) for _ in range(BURST)] == [0.0] * BURST
    assert pace.wait_s("a", 100.0) == pytest.approx(PACE_S)
    assert pace.wait_s("b", 100.0) == 0
    assert pace.wait_s("a", 100.0 + PACE_S) == 0
    assert pace.wait_s("a", 100.0 + PACE_S) > 0
    assert [pace.wait_s("a", 1e6) for _ in range(BURST + 1)].count(0.0) == BURST


def test_the_memory_of_sources_is_bounded() -> None:
    pace = Pace()
    for number in range(SOURCES_KEPT + 1000):
        pace.wait_s(str(number), 100.0)
    assert len(pace._full_at) == SOURCES_KEPT
