"""Hears packets that the kernel's rules log to a group (nfnetlink_log), as whole frames cut at a length.

Only the netlink envelope is read here, with every length checked; the frame is the reader's business. The kernel drops
what is not fetched in time, so a flood costs answers and notices, never the packet path.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from sekisho.appliance.core.errors import DeviceFault

NETLINK_NETFILTER: Final = 12
SUBSYSTEM: Final = 4
PACKET, CONFIG = 0, 1
BIND: Final = 1
COPY_PACKET: Final = 2
MARK, PORT, HARDWARE, PAYLOAD, PREFIX, VLAN, LINK_HEADER = 2, 6, 16, 9, 10, 20, 21
OUT_PORT: Final = 7
VLAN_KIND, VLAN_TAG = 1, 2
RECEIVE_BYTES: Final = 65536
ROOM_BYTES: Final = 1 << 20


class Logged(NamedTuple):
    """One logged packet."""

    frame: bytes
    """From the destination's hardware address on, VLAN tag included; cut at the rule's length."""
    mark: int
    prefix: str
    port: int
    """Index of the port it came in by, 0 = unknown."""
    out_port: int
    """Index of the port it was about to leave by, 0 = unknown."""


def attributes(data: bytes) -> dict[int, bytes]:
    """A run of netlink attributes by type; what does not fit is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def parse(datagram: bytes) -> Iterator[Logged]:
    """The packets of one netlink datagram."""
    at = 0
    while at + 16 <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, at)
        if length < 16 or at + length > len(datagram):
            return
        if kind == SUBSYSTEM << 8 | PACKET and length >= 20:
            yield _logged(attributes(datagram[at + 20 : at + length]))
        at += (length + 3) & ~3


def _logged(found: dict[int, bytes]) -> Logged:
    head = found.get(LINK_HEADER) or found.get(HARDWARE, b"")[:14]
    if VLAN in found and len(head) >= 14:
        tag = attributes(found[VLAN])
        head = head[:12] + tag.get(VLAN_KIND, b"\x81\x00") + tag.get(VLAN_TAG, b"\0\0") + head[12:]
    prefix = found.get(PREFIX, b"").split(b"\0")[0].decode("ascii", "replace")
    return Logged(
        head + found.get(PAYLOAD, b""), _number(found, MARK), prefix, _number(found, PORT), _number(found, OUT_PORT)
    )


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b"\0")[:4], "big")


def _request(group: int, attribute: int, value: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_UNSPEC, 0, socket.htons(group))
    body += struct.pack("=HH", 4 + len(value), attribute) + value + bytes(-len(value) % 4)
    request_and_ack = 0x1 | 0x4
    return struct.pack("=IHHII", 16 + len(body), SUBSYSTEM << 8 | CONFIG, request_and_ack, 1, 0) + body


class LogSocket:
    """The listener of one group; `close` when done.

    Raises:
        DeviceFault: the kernel has no nfnetlink_log, another process has the group, or we lack the right.

    """

    def __init__(self, group: int, snap_bytes: int, timeout_s: float) -> None:
        self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._sock.bind((0, 0))
            self._sock.settimeout(2.0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
            self._configure(_request(group, 1, struct.pack("=B", BIND)))
            self._configure(_request(group, 2, struct.pack("!IBB", snap_bytes, COPY_PACKET, 0)))
            self._sock.settimeout(timeout_s)
        except OSError as err:
            self._sock.close()
            raise DeviceFault(f"The packet log {group} cannot be opened: {err}.") from err

    def _configure(self, request: bytes) -> None:
        self._sock.send(request)
        while True:
            answer = self._sock.recv(RECEIVE_BYTES)
            if len(answer) >= 20 and struct.unpack_from("=H", answer, 4)[0] == 2:
                code = -struct.unpack_from("=i", answer, 16)[0]
                if code:
                    raise OSError(code, errno.errorcode.get(code, str(code)))
                return

    def receive(self) -> list[Logged]:
        """What was logged; empty when nothing came within the time-out."""
        try:
            return list(parse(self._sock.recv(RECEIVE_BYTES)))
        except TimeoutError:
            return []
        except OSError as err:
            if err.errno != errno.ENOBUFS:
                raise
            return []  # the kernel dropped some: what is lost is answered when its sender repeats it

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.close()
