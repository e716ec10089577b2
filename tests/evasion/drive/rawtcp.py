"""A TCP end without a kernel behind it: every segment, checksum and fragment is what a trick wants it to be.

Runs in a lab's namespace with the kernel's own RST for its ports suppressed (the caller's iptables rule). It
acknowledges what it receives, repeats what is not acknowledged, and leaves everything else to the trick.
"""

# ruff: noqa: E501 - many named fields

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MSS = 1400
PATIENCE_S = 4.0
REPEAT_S = 0.25


_numbers = itertools.count(1)
"""Of IP packets; of this whole process, so that no two connections' fragments are taken for each other's."""


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True)
class Ends:
    """Who talks to whom: addresses, ports, and the frame's MACs."""

    here: str
    there: str
    here_port: int
    there_port: int
    here_mac: bytes
    there_mac: bytes

    @property
    def v6(self) -> bool:
        return ":" in self.there


class Conn:
    """One connection as this end sees it. Offsets count from the first byte this end sends."""

    def __init__(self, ends: Ends, send_frame: Callable[[bytes], None], isn: int = 0x1000_0000) -> None:
        self.ends = ends
        self._frame = send_frame
        self.isn = isn
        self.their_next = 0
        self.heard = b""
        self.acked = 0
        self.sent_to = 0
        self.ended = ""
        """fin or reset, once the other end has ended."""
        self.repair = True
        self.opened = threading.Event()
        self.changed = threading.Condition()
        self.their_stamp = 0
        self.fin_sent = False
        self.number = 0

    def send(
        self, off: int, data: bytes = b"", flags: int = ACK, *, ack: int | None = None, bad_sum: bool = False, urgent: int = 0,
        cuts: list[tuple[int, int]] | None = None, ttl: int = 64, options: bytes | None = None, stamp: int | None = None,
        pad: bytes = b"", offset_words: int | None = None, bad_ip_sum: bool = False, ip_options: bytes = b"", window: int = 64_000, number: int | None = None,
    ) -> None:  # fmt: skip
        """One segment at `off`; with `cuts` (byte ranges of the IP payload) in fragments, in that order."""
        seq = (self.isn + 1 + off) & 0xFFFFFFFF
        stamp = int(time.monotonic() * 1000) & 0xFFFFFFFF if stamp is None else stamp
        if options is None:
            options = struct.pack("!BBBBII", 1, 1, 8, 10, stamp, self.their_stamp)
        words = 5 + len(options) // 4 if offset_words is None else offset_words
        ack = (self.their_next if ack is None else ack) if flags & ACK else 0
        head = struct.pack(
            "!HHIIBBHHH", self.ends.here_port, self.ends.there_port, seq, ack & 0xFFFFFFFF, words << 4, flags, window, 0, urgent
        )  # fmt: skip
        segment = head + options + data
        total = checksum(self._pseudo(len(segment)) + segment)
        segment = segment[:16] + struct.pack("!H", total ^ (0x5555 if bad_sum else 0)) + segment[18:]
        if not bad_sum and flags & ACK:
            self.sent_to = max(self.sent_to, off + len(data))
        self.number = next(_numbers) & 0xFFFF if number is None else number
        for at, end in cuts or [(0, len(segment))]:
            piece = segment[at:end]
            more = end < len(segment)
            self._packet(piece, at, more, bool(cuts), ttl, bad_ip_sum, ip_options, pad)

    def _pseudo(self, length: int) -> bytes:
        here, there = (ipaddress.ip_address(text).packed for text in (self.ends.here, self.ends.there))
        return (
            here
            + there
            + (struct.pack("!IHBB", length, 0, 0, 6) if self.ends.v6 else struct.pack("!BBH", 0, 6, length))
        )

    def _packet(
        self, piece: bytes, at: int, more: bool, cut: bool, ttl: int, bad_sum: bool, options: bytes, pad: bytes
    ) -> None:
        here, there = (ipaddress.ip_address(text).packed for text in (self.ends.here, self.ends.there))
        macs = self.ends.there_mac + self.ends.here_mac
        if self.ends.v6:
            if cut:
                piece = struct.pack("!BBHI", 6, 0, at | more, self.number) + piece
            head = struct.pack("!IHBB", 6 << 28, len(piece), 44 if cut else 6, ttl) + here + there
            self._frame(macs + b"\x86\xdd" + head + piece + pad)
            return
        words = 5 + len(options) // 4
        head = struct.pack(
            "!BBHHHBBH", 0x40 | words, 0, words * 4 + len(piece), self.number, (0x2000 if more else 0) | at // 8, ttl, 6, 0
        )  # fmt: skip
        head += here + there + options
        total = checksum(head) ^ (0x1111 if bad_sum else 0)
        self._frame(macs + b"\x08\0" + head[:10] + struct.pack("!H", total) + head[12:] + piece + pad)

    def heard_segment(self, seq: int, ack: int, flags: int, data: bytes, stamp: int) -> None:
        """Take a segment of the other end and acknowledge it."""
        with self.changed:
            if flags & RST:
                self.ended = "reset"
            if flags & SYN:
                self.their_next = (seq + 1) & 0xFFFFFFFF
            if stamp:
                self.their_stamp = stamp
            if flags & ACK:
                acked = (ack - self.isn - 1) & 0xFFFFFFFF
                if acked < 1 << 30:
                    self.acked = max(self.acked, acked)
            fresh = (self.their_next - seq) & 0xFFFFFFFF
            if data and fresh < len(data) and not flags & SYN:
                self.heard += data[fresh:]
                self.their_next = (seq + len(data)) & 0xFFFFFFFF
            if flags & FIN and (seq + len(data)) & 0xFFFFFFFF == self.their_next:
                self.their_next = (self.their_next + 1) & 0xFFFFFFFF
                self.ended = self.ended or "fin"
            self.changed.notify_all()
        if (data or flags & (FIN | SYN)) and not flags & RST and (flags & ACK or self.opened.is_set()):
            self.send(self.sent_to + self.fin_sent, b"", ACK)

    def rebase(self, sent: int) -> None:
        """Count offsets anew from behind the first `sent` bytes."""
        with self.changed:
            self.isn = (self.isn + sent) & 0xFFFFFFFF
            self.acked = max(0, self.acked - sent)
            self.sent_to = max(0, self.sent_to - sent)

    def until(self, fact: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: fact() or self.ended == "reset", within_s) and fact()

    def whole(self, data: bytes) -> None:
        """All of `data` in plain segments, from what is acknowledged on, until it has arrived."""
        deadline = time.monotonic() + PATIENCE_S
        while self.acked < len(data) and not self.ended and time.monotonic() < deadline:
            for at in range(self.acked, len(data), MSS):
                self.send(at, data[at : at + MSS], ACK | PSH)
            self.until(lambda: self.acked >= len(data), REPEAT_S)

    def finish(self, data: bytes) -> None:
        """Repeat what has not arrived and end the connection."""
        if self.repair:
            self.until(lambda: self.acked >= len(data), REPEAT_S)
            self.whole(data)
        for _ in range(4):
            if self.ended:
                break
            self.fin_sent = True
            self.send(len(data), b"", FIN | ACK)
            self.until(lambda: bool(self.ended), REPEAT_S)


