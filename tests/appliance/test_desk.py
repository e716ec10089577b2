"""One daemon's counter: who may ask, what is too much, and that half an answer is none."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sekisho.appliance.core import desk
from sekisho.appliance.core.desk import AT_ONCE, FRAME_CAP_BYTES, QUESTION_CAP_BYTES, Desk, ask
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput

Answer = Callable[[bytes], Iterator[bytes]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    desks: list[Desk] = []

    def open_(answer: Answer) -> Path:
        desks.append(Desk(tmp_path / "run" / "a.sock", (), answer))
        return tmp_path / "run" / "a.sock"

    yield open_
    for each in desks:
        each.close()


def echo(question: bytes) -> Iterator[bytes]:
    yield b'{"asked":"' + question + b'"}'
    yield b""
    yield b"x" * 3_000_000


def test_an_answer_comes_whole_and_in_order(opened: Callable[[Answer], Path]) -> None:
    path = opened(echo)
    assert list(ask(path, b"hello")) == [b'{"asked":"hello"}', b"x" * 3_000_000]
    assert path.stat().st_mode & 0o777 == 0o660


def test_a_refusal_is_told_in_its_own_words(opened: Callable[[Answer], Path]) -> None:
    def refuse(question: bytes) -> Iterator[bytes]:
        raise DeviceFault("The disk is full.") if question == b"disk" else RejectedInput("No such thing.")
        yield b""

    path = opened(refuse)
    with pytest.raises(RejectedInput, match="No such thing"):
        list(ask(path, b"x"))
    with pytest.raises(RejectedInput, match="The disk is full"):
        list(ask(path, b"disk"))


def test_half_an_answer_is_an_error(opened: Callable[[Answer], Path]) -> None:
    def half(question: bytes) -> Iterator[bytes]:
        yield b"{}"
        yield b"some"
        raise RejectedInput("damaged")

    frames = ask(opened(half), b"x")
    assert [next(frames), next(frames)] == [b"{}", b"some"]
    with pytest.raises(PeerError, match="cut short"):
        next(frames)


@pytest.mark.parametrize(
    "said", [b"", b"\x00", struct.pack(">I", 10) + b"short", struct.pack(">I", FRAME_CAP_BYTES + 1)]
)
def test_what_is_no_answer_is_an_error(tmp_path: Path, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "a.sock"))
        server.listen(1)

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(100)
                peer.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PeerError):
            list(ask(tmp_path / "a.sock", b"x"))
        thread.join()


def test_nobody_at_the_counter_is_said(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"a\.sock does not answer"):
        list(ask(tmp_path / "a.sock", b"x"))


def test_a_long_question_is_not_read_to_its_end(opened: Callable[[Answer], Path]) -> None:
    asked: list[bytes] = []

    def answer(question: bytes) -> Iterator[bytes]:
        asked.append(question)
        yield b"{}"

    path = opened(answer)
    with pytest.raises(PeerError):
        list(ask(path, b"x" * (QUESTION_CAP_BYTES + 1)))
    assert list(ask(path, b"short")) == [b"{}"] and asked == [b"short"]


def test_who_keeps_all_places_keeps_others_out_only_while_they_are_there(opened: Callable[[Answer], Path]) -> None:
    path = opened(echo)
    silent = [socket.socket(socket.AF_UNIX) for _ in range(AT_ONCE)]
    for each in silent:
        each.connect(str(path))
    with pytest.raises(PeerError):
        list(ask(path, b"x"))
    for each in silent:
        each.close()
    for _ in range(200):
        try:
            assert list(ask(path, b"x"))
            return
        except PeerError:
            continue
    pytest.fail("a place is never given back")


def test_another_user_gets_nothing(opened: Callable[[Answer], Path], tmp_path: Path) -> None:
    asked: list[bytes] = []

    def answer(question: bytes) -> Iterator[bytes]:
        asked.append(question)
        yield b'"secret"'

    path = opened(answer)
    for each in (path, path.parent, tmp_path, *list(tmp_path.parents)[:2]):
        each.chmod(0o777)
    program = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])\n"
        "try: s.sendall(b'x\\n'); sys.stdout.write(repr(s.recv(100)))\nexcept OSError: sys.stdout.write('away')"
    )
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-I", "-c", program]
    done = subprocess.run([*argv, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout in ("b''", "away") and asked == []
    assert os.geteuid() == 0 and list(ask(path, b"mine")) == [b'"secret"']


def test_users_that_do_not_exist_are_nobody() -> None:
    assert list(desk._uids(["no such user", "root"])) == [0]
