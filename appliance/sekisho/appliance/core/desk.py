"""A small counter at which one daemon of the box serves another: one question, one answer, and bytes if it has any.

A Unix stream socket. The question is one JSON line of at most `QUESTION_CAP_BYTES`; the answer is frames (length as
four bytes, big endian, then the bytes), the first of which is JSON, and an empty one at the end. An answer without
its empty frame was cut short and is worth nothing. Who asks is known by the kernel's word (SO_PEERCRED), so
that a daemon's files stay its own: it shows what it wants to show, to whom it wants.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import PeerError, RejectedInput, SekishoError

QUESTION_CAP_BYTES: Final = 16 << 10
FRAME_CAP_BYTES: Final = 8 << 20
AT_ONCE: Final = 4
STEP_S: Final = 30.0
"""The other side must take or give something in this time."""
_LENGTH: Final = struct.Struct(">I")
_PEER: Final = struct.Struct("3i")

log = logging.getLogger(__name__)


class Refusal(msgspec.Struct, frozen=True, tag_field="refused", tag="refused"):
    """The first frame where the answer is no."""

    error: str


class Desk:
    """Serves until `close`. `answer` gets the question's bytes and yields frames; it runs on a thread of its own.

    What it raises of `SekishoError` before its first frame is told to the asker; later it cuts the answer short.
    """

    def __init__(self, path: Path, users: Collection[str], answer: Callable[[bytes], Iterator[bytes]]) -> None:
        """Only root, this daemon's own user and `users` (those that exist) are served."""
        self._path, self._answer = path, answer
        self._uids = {0, os.geteuid(), *_uids(users)}
        self._free = threading.BoundedSemaphore(AT_ONCE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._sock.bind(str(path))
        path.chmod(0o660)
        self._sock.listen(AT_ONCE)
        self._thread = threading.Thread(target=self._serve, name=path.stem, daemon=True)
        self._thread.start()

    def close(self, *, succeeded: bool = False) -> None:
        """Take the counter away; an answer under way is cut short when the process ends.

        `succeeded`: another process has its own at this place by now.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)
        if not succeeded:
            self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            if uid not in self._uids or not self._free.acquire(blocking=False):
                peer.close()
                continue
            threading.Thread(target=self._one, args=(peer,), name=self._path.stem, daemon=True).start()

    def _one(self, peer: socket.socket) -> None:
        try:
            with peer, contextlib.suppress(OSError):
                peer.settimeout(STEP_S)
                self._reply(peer, _line(peer))
        except SekishoError as err:
            log.warning("%s: the answer was cut short: %s", self._path.name, err)
        finally:
            self._free.release()

    def _reply(self, peer: socket.socket, question: bytes) -> None:
        frames = self._answer(question)
        try:
            first = next(frames)
        except SekishoError as err:
            first, frames = msgspec.json.encode(Refusal(str(err))), iter(())
        peer.sendall(_LENGTH.pack(len(first)) + first)
        for frame in frames:
            if frame:
                peer.sendall(_LENGTH.pack(len(frame)) + frame)
        peer.sendall(_LENGTH.pack(0))


def ask(path: Path, question: bytes) -> Iterator[bytes]:
    """Frames of the answer; the first is there when this returns its iterator's first item.

    Raises:
        PeerError: nobody answers there, or the answer was cut short.
        RejectedInput: the other side refuses, in its own words.

    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(STEP_S)
            sock.connect(str(path))
            sock.sendall(question + b"\n")
            with sock.makefile("rb") as source:
                first = True
                while frame := _frame(source.read):
                    if first:
                        _check(frame)
                    first = False
                    yield frame
    except OSError as err:
        raise PeerError(f"{path.name} does not answer: {err.strerror or err}.") from err


def _frame(read: Callable[[int], bytes]) -> bytes:
    head = read(_LENGTH.size)
    if len(head) != _LENGTH.size:
        raise PeerError("The answer was cut short.")
    (length,) = _LENGTH.unpack(head)
    if length > FRAME_CAP_BYTES:
        raise PeerError("The answer is too large.")
    frame = read(length)
    if len(frame) != length:
        raise PeerError("The answer was cut short.")
    return frame


def _check(frame: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        raise RejectedInput(msgspec.json.decode(frame, type=Refusal).error)


def _line(peer: socket.socket) -> bytes:
    data = b""
    while b"\n" not in data:
        chunk = peer.recv(4096)
        if not chunk or len(data) + len(chunk) > QUESTION_CAP_BYTES:
            raise RejectedInput("This is no question.")
        data += chunk
    return data.partition(b"\n")[0]


def _uids(users: Collection[str]) -> Iterator[int]:
    for user in users:
        with contextlib.suppress(KeyError):
            yield pwd.getpwnam(user).pw_uid
