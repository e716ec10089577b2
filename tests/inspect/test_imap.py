"""The mails in what an IMAP server sends: whole, by section, in pieces, in quotes, compressed."""

from __future__ import annotations

import time
import zlib
from pathlib import Path

import dpkt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.inspect.streams import imap
from sekisho.inspect.streams.found import Found

CAPTURE = Path(__file__).resolve().parents[3] / "shared" / "data" / "pcaps" / "imap-detection.pcap"
MAIL = b"Received: x\r\nSubject: a\r\n\r\nline with ) and {5}\r\n* 1 FETCH (BODY[] {3}\r\nend\r\n"
OTHER = b"Subject: b\r\n\r\nother\r\n"
GREETING = b"* OK [CAPABILITY IMAP4rev1] ready\r\na1 OK Logged in\r\n* 3 EXISTS\r\na2 OK done\r\n"


def literal(data: bytes) -> bytes:
    return b"{%d}\r\n" % len(data) + data


def fetch(number: int, item: bytes, data: bytes, more: bytes = b"") -> bytes:
    return b"* %d FETCH (UID %d %s %s%s)\r\n" % (number, number + 100, item, literal(data), more)


def read(stream: bytes) -> list[Found]:
    found = list(imap.objects(memoryview(stream), memoryview(b""), limit=1 << 20))
    for one in found:
        assert one.start < (one.end or len(stream) + 1) and one.end <= len(stream)
    return found


def contents(stream: bytes) -> list[bytes]:
    return [bytes(f.parts[0]) for f in read(stream) if f.parts]


DONE = b"a3 OK Fetch completed.\r\n"
PIECES = fetch(1, b"BODY[]<0>", MAIL[:40]) + DONE + fetch(1, b"BODY[]<40>", MAIL[40:]) + DONE


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (GREETING + fetch(1, b"BODY[]", MAIL) + DONE, [MAIL]),
        (fetch(1, b"BODY[]", MAIL, b" FLAGS (\\Seen)") + fetch(2, b"BODY[]", OTHER) + DONE, [MAIL, OTHER]),
        (b"* 1 FETCH (RFC822 " + literal(MAIL) + b")\r\n* 2 FETCH (RFC822.TEXT {2+}\r\nxy)\r\n" + DONE, [MAIL, b"xy"]),
        (b"* 1 fetch (body[2] " + literal(MAIL) + b" body[1] " + literal(OTHER) + b")\r\n", [MAIL, OTHER]),
        (b"* 1 FETCH (BINARY[2] ~" + literal(b"MZ\0\xff") + b")\r\n" + DONE, [b"MZ\0\xff"]),
        (b'* 1 FETCH (BODY[1] "a \\"quoted\\" \\\\ text" UID 7)\r\n' + DONE, [b'a "quoted" \\ text']),
        (fetch(1, b"BODY[HEADER]", MAIL) + fetch(1, b"BODY[1.MIME]", OTHER) + fetch(1, b"RFC822.HEADER", OTHER), []),
        (fetch(1, b"BODY[HEADER.FIELDS (FROM TO)]", MAIL) + DONE, []),
        (b"* LIST () \"/\" {5}\r\nINBOX\r\n* 1 FETCH (ENVELOPE ({3}\r\nabc NIL))\r\n" + DONE, []),
        (b"* 1 FETCH (X-NEW-ITEM " + literal(b"x" * 5000) + b")\r\n", [b"x" * 5000]),
        (b"+ idling\r\n* 4 EXISTS\r\n" + fetch(1, b"BODY[]", MAIL), [MAIL]),
        (PIECES, [MAIL]),
        (PIECES + fetch(2, b"BODY[]", OTHER), [MAIL, OTHER]),
        (fetch(1, b"BODY[]<0>", MAIL[:40]) + fetch(1, b"BODY[]<30>", MAIL[30:]) + DONE, [MAIL]),
        (fetch(1, b"BODY[]<0>", MAIL) + fetch(2, b"BODY[]<0>", OTHER) + DONE, [MAIL, OTHER]),
        (b"of a mail nobody saw the beginning of\r\nABC\r\n)\r\na9 OK done\r\n" + fetch(1, b"BODY[]", MAIL), None),
    ],
)  # fmt: skip
def test_every_mail_is_found(stream: bytes, expected: list[bytes] | None) -> None:
    got = contents(stream)
    assert got == expected if expected is not None else got[-1] == MAIL


def test_pieces_of_a_mail_know_where_each_lies() -> None:
    stream = GREETING + PIECES
    (found,) = [f for f in read(stream) if f.letter]
    assert found.letter is not None and not found.complete and found.start == len(GREETING)
    for offset in range(len(MAIL)):
        at = found.letter.stream_at(offset)
        assert stream[at] == MAIL[offset] and found.letter.carrier_at(at) == offset
    assert found.letter.carrier_at(len(stream)) == len(MAIL)