@dataclass
class Wire:
    """The namespace's cable: hands every TCP segment for one of our ports to its connection."""

    ports: range
    on_open: Callable[[Conn, bytes], None] | None = None
    conns: dict[tuple[str, int, int], Conn] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._link.bind(("eth0", 0))
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._lock = threading.Lock()

    def frame(self, data: bytes) -> None:
        with self._lock:
            self._link.send(data)

    def run(self) -> None:
        while True:
            data, place = self._link.recvfrom(1 << 16)
            if place[2] != socket.PACKET_OUTGOING:
                self._take(data)

    def _take(self, frame: bytes) -> None:
        kind = frame[12:14]
        if kind == b"\x08\0" and frame[23] == 6:
            at, total = 14 + (frame[14] & 15) * 4, 14 + struct.unpack("!H", frame[16:18])[0]
            there, here = (socket.inet_ntop(socket.AF_INET, frame[spot : spot + 4]) for spot in (26, 30))
        elif kind == b"\x86\xdd" and frame[20] == 6:
            at, total = 54, 54 + struct.unpack("!H", frame[18:20])[0]
            there, here = (socket.inet_ntop(socket.AF_INET6, frame[spot : spot + 16]) for spot in (22, 38))
        else:
            return
        there_port, here_port, seq, ack, words, flags = struct.unpack("!HHIIBB", frame[at : at + 14])
        if here_port not in self.ports:
            return
        body_at = at + (words >> 4) * 4
        key = (there, there_port, here_port)
        conn = self.conns.get(key)
        if flags & SYN and not flags & ACK and self.on_open and (conn is None or conn.opened.is_set()):
            ends = Ends(here, there, here_port, there_port, frame[0:6], frame[6:12])
            conn = self.conns[key] = Conn(ends, self.frame)
            conn.heard_segment(seq, ack, SYN, b"", _stamp(frame[at + 20 : body_at]))
            threading.Thread(target=self.on_open, args=(conn, b""), daemon=True).start()
        elif conn:
            conn.heard_segment(seq, ack, flags, frame[body_at:total], _stamp(frame[at + 20 : body_at]))


def _stamp(options: bytes) -> int:
    """TSval (RFC 7323), 0 when there is none."""
    at = 0
    while at < len(options):
        if options[at] in (0, 1):
            at += 1
            continue
        if options[at] == 8 and at + 10 <= len(options):
            return int(struct.unpack("!I", options[at + 2 : at + 6])[0])
        at += max(2, options[at + 1] if at + 1 < len(options) else 2)
    return 0


def syn_options(stamp: int, echo: int) -> bytes:
    return struct.pack("!BBHBBBBII", 2, 4, MSS, 1, 1, 8, 10, stamp, echo)
