"""What a refused packet's sender is told, as whole frames: pure, no socket.

The box may have no address and no route, and the packet may be VLAN- or PPPoE-tagged, so an answer is the packet's own
frame turned round: its addresses swapped at every layer, its encapsulation kept. It speaks in the name of the
machine that was asked, as that machine's own refusal would:

TCP: a reset (RFC 9293 3.5.2). A DNS question: NXDOMAIN with the extended error "Blocked" (RFC 8914 4.16), because a
resolver that only hears an ICMP error asks elsewhere and waits. Other UDP: port unreachable (RFC 792; RFC 4443 3.1).
Anything else: administratively prohibited. Broadcasts, later fragments and ICMP errors get no answer (RFC 1122 3.2.2).

Frames come from machines that may be hostile: every offset is checked, and what does not fit has no answer.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

IPV4, IPV6, VLANS, PPPOE = 0x0800, 0x86DD, (0x8100, 0x88A8), 0x8864
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
FIN, SYN, RST, ACK = 1, 2, 4, 16
DNS_PORT: Final = 53
QUOTED_BYTES: Final = 128
"""Of the refused packet, in an ICMP error: its headers and a little more."""
MAX_QUESTION_BYTES: Final = 255 + 4
HOPS: Final = 64


@dataclass(frozen=True)
class _Packet:
    """A refused packet taken apart; byte strings are slices of the frame."""

    link: bytes
    """Both hardware addresses, tags and type: all before the IP header."""
    six: bool
    src: bytes
    dst: bytes
    proto: int
    ip: bytes
    """From the IP header on."""
    body: bytes
    """From the transport header on."""
    size: int
    """Bytes of `body` on the wire, whatever was cut from it here."""


def _read(frame: bytes) -> _Packet | None:
    at, kind = 14, int.from_bytes(frame[12:14], "big")
    for _ in range(2):
        if kind in VLANS:
            kind = int.from_bytes(frame[at + 2 : at + 4], "big")
            at += 4
    if kind == PPPOE:
        kind = {0x21: IPV4, 0x57: IPV6}.get(int.from_bytes(frame[at + 6 : at + 8], "big"), 0)
        at += 8
    ip = frame[at:]
    if kind == IPV4 and len(ip) >= 20 and ip[0] >> 4 == 4:
        head, size = (ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")
        if head < 20 or size < head or len(ip) < head or int.from_bytes(ip[6:8], "big") & 0x1FFF:
            return None
        return _Packet(frame[:at], False, ip[12:16], ip[16:20], ip[9], ip[:size], ip[head:size], size - head)
    if kind == IPV6 and len(ip) >= 40 and ip[0] >> 4 == 6:
        size = int.from_bytes(ip[4:6], "big")
        return _Packet(frame[:at], True, ip[8:24], ip[24:40], ip[6], ip[: 40 + size], ip[40 : 40 + size], size)
    return None


def to_sender(frame: bytes) -> bytes | None:
    """The refusal of this frame's packet, for its sender; None where none is due."""
    packet = _read(frame)
    if packet is None or packet.link[0] & 1 or packet.link[6] & 1 or _is_many(packet):
        return None
    if packet.proto == TCP:
        return _reset(packet)
    if packet.proto == UDP:
        answer = _no_such_name(packet)
        if answer is not None:
            return _turned(packet, UDP, answer)
        return _unreachable(packet, 4 if packet.six else 3)
    if packet.proto == (ICMPV6 if packet.six else ICMP) and packet.body[:1] != (b"\x80" if packet.six else b"\x08"):
        return None
    return _unreachable(packet, 1 if packet.six else 13)


class Talk(NamedTuple):
    """Between whom a TCP segment travels."""

    src: str
    src_port: int
    dst: str
    dst_port: int


def talk_of(frame: bytes) -> Talk | None:
    """The ends of the TCP connection this frame is inside of; None where it opens one or is not TCP."""
    packet = _read(frame)
    if packet is None or packet.proto != TCP or len(packet.body) < 20 or packet.body[13] & SYN:
        return None
    src, dst = (str(ipaddress.ip_address(packed)) for packed in (packet.src, packet.dst))
    return Talk(src, int.from_bytes(packet.body[:2], "big"), dst, int.from_bytes(packet.body[2:4], "big"))


