"""What the HTTP/2 splitter finds in either side of a connection, from its beginning or from later on."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

import brotli
import msgspec
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect.streams import http2, registry
from sekisho.inspect.streams.found import Found
from sekisho.lab.samples import EICAR, clean, malicious

LIMIT = 64 << 20
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
GET = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + payload


SETTINGS = frame(4, 0, 0, b"\0\x03\0\0\0\x64")


class Peer:
    """Writes what one side of a connection says."""

    def __init__(self) -> None:
        self.encoder = Encoder()

    def head(
        self,
        number: int,
        *fields: tuple[str, str],
        end: bool = False,
        pieces: int = 1,
        push: int = 0,
        status: str = "200",
    ) -> bytes:
        block = self.encoder.encode([(":status", status), *fields] if not push else list(fields))
        if push:
            block = push.to_bytes(4, "big") + block
        step = len(block) // pieces + 1
        parts = [block[at : at + step] for at in range(0, len(block), step)]
        out = b""
        for at, part in enumerate(parts):
            kind = 9 if at else 5 if push else 1
            flags = (END_HEADERS if at == len(parts) - 1 else 0) | (END_STREAM if end and not at else 0)
            out += frame(kind, flags, number, part)
        return out


def body(number: int, data: bytes, *, size: int = 1000, pad: int = 0) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        piece, last = data[at : at + size], at + size >= len(data)
        if pad:
            piece = bytes([pad]) + piece + bytes(pad)
        yield frame(0, (PADDED if pad else 0) | (END_STREAM if last else 0), number, piece)


def split(stream: bytes, *, to_server: bool = False, asked: bytes = b"", other: bytes = b"") -> list[Found]:
    peer = asked or msgspec.msgpack.encode((b"", other, 0))
    app = "http" if asked or stream.startswith((b"PRI", b"GET")) else "http2"
    return list(registry.splitter(app, to_server=to_server)(memoryview(stream), memoryview(peer), limit=LIMIT))


def bodies(found: list[Found]) -> list[bytes]:
    return [bytes(part) for one in found for part in one.parts]


def end_of(found: list[Found]) -> int:
    return max((one.end for one in found if one.complete), default=0)


def test_the_bodies_of_mixed_streams_are_told_apart() -> None:
    peer = Peer()
    files = {1: clean(3000), 3: malicious(2500), 5: clean(700)}
    stream = SETTINGS + b"".join(peer.head(number) for number in files)
    parts = {number: body(number, data, size=400) for number, data in files.items()}
    while parts:
        for number in list(parts):
            piece = next(parts[number], None)
            if piece is None:
                del parts[number]
            else:
                stream += piece
    found = split(stream)
    assert sorted(bodies(found)) == sorted(files.values())
    assert end_of(found) == len(stream) and not any(one.trouble for one in found)


def test_nothing_is_forgotten_while_a_stream_is_open() -> None:
    peer = Peer()
    first = SETTINGS + peer.head(1)
    one, other = list(body(1, clean(900), size=300)), list(body(3, clean(500)))
    opened = first + one[0] + peer.head(3) + b"".join(other)
    found = split(opened + one[1])
    assert end_of(found) == len(SETTINGS)
    assert [len(b) for b in bodies(found)] == [500, 600]
    assert [f.complete for f in found if f.parts] == [True, False]
    assert end_of(split(opened + one[1] + one[2])) == len(opened + one[1] + one[2])


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("pad", [0, 1, 255])
def test_padding_and_split_headers_change_nothing(pieces: int, pad: int) -> None:
    peer = Peer()
    stream = SETTINGS + peer.head(1, ("content-disposition", 'attachment; filename="x.exe"'), pieces=pieces)
    stream += b"".join(body(1, malicious(1000), size=300, pad=pad))
    (seen,) = [one for one in split(stream) if one.parts]
    assert bytes(seen.parts[0]) == malicious(1000) and seen.name == "x.exe" and seen.complete


def test_priority_and_pushed_streams_are_read() -> None:
    peer = Peer()
    block = peer.encoder.encode([(":status", "200")])
    stream = SETTINGS + frame(1, END_HEADERS | PRIORITY, 1, b"\0\0\0\0\x10" + block)
    stream += peer.head(1, (":path", "/pushed.js"), push=2) + peer.head(2, ("content-encoding", "gzip"))
    stream += b"".join(body(2, gzip.compress(malicious(800)))) + b"".join(body(1, clean(100)))
    assert {malicious(800), clean(100)} <= set(bodies(split(stream)))


PACKED = {
    "gzip": gzip.compress(malicious(5000)),
    "deflate": zlib.compress(malicious(5000)),
    "br": brotli.compress(malicious(5000)),
}


@pytest.mark.parametrize("coding", PACKED)
def test_a_coding_is_undone_even_when_its_name_was_said_before_the_stream_was_met(coding: str) -> None:
    peer = Peer()
    stream = SETTINGS
    for number in (1, 3):
        stream += peer.head(number, ("content-encoding", coding), ("x-other", str(number)))
        stream += b"".join(body(number, PACKED[coding]))
    found = split(stream)
    assert bodies(found).count(malicious(5000)) == 2
    assert end_of(found) == len(stream)
    later = stream[len(stream) // 2 :]
    later = later[later.index(b"\x01\x04\0\0\0\x03") - 3 :]
    assert malicious(5000) in bodies(split(later))


def test_what_was_said_before_is_known_when_it_has_left_the_spool() -> None:
    """Also when the same place is looked at again, and not at a place that nobody has told of."""
    peer = Peer()
    first = SETTINGS + peer.head(1, ("content-length", "700"), ("x-name", "x")) + b"".join(body(1, clean(700)))
    second = peer.head(3, ("content-length", "700"), ("x-name", "x")) + frame(0, 0, 3, bytes(100))
    assert len(second) < 30 + 100, "by reference"

    def expected(memo: bytes, base: int) -> tuple[int, bytes]:
        peer = memoryview(msgspec.msgpack.encode((memo, b"", base)))
        found = list(http2.responses(memoryview(second), peer, limit=LIMIT))
        return found[-1].expected, next(one.memo for one in found if one.memo)

    before = split(first + second)
    assert (end_of(before), before[-1].expected) == (len(first), len(first + second) + 600)
    memo = next(one.memo for one in before if one.memo)
    for _ in range(3):
        place, memo = expected(memo, len(first))
        assert place == len(second) + 600
    assert expected(memo, len(first) - 1)[0] == expected(b"", len(first))[0] == 0


def test_a_table_too_large_to_be_kept_is_not() -> None:
    peer = Peer()
    peer.encoder.header_table_size = 60_000
    fields = [(f"x-{number}", "v" * 900) for number in range(40)]
    memos = [one.memo for one in split(SETTINGS + peer.head(1, *fields, end=True)) if one.memo]
    assert memos and max(map(len, memos)) < 1000


def test_names_come_from_the_requests() -> None:
    peer = Encoder()
    ask = http2.PREFACE + SETTINGS
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", "www.test:8082"), (":path", "/files/a.exe?x=1")]
    ask += frame(1, END_HEADERS | END_STREAM, 1, peer.encode(fields))
    found = split(ask, to_server=True)
    memo = next(one.memo for one in found if one.memo)
    assert found[0].becomes == "http2" and end_of(found) == len(ask)
    (seen,) = [one for one in split(Peer().head(1) + b"".join(body(1, clean(100))), other=memo) if one.parts]
    assert (seen.name, seen.url, seen.host) == ("a.exe", "/files/a.exe?x=1", "www.test:8082")
    assert [one.memo for one in split(frame(6, 0, 0, bytes(8)), to_server=True) if one.memo]


def test_an_upload_is_read_with_the_files_of_its_form() -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="up.bin"\r\n\r\n'
        + malicious(900)
        + b"\r\n--b--\r\n"
    )
    fields = [(":method", "POST"), (":path", "/up"), ("content-type", "multipart/form-data; boundary=b")]
    ask = http2.PREFACE + SETTINGS + frame(1, END_HEADERS, 1, Encoder().encode(fields)) + b"".join(body(1, form))
    (seen,) = [one for one in split(ask, to_server=True) if one.parts]
    assert malicious(900) in bodies([seen]) and seen.name == "up.bin"


@pytest.mark.parametrize("asked", [http2.PREFACE, GET])
def test_a_connection_that_becomes_http2_is_followed(asked: bytes) -> None:
    stream = (SWITCH if asked is GET else b"") + SETTINGS + Peer().head(1) + b"".join(body(1, malicious(900)))
    found = split(stream, asked=asked)
    assert found[0].becomes == "http2" and malicious(900) in bodies(found) and end_of(found) == len(stream)
    ask = (GET if asked is GET else b"") + http2.PREFACE + SETTINGS
    assert any(one.becomes for one in split(ask, to_server=True)) and end_of(split(ask, to_server=True)) == len(ask)


def test_a_client_that_goes_on_before_the_answer_is_looked_at_changes_nothing() -> None:
    stream = SWITCH + SETTINGS + Peer().head(1) + b"".join(body(1, malicious(900)))
    found = split(stream, asked=http2.PREFACE + SETTINGS)
    assert malicious(900) in bodies(found) and not any(one.trouble for one in found)


def test_a_server_that_declines_is_read_as_http1() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 900\r\n\r\n" + malicious(900)
    peer = memoryview(msgspec.msgpack.encode((b"", b"", 0)))
    (found,) = http2.responses(memoryview(answer), peer, limit=LIMIT)
    assert bytes(found.parts[0]) == malicious(900) and found.complete


def test_a_server_that_changes_to_http2_unasked_is_trouble() -> None:
    stream = SETTINGS + Peer().head(1) + b"".join(body(1, malicious(900)))
    assert any(one.trouble for one in split(stream, asked=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert any(one.trouble for one in split(SWITCH + stream, asked=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))


def test_content_without_headers_or_behind_the_end_is_read() -> None:
    stream = SETTINGS + b"".join(body(7, gzip.compress(malicious(800))))
    stream += Peer().head(9, end=True) + b"".join(body(9, malicious(700))) + b"".join(body(0, malicious(600)))
    assert {malicious(800), malicious(700), malicious(600)} <= set(bodies(split(stream)))


def test_a_stream_that_is_reset_is_over_and_was_read() -> None:
    stream = SETTINGS + Peer().head(1) + next(body(1, malicious(999) + b"x")) + frame(3, 0, 1, bytes(4))
    found = split(stream)
    assert end_of(found) == len(stream) and EICAR in bodies(found)[0]


def test_what_has_no_single_reading_is_trouble() -> None:
    peer = Peer()
    wide = frame(0, PADDED | END_STREAM, 1, b"\xff" + clean(100))
    part = peer.head(3, ("content-range", "bytes 100-199/400"), status="206")
    for stream in (peer.head(1) + wide, part + b"".join(body(3, clean(100)))):
        assert any(one.trouble for one in split(SETTINGS + stream)), stream


def test_no_cut_of_the_stream_hides_content_and_every_byte_counts_once() -> None:
    peer = Peer()
    stream = SETTINGS + peer.head(1) + b"".join(body(1, clean(600), size=200)) + frame(6, 0, 0, bytes(8))
    stream += peer.head(3, ("content-encoding", "gzip")) + b"".join(body(3, gzip.compress(malicious(900)), size=300))
    for size in range(len(stream)):
        found = split(stream[:size])
        done = end_of(found)
        assert done <= size and not any(one.trouble for one in found)
        again = split(stream[done:])
        assert malicious(900) in bodies(again) or malicious(900) in bodies(found)
        assert end_of(again) == len(stream) - done


def test_a_flood_of_frames_is_trouble_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "MAX_FRAMES", 100)
    monkeypatch.setattr(http2, "MAX_STREAMS", 50)
    assert any(one.trouble for one in split(frame(6, 0, 0, bytes(8)) * 101))
    opened = b"".join(frame(0, 0, number, b"x") for number in range(1, 53))
    assert any(one.trouble for one in split(opened))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.builds(frame, st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60))
        | st.binary(max_size=30),
        max_size=12,
    ),
    st.booleans(),
)
def test_any_bytes_give_objects_within_the_stream(pieces: list[bytes], to_server: bool) -> None:
    stream = b"".join(pieces)
    found = split(b"\0" + stream, to_server=to_server)
    assert all(0 <= one.start <= len(stream) + 1 and one.end <= len(stream) + 1 for one in found)


def passes(stream: bytes, full: int = 300_000, looked: int = 400_000) -> tuple[int, int]:
    return http2.may_pass(memoryview(stream), memoryview(b""), full=full, looked=looked, limit=LIMIT)


def test_of_long_bodies_that_go_on_all_but_the_last_bytes_may_pass() -> None:
    """Whatever passes without a look leaves the end of each open body behind."""
    frames = [frame(0, 0, number, clean(9000)) for _ in range(40) for number in (1, 3)]
    small = [frame(0, 0, 5, clean(500)) for _ in range(20)]
    stream = b"".join(frames)
    assert passes(stream) == (len(stream) - len(frames[0]) - http2.TAIL, 0)
    assert passes(stream + b"".join(small)) == (len(stream) - len(frames[0]) - http2.TAIL, 0)
    only = b"".join(small * 80)
    passed, _ = passes(only)
    assert http2.TAIL <= len(only) - passed < 2 * http2.TAIL
    for ending in (
        frame(0, 1, 3, b"x"),
        frame(1, 5, 7, b"x"),
        frame(3, 0, 1, bytes(4)),
        frame(0, 1, 1, clean(9000))[:20],
    ):
        assert passes(stream + ending, looked=len(stream)) == (0, 0)
    assert passes(stream, looked=len(stream)) == (0, 0), "nothing more comes"
    assert passes(stream, full=1000, looked=2000) == (0, 0), "short"


def test_a_body_is_looked_at_where_it_is_as_long_as_it_has_said_and_not_again_for_what_follows() -> None:
    head = Peer().head(1, ("content-length", "700000"))
    frames = [frame(0, 0, 1, clean(10_000)) for _ in range(70)]
    before, until = head + b"".join(frames[:60]), head + b"".join(frames)
    passed, expected = passes(before)
    assert (passed > 0, expected) == (True, len(before) + 100_000)
    assert passes(until[:-1])[1] == len(until), "its last byte is the next one"
    assert passes(until, looked=len(before)) == (0, 0)
    behind = until + frames[0]
    assert passes(behind, looked=len(before)) == (0, 0), "the end came and more with it"
    passed, expected = passes(behind, looked=len(until))
    assert (passed > 0, expected) == (True, 0)


@pytest.mark.parametrize("to_server", [False, True])
@pytest.mark.parametrize(
    ("said", "expected"),
    [(["900"], 800), (["100"], 0), (["50"], 0), ([], 0), (["900", "901"], 0), (["9e9"], 0), ([str(LIMIT)], 0)],
)
def test_where_a_body_may_end_is_told_and_never_a_place_behind_it(
    to_server: bool, said: list[str], expected: int
) -> None:
    stream = SETTINGS + Peer().head(1, *(("content-length", one) for one in said)) + frame(0, 0, 1, bytes(100))
    *_, last = split(stream, to_server=to_server)
    assert last.expected == (len(stream) + expected if expected else 0)
    two = stream + Peer().head(3, ("content-length", "300")) + frame(0, 0, 3, bytes(7))
    *_, last = split(two, to_server=to_server)
    assert last.expected == len(two) + 293, "the next one"
