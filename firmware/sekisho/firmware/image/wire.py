"""The two cables of a box in QEMU: datagram sockets that carry Ethernet frames, and a caller on each end.

Each end sends an ARP question ten times a second and looks for the other's: the instant the first arrives is the
instant the box bridges that way (ARP is what any device sends first; RFC 826).
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final

EVERY_S: Final = 0.1
_BROADCAST: Final = b"\xff" * 6
_ENDS: Final = {"lan": (b"\x02\x00\x5e\x00\x00\x01", "192.0.2.10"), "wan": (b"\x02\x00\x5e\x00\x00\x02", "192.0.2.1")}


class Wire:
    """Both cables of one machine, from `start` to `close`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first: dict[str, float] = {}
        """`lan` and `wan`: monotonic instant at which that end first heard the other."""
        self.last: dict[str, float] = {}
        """Likewise: when it last did."""
        self._stop = threading.Event()
        self._links = {end: self._bind(end) for end in _ENDS}
        # A socket of its own, that never waits: a full queue of the other side looks writable to poll(2).
        self._mouth = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._mouth.setblocking(False)
        for end in _ENDS:
            threading.Thread(target=self._listen, args=(end,), name=f"wire-{end}", daemon=True).start()
        threading.Thread(target=self._call, name="wire-call", daemon=True).start()

    def arguments(self, place: dict[str, str]) -> list[str]:
        """QEMU's arguments for both sockets; `place` says at which PCI address each sits."""
        made = []
        for end, address in place.items():
            made += [
                "-netdev",
                f"dgram,id={end},local.type=unix,local.path={self._box(end)}"
                f",remote.type=unix,remote.path={self._ours(end)}",
            ]
            made += ["-device", f"virtio-net-pci,netdev={end},addr={address},romfile="]
        return made

    def carries(self, since: float) -> bool:
        """Both ways, after `since` (monotonic)."""
        return all(self.last.get(end, 0.0) > since for end in _ENDS)

    def forget(self) -> None:
        self.first.clear()
        self.last.clear()

    def close(self) -> None:
        self._stop.set()
        self._mouth.close()
        for link in self._links.values():
            link.close()

    def _ours(self, end: str) -> Path:
        return self._folder / f"{end}.ours"

    def _box(self, end: str) -> Path:
        return self._folder / f"{end}.box"

    def _bind(self, end: str) -> socket.socket:
        self._ours(end).unlink(missing_ok=True)
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        link.bind(str(self._ours(end)))
        link.settimeout(0.5)
        return link

    def _call(self) -> None:
        while not self._stop.wait(EVERY_S):
            for end, (mac, address) in _ENDS.items():
                target = next(other for name, (_, other) in _ENDS.items() if name != end)
                try:
                    self._mouth.sendto(question(mac, address, target), str(self._box(end)))
                except OSError:
                    continue  # the box is off, or its queue is full

    def _listen(self, end: str) -> None:
        other = next(mac for name, (mac, _) in _ENDS.items() if name != end)
        while not self._stop.is_set():
            try:
                frame = self._links[end].recv(65536)
            except OSError:
                continue
            if frame[6:12] == other:
                now = time.monotonic()
                self.first.setdefault(end, now)
                self.last[end] = now


def question(mac: bytes, address: str, target: str) -> bytes:
    """An ARP request, as a frame of the least length."""
    ask = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + mac + socket.inet_aton(address) + bytes(6)
    return (_BROADCAST + mac + b"\x08\x06" + ask + socket.inet_aton(target)).ljust(60, b"\0")
