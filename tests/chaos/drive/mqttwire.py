"""MQTT 3.1.1 packets as they lie on the wire (section 2 and 3.3), as far as a meddler needs to read them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

PUBLISH, PUBACK = 3, 4
MAX_PACKET = 1 << 20


@dataclass(frozen=True)
class Packet:
    """One control packet: the first byte and everything behind the length."""

    head: int
    body: bytes

    @property
    def kind(self) -> int:
        return self.head >> 4

    def encode(self) -> bytes:
        length, size = bytearray(), len(self.body)
        while True:
            size, digit = divmod(size, 128)
            length.append(digit | (0x80 if size else 0))
            if not size:
                return bytes([self.head]) + length + self.body


@dataclass(frozen=True)
class Publish:
    """A PUBLISH taken apart; `mid` is 0 at QoS 0."""

    topic: str
    payload: bytes
    mid: int
    qos: int
    retain: bool
    dup: bool = False

    @classmethod
    def of(cls, packet: Packet) -> Publish:
        end = 2 + int.from_bytes(packet.body[:2])
        qos = packet.head >> 1 & 3
        mid = int.from_bytes(packet.body[end : end + 2]) if qos else 0
        return cls(
            packet.body[2:end].decode(),
            packet.body[end + (2 if qos else 0) :],
            mid,
            qos,
            bool(packet.head & 1),
            bool(packet.head & 8),
        )

    def packet(self) -> Packet:
        topic = self.topic.encode()
        mid = self.mid.to_bytes(2) if self.qos else b""
        head = PUBLISH << 4 | self.dup << 3 | self.qos << 1 | self.retain
        return Packet(head, len(topic).to_bytes(2) + topic + mid + self.payload)

    def numbered(self, mid: int) -> Publish:
        return replace(self, mid=mid)


def puback(mid: int) -> Packet:
    return Packet(PUBACK << 4, mid.to_bytes(2))


async def read(source: asyncio.StreamReader) -> Packet:
    """The next packet.

    Raises:
        asyncio.IncompleteReadError, ConnectionError: the connection ended.

    """
    head = (await source.readexactly(1))[0]
    size, shift = 0, 0
    while True:
        digit = (await source.readexactly(1))[0]
        size |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            break
    if size > MAX_PACKET:
        raise ConnectionError("a packet larger than any of ours")
    return Packet(head, await source.readexactly(size))