def to_receiver(frame: bytes) -> bytes | None:
    """The reset that ends the connection at its receiver, in the sender's name; None when this is not inside one."""
    packet = _read(frame)
    if packet is None or packet.proto != TCP or len(packet.body) < 20 or packet.body[13] & (SYN | RST):
        return None
    ports, seq = packet.body[:4], packet.body[4:8]
    return _framed(packet, packet.link, packet.src, packet.dst, TCP, _segment(ports, seq, bytes(4), RST))


def _is_many(packet: _Packet) -> bool:
    if packet.six:
        return packet.dst[0] == 0xFF or packet.src[0] == 0xFF or not any(packet.src)
    return packet.dst[0] >= 224 or packet.src[0] >= 224 or packet.src[0] == 0


def _segment(ports: bytes, seq: bytes, ack: bytes, flags: int) -> bytes:
    return ports + seq + ack + struct.pack("!BBHHH", 5 << 4, flags, 0, 0, 0)


def _reset(packet: _Packet) -> bytes | None:
    body = packet.body
    if len(body) < 20:
        return None
    flags, ports = body[13], body[2:4] + body[:2]
    if flags & ACK:
        return _turned(packet, TCP, _segment(ports, body[8:12], bytes(4), RST))
    if flags & RST:
        return None
    length = packet.size - (body[12] >> 4) * 4 + bool(flags & SYN) + bool(flags & FIN)
    ack = (int.from_bytes(body[4:8], "big") + length) % 2**32
    return _turned(packet, TCP, _segment(ports, bytes(4), ack.to_bytes(4, "big"), RST | ACK))


def _unreachable(packet: _Packet, code: int) -> bytes:
    proto, kind = (ICMPV6, 1) if packet.six else (ICMP, 3)
    return _turned(packet, proto, struct.pack("!BBHI", kind, code, 0, 0) + packet.ip[:QUOTED_BYTES])


def _no_such_name(packet: _Packet) -> bytes | None:
    """The UDP answer to one DNS question (RFC 1035 4.1); None when it is not one, or not whole here."""
    body = packet.body
    if len(body) < 8 + 12 + 5 or int.from_bytes(body[2:4], "big") != DNS_PORT or len(body) != packet.size:
        return None
    flags, questions, answers, authorities, more = struct.unpack_from("!HHHHH", body, 10)
    if flags & 0xF800 or (questions, answers, authorities) != (1, 0, 0):
        return None
    at = 20
    while at < len(body) and body[at]:
        if body[at] > 63 or at - 20 > MAX_QUESTION_BYTES:
            return None
        at += 1 + body[at]
    at += 1 + 4
    if at > len(body):
        return None
    # What is refused must not be told to have extensions that were not asked for (RFC 6891 7).
    blocked = bytes.fromhex("000029 04d0 00000000 0006 000f 0002 000f") if more else b""
    head = body[8:10] + struct.pack("!HHHHH", 0x8083 | flags & 0x0110, 1, 0, 0, bool(blocked))
    message = head + body[20:at] + blocked
    return body[2:4] + body[:2] + struct.pack("!HH", 8 + len(message), 0) + message


def _turned(packet: _Packet, proto: int, body: bytes) -> bytes:
    link = packet.link[6:12] + packet.link[:6] + packet.link[12:]
    return _framed(packet, link, packet.dst, packet.src, proto, body)


def _framed(packet: _Packet, link: bytes, src: bytes, dst: bytes, proto: int, body: bytes) -> bytes:
    if proto != ICMP:
        pseudo = src + dst + struct.pack("!II", len(body), proto)
        body = _with_sum(body, {TCP: 16, UDP: 6, ICMPV6: 2}[proto], pseudo)
    else:
        body = _with_sum(body, 2, b"")
    if packet.six:
        ip = struct.pack("!IHBB", 6 << 28, len(body), proto, HOPS) + src + dst
    else:
        ip = _with_sum(struct.pack("!BBHIBBH", 0x45, 0, 20 + len(body), 0x4000, HOPS, proto, 0) + src + dst, 10, b"")
    if link[-8:-6] == b"\x11\x00" and link[-10:-8] == b"\x88\x64":  # PPPoE counts its bytes (RFC 2516 4)
        link = link[:-4] + struct.pack("!H", 2 + len(ip) + len(body)) + link[-2:]
    return link + ip + body


def _with_sum(data: bytes, at: int, pseudo: bytes) -> bytes:
    """`data` with its internet checksum (RFC 1071) at `at`."""
    whole = pseudo + data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF) + data[at + 2 :]