def test_a_mail_in_pieces_lasts_until_something_else_is_fetched() -> None:
    assert [f.complete for f in read(PIECES)] == [False]
    assert [f.complete for f in read(PIECES + fetch(2, b"BODY[]", OTHER))] == [True, True]


def test_a_mail_in_pieces_that_says_its_size_ends_with_its_last_piece() -> None:
    size = b"* 1 FETCH (UID 101 RFC822.SIZE %d BODY[]<%d> "
    first, last = size % (len(MAIL), 0) + literal(MAIL[:40]) + b")\r\n", size % (len(MAIL), 40) + literal(MAIL[40:])
    (begun,) = read(first)
    assert not begun.complete and begun.letter is not None and begun.letter.left == len(MAIL) - 40
    (done,) = read(first + last + b")\r\n")
    assert done.complete and done.letter is not None and done.letter.left == 0 and bytes(done.parts[0]) == MAIL


def test_an_unfinished_literal_says_where_it_ends() -> None:
    stream = GREETING + fetch(1, b"BODY[]", MAIL)
    (found,) = [f for f in read(stream[:-20]) if f.letter]
    assert not found.complete and found.expected == len(stream) - 3
    assert found.letter is not None and not found.letter.finished


def test_compression_is_undone() -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(fetch(1, b"BODY[]", MAIL) + DONE) + packer.flush(zlib.Z_SYNC_FLUSH)
    found = read(GREETING + b"a3 OK DEFLATE active\r\n" + packed)
    assert MAIL in [bytes(part) for part in found[-1].parts] and not found[-1].complete


def test_tls_after_starttls_is_opaque() -> None:
    found = read(GREETING + b"a3 OK begin TLS\r\n\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(100))
    assert [f.opaque for f in found] == [False, True]


@given(st.integers(0, 700))
def test_a_stream_may_be_cut_where_it_is_finished_and_read_on_from_there(there: int) -> None:
    stream = GREETING + fetch(1, b"BODY[]", MAIL) + fetch(2, b"BODY[HEADER]", OTHER) + fetch(2, b"BODY[]", OTHER) + DONE
    first = read(stream[:there])
    finished = max([f.end for f in first if f.complete], default=0)
    before = [bytes(f.parts[0]) for f in first if f.parts and f.complete]
    assert before + contents(stream[finished:]) == [MAIL, OTHER]


SHARDS = [
    b"* 1 FETCH (", b"BODY[]", b"<0>", b"<5>", b" {3}\r\n", b"{99}\r\n", b"~{2}\r\n", b"{999999999999999999}\r\n",
    b")\r\n", b"a1 OK x\r\n", b"* ", b"+ ", b"UID 5 ", b'BODY[1] "', b'"', b"\\", b"\x16\x03\x01", b"\0\xff",
    b"RFC822", b"\r\n",
]  # fmt: skip


@given(st.lists(st.sampled_from(SHARDS) | st.binary(max_size=5), max_size=40))
def test_any_bytes_give_objects_in_order(shards: list[bytes]) -> None:
    stream = b"".join(shards)
    at = 0
    for found in read(stream):
        assert found.start >= at or found.start == 0 or not found.complete or found.parts
        if found.complete:
            at = found.end
        if found.letter:
            for offset in range(len(found.letter.carrier)):
                assert stream[found.letter.stream_at(offset)] == found.letter.carrier[offset]


HOSTILE = [
    b"* 1 FETCH (BODY[] {0}\r\n)\r\n" * 25_000, b"* OK\r\n" * 120_000, b"\0\n* OK\r\n" * 80_000,
    b"* " + b"x" * 1_000_000, b"* 1 FETCH (" + b"BODY[] {0}\r\n " * 50_000, b'* 1 FETCH (BODY[1] "' + b"\\" * 1_000_000,
    b"{9}\r\n" * 100_000,
    b"".join(b"* 1 FETCH (BODY[]<%d> {1}\r\nx)\r\n" % n for n in range(25_000)), b"BODY[1] " * 80_000 + b"\r\n",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_streams_cost_time_in_proportion(number: int) -> None:
    began = time.process_time()
    for _ in imap.objects(memoryview(HOSTILE[number]), memoryview(b""), limit=1 << 20):
        pass
    assert time.process_time() - began < 2


@pytest.mark.skipif(not CAPTURE.exists(), reason="the real captures are not on this machine")
def test_a_real_session_gives_its_mails() -> None:
    stream: dict[int, bytes] = {}
    with CAPTURE.open("rb") as file:
        for _, frame in dpkt.pcap.Reader(file):
            tcp = dpkt.ethernet.Ethernet(frame).data.data
            if isinstance(tcp, dpkt.tcp.TCP) and tcp.sport == 143 and tcp.data:
                stream[tcp.seq] = bytes(tcp.data)
    found = read(b"".join(stream[seq] for seq in sorted(stream)))
    assert found and all(f.complete or f is found[-1] for f in found)
    assert any(f.letter and f.mail_subject for f in found)
