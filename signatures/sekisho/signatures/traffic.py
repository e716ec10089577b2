"""Ordinary traffic of an office, as a capture file: what no published set may stop before it may guard anyone.

Made here rather than recorded, so that it holds nobody's data and its whole content can be read: looking up a name,
a web page, a TLS handshake's beginning, mail, a mailbox, a file transfer, time, ping; each over IPv4 and IPv6.
Checksums are left empty: whoever replays it does not look at them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

INSIDE: Final = (IPv4Address("192.168.7.10").packed, IPv6Address("fd00:7::10").packed)
OUTSIDE: Final = (IPv4Address("198.51.100.9").packed, IPv6Address("2001:db8:9::9").packed)
_MAC: Final = (b"\x02\0\0\0\0\x0a", b"\x02\0\0\0\0\x01")

_PAGE: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\nContent-Length: 77\r\n\r\n"
    b"<!DOCTYPE html><html><head><title>Menu</title></head><body>Today</body></html>"
)
_GET: Final = (
    b"GET /menu.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
    b" AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\nAccept: */*\r\n\r\n"
)
TALKS: Final[dict[int, tuple[bytes, ...]]] = {
    80: (_GET, _PAGE),
    443: (
        bytes.fromhex("16030100510100004d0303") + bytes(range(32))
        + bytes.fromhex("000004130113020100002000000014001200")
        + bytes.fromhex("000f") + b"www.example.com" + bytes.fromhex("000a00040002001d"),
        bytes.fromhex("15030300020228"),
    ),
    25: (
        b"", b"220 mail.example.com ESMTP\r\n", b"EHLO office.example.jp\r\n", b"250 mail.example.com\r\n",
        b"MAIL FROM:<a@office.example.jp>\r\n", b"250 ok\r\n", b"RCPT TO:<b@example.com>\r\n", b"250 ok\r\n",
        b"DATA\r\n", b"354 go on\r\n",
        b"From: a@office.example.jp\r\nTo: b@example.com\r\nSubject: Meeting\r\n\r\nAt three, as agreed.\r\n.\r\n",
        b"250 ok\r\n", b"QUIT\r\n", b"221 bye\r\n",
    ),
    110: (
        b"", b"+OK ready\r\n", b"USER office\r\n", b"+OK\r\n", b"PASS example\r\n", b"+OK\r\n", b"STAT\r\n",
        b"+OK 0 0\r\n", b"QUIT\r\n", b"+OK\r\n",
    ),
    143: (b"", b"* OK ready\r\n", b"a1 CAPABILITY\r\n", b"* CAPABILITY IMAP4rev1\r\na1 OK done\r\n"),
    21: (b"", b"220 ready\r\n", b"USER anonymous\r\n", b"331 password\r\n", b"QUIT\r\n", b"221 bye\r\n"),
    22: (b"SSH-2.0-OpenSSH_9.6\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"),
}  # fmt: skip
"""TCP by port: what the device in the office says, what it hears, and so on."""
_NAME: Final = b"\x03www\x07example\x03com\0"
ASKED: Final[dict[int, tuple[bytes, ...]]] = {
    53: (
        bytes.fromhex("123401000001000000000000") + _NAME + b"\0\x01\0\x01",
        bytes.fromhex("123481800001000100000000") + _NAME + b"\0\x01\0\x01"
        + bytes.fromhex("c00c0001000100000e100004c6336409"),
    ),
    123: (b"\x23" + bytes(47), b"\x24\x02" + bytes(46)),
}  # fmt: skip
"""UDP by port: question and answer."""


def capture() -> bytes:
    """A pcap file (version 2.4, Ethernet, microseconds)."""
    out = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for number, frame in enumerate(_frames()):
        out += struct.pack("<IIII", 1_700_000_000, number * 1000, len(frame), len(frame)) + frame
    return bytes(out)


def _frames() -> Iterator[bytes]:
    ports = itertools.count(40_000)
    for version in (0, 1):
        for port, talk in TALKS.items():
            yield from _tcp(version, next(ports), port, talk)
        for port, (question, answer) in ASKED.items():
            own = next(ports)
            for out, payload in ((True, question), (False, answer)):
                ends = (own, port) if out else (port, own)
                yield _frame(version, out, 17, struct.pack(">HHHH", *ends, 8 + len(payload), 0) + payload)
        kinds, protocol = ((8, 0), 1) if version == 0 else ((128, 129), 58)
        for out, kind in ((True, kinds[0]), (False, kinds[1])):
            yield _frame(version, out, protocol, struct.pack(">BBHHH", kind, 0, 0, 7, 1) + bytes(range(32)))


def _tcp(version: int, own: int, port: int, talk: tuple[bytes, ...]) -> Iterator[bytes]:
    sequence = {True: 1000, False: 5000}

    def segment(out: bool, flags: int, payload: bytes = b"") -> bytes:
        ends = (own, port) if out else (port, own)
        acknowledged = sequence[not out] if flags & 0x10 else 0
        head = struct.pack(">HHIIBBHHH", *ends, sequence[out], acknowledged, 5 << 4, flags, 64240, 0, 0)
        sequence[out] += len(payload) + bool(flags & 0x03)
        return _frame(version, out, 6, head + payload)

    yield segment(True, 0x02)
    yield segment(False, 0x12)
    yield segment(True, 0x10)
    for turn, payload in enumerate(talk):
        if payload:
            yield segment(turn % 2 == 0, 0x18, payload)
            yield segment(turn % 2 == 1, 0x10)
    yield segment(True, 0x11)
    yield segment(False, 0x11)
    yield segment(True, 0x10)


def _frame(version: int, out: bool, protocol: int, payload: bytes) -> bytes:
    source, target = (INSIDE, OUTSIDE) if out else (OUTSIDE, INSIDE)
    macs = _MAC[1] + _MAC[0] if out else _MAC[0] + _MAC[1]
    if version:
        head = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + source[1] + target[1]
        return macs + b"\x86\xdd" + head + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + source[0] + target[0]
    return macs + b"\x08\x00" + head + payload
