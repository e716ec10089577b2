"""HTTP/1 as it comes: any bytes are split in order and within bounds, and every body is found."""

from __future__ import annotations

import gzip
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import http1
from sekisho.inspect.streams.found import Found

LIMIT = 1 << 20
GET = b"GET /files/a.exe?x=1 HTTP/1.1\r\nHost: files.example\r\n\r\n"
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 204 X\r\n", b"content-length: 5\r\n", b"content-length: 99999999999\r\n",
        b"transfer-encoding: chunked\r\n", b"content-encoding: gzip\r\n", b"\r\n", b"\n\n", b"5\r\nhello\r\n",
        b"0\r\n\r\n", b"fffffffffffffff\r\n", b"HTTP/", b"\x1f\x8b\x08", b"hello", gzip.compress(b"x" * 100), GET,
        b"POST /a HTTP/1.1\r\n", b"content-type: multipart/form-data; boundary=b\r\n", b"--b\r\n", b"\r", b"\0",
        b"HTTP/1.1 206 P\r\ncontent-range: bytes 0-4/9\r\n", b"HTTP/1.1 101 S\r\n", b"CONNECT a HTTP/1.1\r\n\r\n",
    ]
)  # fmt: skip
STREAMS = st.lists(PIECES | st.binary(max_size=30), max_size=14).map(b"".join)
SIDES = pytest.mark.parametrize("split", [http1.responses, http1.requests])


def found(data: bytes, *, asked: bytes = GET, limit: int = LIMIT) -> list[Found]:
    return list(http1.responses(memoryview(data), memoryview(asked), limit=limit))


def asked(data: bytes, *, limit: int = LIMIT) -> list[Found]:
    return list(http1.requests(memoryview(data), memoryview(b""), limit=limit))


def bodies(data: bytes) -> list[tuple[bytes, bool]]:
    return [(bytes(f.parts[0]) if f.parts else b"", f.complete) for f in found(data)]


def response(body: bytes, *fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body


def sized(body: bytes, *fields: bytes) -> bytes:
    return response(body, b"Content-Length: %d" % len(body), *fields)


def chunked(body: bytes, size: int = 7) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@SIDES
@given(data=STREAMS, limit=st.sampled_from([1, 1000, LIMIT]), peer=STREAMS)
@settings(max_examples=300, deadline=None)
def test_any_stream_is_split_in_order_and_within_bounds(split: object, data: bytes, limit: int, peer: bytes) -> None:
    at = 0
    objects = list(split(memoryview(data), memoryview(peer), limit=limit))  # type: ignore[operator]  # parametrized
    for number, one in enumerate(objects):
        assert at <= one.start <= len(data)
        assert not data[at : one.start].strip(b"\r\n"), "a byte between two objects belongs to none"
        if number < len(objects) - 1:
            assert one.complete, "only the last may be incomplete"
        if one.complete:
            assert one.start < one.end <= len(data)
            assert not one.expected
            at = one.end
        else:
            assert one.expected == 0 or one.expected > len(data)
        assert all(len(part) <= max(limit, len(data)) for part in one.parts)
        assert not one.trouble or any(len(part) for part in one.parts), "in doubt there is something to look at"
    if not objects or objects[-1].complete:
        assert not data[at:].strip(b"\r\n"), "the rest belongs to none"


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
        sized(zlib.compress(body, wbits=-15), b"content-encoding: deflate"),
    ):
        (one,) = found(stream)
        assert (one.complete, one.end, one.trouble) == (True, len(stream), "")
        assert (bytes(one.parts[0]) if one.parts else b"") == body or not body


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_responses_behind_each_other_are_all_found(content: list[bytes]) -> None:
    stream = b"".join(
        sized(body) if i % 2 else response(chunked(body), b"Transfer-Encoding: chunked")
        for i, body in enumerate(content)
    )
    assert bodies(stream) == [(body, True) for body in content]


