"""Content codings: whatever a browser could read is read, and a bomb opens to the limit only."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import os
import sys
import time
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.inspect import decode

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


LIMIT = 1 << 20


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK: dict[decode.Kind, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zlib": zlib.compress, "raw": raw, "br": brotli.compress, "zstd": zstd.compress,
    "bz2": bz2.compress, "xz": lzma.compress, "lzma": lambda d: lzma.compress(d, lzma.FORMAT_ALONE),
}  # fmt: skip
CODING = {"gzip": "gzip", "zlib": "deflate", "raw": "deflate", "br": "br", "zstd": "zstd", "bz2": "bzip2"}
KINDS = st.sampled_from(sorted(PACK))


@given(KINDS, st.binary(min_size=1, max_size=4000) | st.binary(min_size=1, max_size=9).map(lambda b: b * 20_000))
@settings(max_examples=150, deadline=None)
def test_what_was_packed_comes_out(kind: decode.Kind, data: bytes) -> None:
    plain = decode.unpack(memoryview(PACK[kind](data)), kind, LIMIT)
    assert (bytes(plain.data), plain.state) == (data, "whole")


@given(st.sampled_from(sorted(decode._NEW)), st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_answered_within_the_limit(kind: decode.Kind, data: bytes) -> None:
    starts = {k: start for start, k in decode._MAGIC}
    for form in (data, starts.get(kind, b"") + data):
        assert len(decode.unpack(form, kind, 1000).data) <= 1000


@given(st.lists(st.sampled_from(["gzip", "x-gzip", "br", "zstd", "deflate"]), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_codings_on_top_of_each_other_are_undone_last_first(codings: list[str]) -> None:
    data = packed = b"what the reader sees " * 30
    for coding in codings:
        kind = {"x-gzip": "gzip", "deflate": "zlib"}.get(coding, coding)
        packed = PACK[kind](packed)  # type: ignore[index]  # one of the kinds
    assert data in decode.decoded(packed, codings, LIMIT)
    assert decode.decoded(packed, [*codings, *["gzip"] * 4], LIMIT) == []


def test_deflate_is_both_of_what_servers_mean() -> None:
    assert decode.decoded(zlib.compress(b"it"), ["deflate"], LIMIT) == [b"it"]
    assert decode.decoded(raw(b"it"), ["deflate"], LIMIT) == [b"it"]


@pytest.mark.parametrize("kind", sorted(PACK))
def test_a_truncated_tail_costs_nothing_before_it(kind: decode.Kind) -> None:
    data = os.urandom(300_000)
    packed = PACK[kind](data)
    plain = decode.unpack(packed[:200_000], kind, LIMIT)
    block = {"bz2": 200_000, "zstd": 140_000, "br": 140_000}.get(kind, 70_000)  # what a format hands out at once
    assert data.startswith(plain.data)
    assert len(plain.data) >= 200_000 - block
    assert plain.state == "cut"


@pytest.mark.parametrize("kind", ["gzip", "zlib", "zstd", "xz", "lzma", "raw", "br"])
def test_a_broken_checksum_or_tail_hides_nothing(kind: decode.Kind) -> None:
    data = b"seen before the end" * 5
    packed = bytearray(PACK[kind](data))
    if kind == "zstd":
        packed = bytearray(zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}))
    if kind in ("gzip", "zlib", "zstd"):
        packed[-1] ^= 0xFF
    elif kind == "xz":
        packed[-30] ^= 0xFF  # the block's check
    else:
        packed += b"\xff\xff junk"
    assert bytes(decode.unpack(bytes(packed), kind, LIMIT).data) == data


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
def test_members_behind_each_other_are_joined(kind: decode.Kind) -> None:
    parts = [b"one ", b"", b"two " * 40_000, b"three"]
    packed = b"".join(PACK[kind](part) for part in parts)
    plain = decode.unpack(packed, kind, LIMIT)
    assert (bytes(plain.data), plain.state, plain.used) == (b"".join(parts), "whole", len(packed))
    assert decode.unpack(packed + b"padding", kind, LIMIT).data == b"".join(parts)


@pytest.mark.parametrize("flags", [0, 1, 2, 4, 8, 16, 31, 0xE0, 0xFF])
def test_every_gzip_header_is_read_through(flags: int) -> None:
    head = bytes([0x1F, 0x8B, 8, flags]) + bytes(6)
    head += b"\x03\0abc" * bool(flags & 4) + b"name\0" * bool(flags & 8) + b"comment\0" * bool(flags & 16)
    head += b"\xbd\xbd" * bool(flags & 2)
    assert decode.decoded(head + raw(b"it") + bytes(8), ["gzip"], LIMIT) == [b"it"]


def test_what_the_first_bytes_say_is_undone_whatever_was_declared() -> None:
    inner = gzip.compress(b"hidden")
    assert decode.sniffed(zstd.compress(inner), LIMIT) == [inner, b"hidden"]
    assert decode.sniffed(b"plain", LIMIT) == []


@pytest.mark.parametrize("kind", sorted(PACK))
def test_a_bomb_opens_to_the_limit_only(kind: decode.Kind) -> None:
    began = time.process_time()
    plain = decode.unpack(PACK[kind](bytes(40 << 20)), kind, LIMIT)
    assert (len(plain.data), plain.state) == (LIMIT, "capped")
    assert time.process_time() - began < 20


def test_a_crowd_of_empty_members_costs_bounded_time() -> None:
    for pack in (gzip.compress, bz2.compress, zstd.compress):
        crowd = pack(b"x") * 200_000
        began = time.process_time()
        plain = decode.unpack(crowd, decode.magic(crowd) or "raw", LIMIT)
        assert plain.state == "capped"
        assert time.process_time() - began < 3


def test_the_deadline_ends_it() -> None:
    assert decode.unpack(gzip.compress(bytes(1 << 20)), "gzip", LIMIT, time.monotonic() - 1).state == "timeout"


def test_a_stream_broken_anywhere_gives_what_was_before() -> None:
    data = bytes(itertools.islice(itertools.cycle(range(251)), 3000))
    packed = gzip.compress(data)
    for at in range(20, len(packed), 7):
        broken = packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]
        plain = decode.unpack(broken, "gzip", LIMIT)
        whole = zlib.decompressobj(-15).decompress(packed[10:at])
        assert plain.data.startswith(whole)
