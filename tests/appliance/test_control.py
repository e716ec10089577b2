"""The command socket's client against real sockets that answer well, badly or not at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sekisho.appliance.control import MAX_REPLY_BYTES, RuleStats, ask, ruleset_stats
from sekisho.appliance.core.errors import PeerError

HELLO = b'{"return": "OK"}\n'


@contextmanager
def peer(path: Path, behave: Callable[[socket.socket], None]) -> Iterator[Path]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def serve() -> None:
        client, _ = server.accept()
        with client:
            try:
                behave(client)
            except OSError:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield path
    finally:
        thread.join()
        server.close()


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    def behave(client: socket.socket) -> None:
        for answer in answers:
            client.recv(4096)
            client.sendall(answer)

    return behave


def test_rules_of_all_engines_are_added_up(tmp_path: Path) -> None:
    stats = [{"id": 0, "rules_loaded": 7, "rules_failed": 1}, {"id": 1, "rules_loaded": 2, "rules_failed": 0}]
    answer = json.dumps({"message": stats, "return": "OK"}).encode() + b"\n"
    with peer(tmp_path / "s", answering(HELLO, answer)) as path:
        assert ruleset_stats(path) == RuleStats(9, 1)


def test_an_answer_in_pieces_is_one_answer(tmp_path: Path) -> None:
    def behave(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(HELLO)
        client.recv(4096)
        for byte in b'{"message": "a", "return": "OK"}\n':
            client.sendall(bytes([byte]))

    with peer(tmp_path / "s", behave) as path:
        assert ask(path, "uptime").message == "a"


@pytest.mark.parametrize(
    "answer", [b"not json\n", b"[]\n", b'{"return": 5}\n', b"\xff\xfe\n", b'{"return": "OK", "message": "x"}\n', b""]
)
def test_what_is_not_rule_statistics_is_a_peer_error(tmp_path: Path, answer: bytes) -> None:
    with peer(tmp_path / "s", answering(HELLO, answer)) as path, pytest.raises(PeerError):
        ruleset_stats(path)


def test_an_endless_answer_is_cut_at_the_cap(tmp_path: Path) -> None:
    with (
        peer(tmp_path / "s", answering(HELLO, b" " * (MAX_REPLY_BYTES * 3))) as path,
        pytest.raises(PeerError, match="too long"),
    ):
        ask(path, "uptime")


def test_a_silent_peer_costs_the_time_limit_only(tmp_path: Path) -> None:
    quiet = threading.Event()

    def behave(_: socket.socket) -> None:
        quiet.wait(10)

    with peer(tmp_path / "s", behave) as path:
        with pytest.raises(PeerError, match="timed out"):
            ask(path, "uptime", timeout_s=0.2)
        quiet.set()


def test_nobody_there_is_a_peer_error(tmp_path: Path) -> None:
    with pytest.raises(PeerError):
        ask(tmp_path / "absent", "uptime")
