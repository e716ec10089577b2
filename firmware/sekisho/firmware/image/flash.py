"""A disk that loses what was not flushed when its power goes: an NBD server (NBD's `proto.md`, fixed newstyle).

Writes are seen by reads at once, and are durable with the next flush only. `cut` takes back whatever was written since:
of each such write a random part stays, as sectors of 512 bytes, in any order. For trying images; one client at a time.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from pathlib import Path
from typing import Final

_MAGIC: Final = 0x4E42444D41474943
_OPTION: Final = 0x49484156454F5054
_REPLY: Final = 0x3E889045565A9
_ACK, _INFO = 1, 3
_UNSUPPORTED: Final = (1 << 31) | 1
_EXPORT_NAME, _ABORT, _GO = 1, 2, 7
_READ, _WRITE, _DISCONNECT, _FLUSH, _TRIM, _ZEROES = 0, 1, 2, 3, 4, 6
_FLAGS: Final = 0x1 | 0x4 | 0x8 | 0x20 | 0x40
"""Has flags; flush, FUA, trim, write-zeroes are known."""
_FUA: Final = 0x1
SECTOR: Final = 512
UNDO_CAP: Final = 768 << 20
"""Bytes of replaced content kept at most; beyond it the oldest half counts as flushed, as when a cache is full."""


class Flash:
    """One disk, served at a Unix socket until `close`."""

    def __init__(self, image: Path, at: Path) -> None:
        self.image = image
        self._file = os.open(image, os.O_RDWR)
        self.size = os.fstat(self._file).st_size
        self._undo: list[tuple[int, bytes]] = []
        self._held = 0
        self._lock = threading.Lock()
        self._dead = False
        self.flushes = 0
        """Flushes so far, and bytes written: instants that can be waited for."""
        self.written = 0
        at.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(at))
        self._listener.listen(1)
        threading.Thread(target=self._accept, name="flash", daemon=True).start()

    def cut(self, seed: int) -> int:
        """Power off: of the writes since the last flush a random part stays. How many sectors were lost."""
        dice = random.Random(seed)  # noqa: S311 (a repeatable accident, not a secret)
        lost = 0
        with self._lock:
            self._dead = True
            after = [(at, os.pread(self._file, len(old), at)) for at, old in self._undo]
            for at, old in reversed(self._undo):
                os.pwrite(self._file, old, at)
            dice.shuffle(after)
            keep = dice.random()
            for at, new in after:
                for start in range(0, len(new), SECTOR):
                    if dice.random() < keep:
                        os.pwrite(self._file, new[start : start + SECTOR], at + start)
                    else:
                        lost += 1
            self._undo, self._held = [], 0
        return lost

    def on(self) -> None:
        """Power back."""
        with self._lock:
            self._dead = False

    def close(self) -> None:
        self._dead = True
        self._listener.close()
        os.close(self._file)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                try:
                    if self._greet(link):
                        self._serve(link)
                except (OSError, EOFError):
                    continue

    def _greet(self, link: socket.socket) -> bool:
        link.sendall(struct.pack(">QQH", _MAGIC, _OPTION, 0x3))
        _take(link, 4)
        while True:
            _, option, length = struct.unpack(">QII", _take(link, 16))
            told = _take(link, length)
            if option == _EXPORT_NAME:
                link.sendall(struct.pack(">QH", self.size, _FLAGS))
                return True
            if option == _GO:
                info = struct.pack(">HQH", 0, self.size, _FLAGS)
                link.sendall(struct.pack(">QIII", _REPLY, option, _INFO, len(info)) + info)
                link.sendall(struct.pack(">QIII", _REPLY, option, _ACK, 0))
                return True
            link.sendall(struct.pack(">QIII", _REPLY, option, _ACK if option == _ABORT else _UNSUPPORTED, 0))
            if option == _ABORT:
                return bool(told)

    def _serve(self, link: socket.socket) -> None:
        while True:
            _, flags, kind, handle, at, length = struct.unpack(">IHHQQI", _take(link, 28))
            data = _take(link, length) if kind == _WRITE else b""
            if kind == _DISCONNECT:
                return
            with self._lock:
                if self._dead:
                    return
                answer = b""
                if kind == _READ:
                    answer = os.pread(self._file, length, at)
                elif kind == _WRITE:
                    self._put(at, data)
                elif kind == _ZEROES:
                    self._put(at, bytes(length))
                if kind == _FLUSH or flags & _FUA:
                    self.flushes += 1
                    self._undo, self._held = [], 0
            link.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + answer)

    def _put(self, at: int, data: bytes) -> None:
        self.written += len(data)
        self._undo.append((at, os.pread(self._file, len(data), at)))
        self._held += len(data)
        os.pwrite(self._file, data, at)
        if self._held > UNDO_CAP:
            half = len(self._undo) // 2
            self._held -= sum(len(old) for _, old in self._undo[:half])
            del self._undo[:half]


def _take(link: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        got = link.recv(min(length - len(parts), 1 << 20))
        if not got:
            raise EOFError
        parts += got
    return bytes(parts)