@given(st.data(), st.sampled_from([GET, b""]))
@settings(max_examples=100, deadline=None)
def test_a_part_of_an_ordinary_stream_is_never_in_doubt(data: st.DataObject, peer: bytes) -> None:
    """A look comes at any moment: whatever has not come yet must not look like an evasion."""
    text = b"a body of some length " * 9
    whole = (
        sized(text, b"Server: nginx") + response(chunked(text, 60), b"Transfer-Encoding: chunked")
        + sized(gzip.compress(text), b"Content-Encoding: gzip") + b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"
        + response(chunked(gzip.compress(text), 30), b"Content-Encoding: gzip", b"Transfer-Encoding: chunked")
    )  # fmt: skip
    cut = data.draw(st.integers(0, len(whole)))
    objects = found(whole[:cut], asked=peer)
    assert not [one.trouble for one in objects if one.trouble]
    assert all(one.complete for one in objects[:-1])


def test_without_a_length_the_body_lasts_to_the_close() -> None:
    assert bodies(response(b"all of it")) == [(b"all of it", False)]


def test_a_part_of_a_response_is_told_as_a_part() -> None:
    assert bodies(response(b"half", b"content-length: 8")) == [(b"half", False)]
    assert bodies(response(chunked(b"0123456789")[:6], b"transfer-encoding: chunked")) == [(b"012", False)]
    packed = sized(gzip.compress(b"word " * 4000), b"content-encoding: gzip")
    assert bodies(packed[:-20])[0][0].startswith(b"word word")
    assert bodies(b"HTTP/1.1 200 OK\r\nContent-Le") == [(b"HTTP/1.1 200 OK\r\nContent-Le", False)]


def test_bodyless_responses_are_passed_over() -> None:
    stream = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 304 N\r\ncontent-length: 9\r\n\r\n" + sized(b"body")
    assert bodies(stream) == [(b"", True), (b"", True), (b"body", True)]
    head = response(b"", b"content-length: 9")
    (one,) = found(head, asked=b"HEAD /a HTTP/1.1\r\n\r\n")
    assert (one.complete, one.end, one.parts) == (True, len(head), [])


def test_names_come_from_the_request_and_the_response() -> None:
    (one,) = found(sized(b"x"))
    assert (one.name, one.url, one.host) == ("a.exe", "/files/a.exe?x=1", "files.example")
    (one,) = found(sized(b"x", b'Content-Disposition: attachment; filename="b.zip"'))
    assert (one.name, one.host) == ("b.zip", "files.example")


def test_the_expected_end_is_the_declared_one() -> None:
    whole, part = sized(b"one"), response(b"tw", b"content-length: 500")
    assert found(whole + part)[-1].expected == len(whole) + len(part) + 498
    assert found(whole)[0].expected == 0
    assert found(response(b"5\r\n", b"transfer-encoding: chunked"))[0].expected == 0


def test_a_range_says_where_it_belongs() -> None:
    stream = b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/%b\r\nContent-Length: 5\r\n\r\nabcde"
    for total, wanted in ((b"100", 100), (b"*", 0)):
        (one,) = found(stream % total)
        assert (one.ranged, one.complete) == ((5, 10, wanted), True)
        assert (stream % total)[one.body_at :] == b"abcde"
    (one,) = found(sized(b"abcde", b"Content-Range: bytes 5-9/100"))
    assert one.ranged is None, "only where the status says so"


def test_where_the_protocol_changes_nothing_more_is_read() -> None:
    upgrade = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"
    (one,) = found(switch, asked=upgrade)
    assert (one.opaque, one.trouble) == (True, "")
    (one,) = found(response(b"\x16\x03\x01"), asked=b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert one.opaque
    (one,) = asked(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03")
    assert (one.opaque, one.host) == (True, "a:443")
    assert not found(switch)[0].opaque, "nobody asked for it"


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"PROPFIND", b"VERSION-CONTROL"])
def test_an_upload_is_found_and_named(method: bytes) -> None:
    head = method + b" /up/b.exe HTTP/1.1\r\nHost: up.example\r\n"
    for stream, body in (
        (head + b"Content-Length: 7\r\n\r\npayload", b"payload"),
        (head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"payload"), b"payload"),
        (head + b"Content-Encoding: gzip\r\nContent-Length: 27\r\n\r\n" + gzip.compress(b"payload"), b"payload"),
    ):
        one, last = asked(stream + GET)
        assert (bytes(one.parts[0]), one.complete, one.end) == (body, True, len(stream))
        assert (one.name, one.url, one.host) == ("b.exe", "/up/b.exe", "up.example")
        assert (last.parts, last.complete) == ([], True)


