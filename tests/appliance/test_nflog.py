"""The packet log's envelope: what the kernel sends is read, and anything else is nothing."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.nflog import LINK_HEADER, MARK, PAYLOAD, PORT, PREFIX, VLAN, Logged, parse

FRAME = bytes(range(12)) + b"\x08\x00" + b"E" + b"payload"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def datagram(*attributes: bytes) -> bytes:
    body = b"\0\0\0\x41" + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 4 << 8, 0, 0, 0) + body


ALL = (
    attribute(MARK, (0x480).to_bytes(4, "big")),
    attribute(PORT, (3).to_bytes(4, "big")),
    attribute(PREFIX, b"fw no-ssh\0"),
    attribute(LINK_HEADER, FRAME[:14]),
    attribute(PAYLOAD, FRAME[14:]),
)


def test_a_logged_packet_is_a_whole_frame_with_its_mark_and_port() -> None:
    assert list(parse(datagram(*ALL))) == [Logged(FRAME, 0x480, "fw no-ssh", 3, 0)]
    assert len(list(parse(datagram(*ALL) * 3))) == 3


def test_a_tag_that_the_kernel_keeps_apart_is_put_back() -> None:
    tag = attribute(1, b"\x81\x00") + attribute(2, b"\x00\x07")
    (told,) = parse(datagram(*ALL, attribute(VLAN, tag)))
    assert told.frame == FRAME[:12] + b"\x81\x00\x00\x07" + FRAME[12:]


@given(st.binary(max_size=200), st.integers(0, 100), st.integers(0, 200))
def test_any_bytes_are_packets_or_nothing(noise: bytes, at: int, cut: int) -> None:
    whole = bytearray(datagram(*ALL))
    whole[at : at + len(noise)] = noise
    assert all(isinstance(told, Logged) for told in parse(bytes(whole[:cut])))
