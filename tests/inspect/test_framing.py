"""Framing of hostile streams: any bytes are framed without an exception, within bounds, and bodies are found."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect import framing

LIMIT = 1 << 20
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"content-length: 5\r\n", b"content-length: 99999999999\r\n",
        b"transfer-encoding: chunked\r\n", b"content-encoding: gzip\r\n", b"\r\n", b"\n\n", b"5\r\nhello\r\n",
        b"0\r\n\r\n", b"fffffffffffffff\r\n", b"HTTP/", b"\x1f\x8b\x08", b"hello", gzip.compress(b"x" * 100),
    ]
)  # fmt: skip
STREAMS = st.lists(PIECES | st.binary(max_size=30), max_size=14).map(b"".join)


def found(data: bytes, *, http: bool = True, limit: int = LIMIT) -> list[framing.Found]:
    return list(framing.objects(memoryview(data), http=http, limit=limit))


def bodies(data: bytes) -> list[tuple[bytes, bool]]:
    return [(bytes(f.body), f.complete) for f in found(data)]


def response(body: bytes, *fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


def sized(body: bytes, *fields: bytes) -> bytes:
    return response(body, b"Content-Length: %d" % len(body), *fields)


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@given(STREAMS, st.booleans())
@settings(max_examples=400, deadline=None)
def test_any_stream_is_framed_in_order_and_within_bounds(data: bytes, http: bool) -> None:
    end = 0
    for one in found(data, http=http, limit=1000):
        assert one.start >= end
        assert len(one.body) <= max(1000, len(data))
        end = one.end or len(data)
    assert 0 <= framing.expected_end(memoryview(data), http=http)


@given(STREAMS)
@settings(max_examples=200, deadline=None)
def test_no_byte_of_a_stream_is_left_out(data: bytes) -> None:
    """Between two objects lies nothing: what belongs to none could carry what nobody looks at."""
    at = 0
    for one in found(data):
        assert one.start == at
        if not one.complete:
            return
        at = one.end
    assert at >= len(data)


@given(st.binary(max_size=300), st.integers(1, 50))
@settings(max_examples=150, deadline=None)
def test_each_form_gives_the_body(body: bytes, size: int) -> None:
    packed = gzip.compress(body)
    for stream in (
        sized(body),
        response(chunked(body, size), b"Transfer-Encoding: chunked"),
        sized(packed, b"Content-Encoding: gzip"),
        response(chunked(packed, size), b"transfer-encoding: chunked", b"content-encoding: gzip"),
        sized(zlib.compress(body), b"content-encoding: deflate"),
    ):
        if body.startswith(b"\x1f\x8b"):
            continue
        one = found(stream)[0]
        assert bytes(one.body) == body
        assert (one.complete, one.end) == (True, len(stream))


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5), st.randoms())
@settings(max_examples=100, deadline=None)
def test_responses_behind_each_other_are_all_found(content: list[bytes], random: object) -> None:
    stream = b"".join(
        sized(body) if i % 2 else response(chunked(body), b"Transfer-Encoding: chunked")
        for i, body in enumerate(content)
    )
    plain = [b for b in content if not b.startswith(b"\x1f\x8b")]
    if plain == content:
        assert bodies(stream) == [(body, True) for body in content]


def test_without_a_length_the_body_lasts_to_the_close() -> None:
    assert bodies(response(b"all of it")) == [(b"all of it", False)]


def test_a_part_of_a_response_is_told_as_a_part() -> None:
    assert bodies(response(b"half", b"content-length: 8")) == [(b"half", False)]
    stream = response(chunked(b"0123456789")[:6], b"transfer-encoding: chunked")
    assert bodies(stream) == [(b"012", False)]
    packed = sized(gzip.compress(b"word " * 4000), b"content-encoding: gzip")
    assert bodies(packed[:-20])[0][0].startswith(b"word word")


def test_after_garbage_the_next_response_is_found() -> None:
    stream = b"the rest of something" * 10 + sized(b"body")
    assert bodies(stream)[-1] == (b"body", True)
    assert bodies(stream)[0] == (b"the rest of something" * 10, True)


def test_bodyless_responses_are_passed_over() -> None:
    stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 N\r\ncontent-length: 9\r\n\r\n" + sized(b"body")
    assert bodies(stream)[-1] == (b"body", True)


def test_gzip_without_saying_so_is_opened() -> None:
    assert bodies(sized(gzip.compress(b"hidden")))[0] == (b"hidden", True)


def test_two_lengths_that_differ_are_read_to_the_close() -> None:
    stream = response(b"0123456789", b"content-length: 2", b"content-length: 5")
    assert bodies(stream) == [(b"0123456789", False)]


def test_the_expected_end_is_the_declared_one() -> None:
    whole = sized(b"one")
    part = response(b"tw", b"content-length: 500")
    assert framing.expected_end(memoryview(whole + part), http=True) == len(whole) + len(part) + 498
    assert framing.expected_end(memoryview(whole), http=True) == 0
    unknown = response(b"5\r\n", b"transfer-encoding: chunked", b"content-length: 7")
    assert framing.expected_end(memoryview(unknown), http=True) == 0
    assert framing.expected_end(memoryview(part), http=False) == 0


def test_a_bomb_opens_to_the_limit_only() -> None:
    bomb = sized(gzip.compress(bytes(30 << 20)), b"content-encoding: gzip")
    assert len(found(bomb, limit=1 << 20)[0].body) == 1 << 20


SLOW = {
    "chunks of one byte": response(b"1\r\nx\r\n" * (2 << 20) + b"0\r\n\r\n", b"transfer-encoding: chunked"),
    "empty responses": b"HTTP/1.1 204 X\r\n\r\n" * 100_000,
    "heads that never end": b"HTTP/1.1 200 OK\r\n" * 120_000,
    "line ends": response(b"\r\n" * (1 << 20), b"transfer-encoding: chunked"),
    "almost heads": b"HTTP/1 1 1 1 1 1 " * 120_000,
    "long extensions": response((b"1;" + b"a" * 250 + b"\n") * 8000, b"transfer-encoding: chunked"),
    "fields": b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 10_000 + b"\r\n",
}


@pytest.mark.parametrize("name", SLOW)
def test_no_shape_of_two_megabytes_takes_two_seconds(name: str) -> None:
    began = time.process_time()
    found(SLOW[name], limit=64 << 20)
    framing.expected_end(memoryview(SLOW[name]), http=True)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("line", [b"8;" + b"x" * 4000, b"0000000000000008", b"0x8", b"0" * 200 + b"8"])
def test_a_chunk_is_joined_to_the_next_however_its_length_is_written(line: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    stream = head + b"".join(line + b"\r\n" + part + b"\r\n" for part in (b"EICAR-ST", b"ANDARD-A")) + b"0\r\n\r\n"
    (found,) = framing.objects(memoryview(stream), http=True, limit=1 << 20)
    assert found.complete
    assert bytes(found.body) == b"EICAR-STANDARD-A"


def test_what_lies_behind_very_many_responses_is_told() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * (framing.MAX_OBJECTS + 1)
    bad = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    *_, last = framing.objects(memoryview(interim + bad), http=True, limit=1 << 20)
    assert bytes(last.body) == b"bad"
    small = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx" * framing.MAX_OBJECTS
    *_, last = framing.objects(memoryview(small + bad), http=True, limit=1 << 20)
    assert bytes(last.body).endswith(b"bad")