FORM = (
    b'--zz\r\nContent-Disposition: form-data; name="t"\r\n\r\ntext\r\n--zz\r\n'
    b'Content-Disposition: form-data; name="f"; filename="C:\\dir\\c.exe"\r\nContent-Type: x/y\r\n\r\n'
    b"MZ\r\nfile\r\n--zz--\r\n"
)


@pytest.mark.parametrize("boundary", [b"zz", b'"zz"'])
def test_the_members_of_a_form_are_found_without_their_heads(boundary: bytes) -> None:
    head = b"POST /f HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=" + boundary
    stream = head + b"\r\nContent-Length: %d\r\n\r\n" % len(FORM) + FORM
    (one,) = asked(stream)
    parts = [bytes(part) for part in one.parts]
    assert parts[0] == FORM
    assert b"text" in parts
    assert b"MZ\r\nfile" in parts
    assert (one.name, one.complete) == ("c.exe", True)
    half = asked(stream[:-12])[0]
    assert half.expected == len(stream)
    assert any(bytes(part).startswith(b"MZ") for part in half.parts)


def test_requests_never_carry_trouble() -> None:
    for stream in (
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nevil",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nevil",
        b"\x16\x03\x01 evil", b"SSTP_DUPLEX_POST / HTTP/1.1\r\n\r\nevil",
    ):  # fmt: skip
        (one,) = asked(stream)
        assert not one.trouble
        assert any(b"evil" in bytes(part) for part in one.parts)


def test_a_bomb_opens_to_the_limit_only() -> None:
    bomb = sized(gzip.compress(bytes(30 << 20)), b"content-encoding: gzip")
    assert len(found(bomb, limit=1 << 20)[0].parts[0]) == 1 << 20
    unsure = sized(gzip.compress(bytes(30 << 20)), b"content-encoding: gzip", b"content-length: 4")
    assert max(len(part) for part in found(unsure, limit=1 << 20)[0].parts) == 1 << 20


def test_what_lies_behind_very_many_objects_is_told() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * (http1.MAX_OBJECTS + 1)
    for stream, split in ((interim + sized(b"bad"), found), (GET * (http1.MAX_OBJECTS + 1) + b"bad", asked)):
        *_, last = split(stream)
        assert bytes(last.parts[0]).endswith(b"bad")
        assert not last.complete


SLOW = {
    "chunks of one byte": response(b"1\r\nx\r\n" * (2 << 20) + b"0\r\n\r\n", b"transfer-encoding: chunked"),
    "empty responses": b"HTTP/1.1 204 X\r\n\r\n" * 100_000,
    "heads that never end": b"HTTP/1.1 200 OK\r\n" * 120_000,
    "line ends": response(b"\r\n" * (1 << 20), b"transfer-encoding: chunked"),
    "only line ends": b"\r\n" * (1 << 20),
    "almost heads": b"HTTP/1 1 1 1 1 1 " * 120_000,
    "long extensions": response((b"1;" + b"a" * 250 + b"\n") * 8000, b"transfer-encoding: chunked"),
    "extensions": response((b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 2000, b"transfer-encoding: chunked"),
    "fields": b"HTTP/1.1 200 OK\r\n" + b"a:b\r\n" * 10_000 + b"\r\n",
    "spaces": b"HTTP/1.1 200 OK\r\na:" + b" " * (2 << 20) + b"\r\n\r\n",
    "doubted": response(b"0x1\r\nx\r\n" * (1 << 18), b"transfer-encoding: chunked"),
    "doubted and compressed": response(b"\x1f\x8b\x08" * (700_000), b"transfer-encoding: xchunked"),
    "requests": b"GET / HTTP/1.1\r\n\r\n" * 100_000,
    "members": b"POST / HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 2000000\r\n\r\n"
    + b"--b" * 666_000,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_shape_of_two_megabytes_takes_two_seconds(name: str) -> None:
    began = time.process_time()
    found(SLOW[name], limit=64 << 20)
    asked(SLOW[name], limit=64 << 20)
    assert time.process_time() - began < 2
