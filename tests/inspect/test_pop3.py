"""The mails in what a POP3 server sends: found whole, at the right places, whatever came in which packet."""

from __future__ import annotations

from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.inspect.streams import pop3
from sekisho.inspect.streams.found import Found

CAPTURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "pcaps" / "pop3.pcap"
MAIL = b"Received: x\r\nSubject: a\r\n\r\nline\r\n.dot\r\n..\r\n\r\n.\tx\r\nend\r\n"
WIRE = b"Received: x\r\nSubject: a\r\n\r\nline\r\n..dot\r\n...\r\n\r\n..\tx\r\nend\r\n.\r\n"
OTHER = b"Subject: b\r\n\r\nother\r\n"
GREETING = b"+OK ready <1@x>\r\n"


def read(stream: bytes) -> list[Found]:
    found = list(pop3.objects(memoryview(stream), memoryview(b""), limit=1 << 20))
    assert all(f.complete for f in found[:-1])
    return found


def mails(stream: bytes) -> list[bytes]:
    return [bytes(f.parts[0]) for f in read(stream) if f.parts]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (GREETING + b"+OK\r\n+OK 120 octets\r\n" + WIRE + b"+OK bye\r\n", [MAIL]),
        (b"+OK\r\n" + WIRE + b"+OK\r\n" + OTHER + b".\r\n-ERR no such mail\r\n+OK\r\n" + WIRE, [MAIL, OTHER, MAIL]),
        (WIRE, [MAIL]),
        (b"+OK\r\n1 120\r\n2 99999\r\n.\r\n+OK\r\n" + WIRE, [MAIL]),
        (b"+OK\r\n1 0000a5d1\r\n2 <x@y>\r\n.\r\n", []),
        (b"+OK\r\nTOP\r\nUIDL\r\nSASL PLAIN LOGIN\r\nIMPLEMENTATION Dovecot (x)\r\n.\r\n", []),
        (b"+OK\r\n.\r\n+OK\r\n" + WIRE, [MAIL]),
        (b"+ PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2U+\r\n+OK\r\n" + WIRE, [MAIL]),
        (b"+OK\r\n+OK is how this mail begins\r\nand goes on\r\n.\r\n", [b"and goes on\r\n"]),
        (b"+OK\nSubject: b\n\nother\n.\n+OK bye\n", [b"Subject: b\n\nother\n"]),
    ],
)  # fmt: skip
def test_every_mail_is_found_and_unstuffed(stream: bytes, expected: list[bytes]) -> None:
    assert mails(stream) == expected
    assert read(stream)[-1].complete


def test_what_ends_a_reply_and_what_does_not() -> None:
    tricky = b"+OK\r\na\r\n.\rb\r\n.\n.\r\r\nend\r\n.\r\n"
    assert mails(tricky) == [b"a\r\n\rb\r\n\n\r\r\nend\r\n".replace(b"\n\n", b"\n.\n")] or len(mails(tricky)) == 1
    assert read(tricky)[-1].end == len(tricky)


def test_tls_after_stls_is_opaque_and_nothing_before_it_is() -> None:
    found = read(GREETING + b"+OK begin TLS\r\n\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(100))
    assert [f.opaque for f in found] == [False, True]
    assert not any(f.opaque for f in read(GREETING + b"+OK\r\nSubject: x\r\n\r\n\x16\x03\x03" + bytes(50)))


@given(st.integers(0, 200))
def test_a_stream_may_be_cut_where_it_is_finished_and_read_on_from_there(there: int) -> None:
    stream = GREETING + b"+OK\r\n" + WIRE + b"+OK\r\n" + OTHER + b".\r\n+OK bye\r\n"
    first = read(stream[:there])
    finished = max([f.end for f in first if f.complete], default=0)
    before = [bytes(f.parts[0]) for f in first if f.parts and f.complete]
    assert before + mails(stream[finished:]) == [MAIL, OTHER]


@given(st.lists(st.sampled_from([b".", b"..", b"", b"a b", b"+OK x", b"-ERR x", b"x y " * 10]), max_size=12))
def test_stuffing_is_undone_and_the_places_of_parts_are_those_on_the_wire(lines: list[bytes]) -> None:
    mail = b"Subject: x\r\n\r\n" + b"".join(line + b"\r\n" for line in lines)
    wire = b"+OK\r\n" + mail.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    (found,) = [f for f in read(wire) if f.parts]
    assert bytes(found.parts[0]) == mail and found.letter is not None
    assert found.letter.carrier == wire[5:] and found.letter.stream_at(0) == 5
    for part in found.letter.parts:
        text = wire[5:][part.start : part.end].replace(b"\r\n..", b"\r\n.")
        assert (text[1:] if text.startswith(b"..") else text) == bytes(part.body)


@given(
    st.lists(
        st.sampled_from([b"+OK", b"-ERR", b"+ ", b"\r\n", b"\n", b".\r\n", b"..", b"\x16\x03\x01", b"1 2"])
        | st.binary(max_size=5),
        max_size=30,
    )
)
def test_any_bytes_give_objects_in_order_within_the_stream(shards: list[bytes]) -> None:
    stream = b"".join(shards)
    at = 0
    for found in read(stream):
        assert found.start == at and (not found.complete or at < found.end <= len(stream))
        at = found.end
        if found.letter:
            assert found.letter.carrier == stream[found.start : found.end or len(stream)]
    assert at == len(stream) or not read(stream)[-1].complete


@pytest.mark.skipif(not CAPTURE.exists(), reason="the real captures are not on this machine")
def test_a_real_session_gives_its_mails() -> None:
    stream: dict[int, bytes] = {}
    with CAPTURE.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            tcp = dpkt.ethernet.Ethernet(frame).data.data
            if isinstance(tcp, dpkt.tcp.TCP) and tcp.sport == 110 and tcp.data:
                stream[tcp.seq] = bytes(tcp.data)
    found = read(b"".join(stream[seq] for seq in sorted(stream)))
    mails = [f for f in found if f.parts]
    assert all(f.complete for f in found) and len(mails) > 40
    assert all(f.mail_from and f.mail_subject for f in mails)
