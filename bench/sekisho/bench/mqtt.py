"""The eight packets of MQTT 3.1.1 that a simulated box needs: bytes to write, packets out of bytes read.

Ten thousand boxes in one process leave no room for a client library's thread and queues in each. This is no client:
no socket, no clock, no repetition; `fleet` has those. Section numbers are those of the OASIS standard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9

PINGREQ: Final = b"\xc0\x00"

_PACKET_CAP: Final = 1 << 20


def connect(client: str, keepalive_s: int, will_topic: str, will: bytes) -> bytes:
    """CONNECT (3.1) with a clean session and a retained last will of QoS 1."""
    flags = 0x02 | 0x04 | 0x08 | 0x20
    head = _text("MQTT") + bytes([4, flags]) + keepalive_s.to_bytes(2, "big")
    return _packet(0x10, head + _text(client) + _text(will_topic) + len(will).to_bytes(2, "big") + will)


def subscribe(mid: int, *topics: str) -> bytes:
    """SUBSCRIBE (3.8) to these topics at QoS 0, as a box does."""
    return _packet(0x82, mid.to_bytes(2, "big") + b"".join(_text(topic) + b"\x00" for topic in topics))


def publish(mid: int, topic: str, payload: bytes, *, retain: bool = False, again: bool = False) -> bytes:
    """PUBLISH (3.3) at QoS 1; `again` sets DUP."""
    return _packet(0x32 | retain | again << 3, _text(topic) + mid.to_bytes(2, "big") + payload)


def puback(mid: int) -> bytes:
    """PUBACK (3.4)."""
    return b"\x40\x02" + mid.to_bytes(2, "big")


def published(first: int, body: bytes) -> tuple[str, int, bytes]:
    """Topic, message id (0 at QoS 0) and payload of a PUBLISH that arrived; `first` is its first byte."""
    end = 2 + int.from_bytes(body[:2], "big")
    if not first & 0x06:
        return body[2:end].decode(), 0, body[end:]
    return body[2:end].decode(), int.from_bytes(body[end : end + 2], "big"), body[end + 2 :]


class Packets:
    """Whole packets out of a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (first byte, body) of each packet that is complete now.

        Raises:
            ValueError: a length that no packet may have (2.2.3).

        """
        data = self._rest + data if self._rest else data
        at = 0
        while (found := _length(data, at)) is not None:
            start, size = found
            if len(data) < start + size:
                break
            yield data[at], data[start : start + size]
            at = start + size
        self._rest = data[at:]


def _length(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body begins and how long it is; None while that cannot be told."""
    size = 0
    for index in range(4):
        if at + 1 + index >= len(data):
            return None
        byte = data[at + 1 + index]
        size |= (byte & 0x7F) << 7 * index
        if not byte & 0x80:
            if size > _PACKET_CAP:
                break
            return at + 2 + index, size
    raise ValueError("a packet longer than its cap")


def _packet(first: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        length.append(low | 0x80 if size else low)
        if not size:
            return bytes([first]) + bytes(length) + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
