"""Compressed data undone, as far as it goes and never further than a limit.

Serves two callers: content codings of HTTP (RFC 9110 8.4.1, RFC 7932, RFC 8878), and files that are one compressed
stream. It reads as the most lenient receiver does: checksums are not looked at, a truncated or damaged tail loses
nothing before it, further members (RFC 1952 2.2) are joined. Runs in scan workers; holds at most `limit` decoded
bytes and a decoder's window. Never raises on content except MemoryError.
"""

from __future__ import annotations

import bz2
import lzma
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Bytes = bytes | bytearray | memoryview
Kind = Literal["gzip", "zlib", "raw", "br", "zstd", "bz2", "xz", "lzma"]

MAX_CODINGS: Final = 4
MAX_MEMBERS: Final = 10_000
"""Streams joined in one file; each costs a decoder."""
_LZMA_BYTES: Final = 96 << 20
"""Memory of one LZMA decoder: the largest preset of xz needs 65 MB."""
_FIRST, _LARGEST = 512, 64 << 10
_STEPS = 1 << 18
"""Single bytes tried before an error, so that what came before it is not lost."""
_CODINGS: Final[dict[str, tuple[Kind, ...]]] = {
    "gzip": ("gzip",), "x-gzip": ("gzip",), "deflate": ("zlib", "raw"), "br": ("br",), "zstd": ("zstd",),
    "bzip2": ("bz2",), "x-bzip2": ("bz2",), "xz": ("xz",), "lzma": ("lzma",),
}  # fmt: skip
_MAGIC: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"), (b"\xfd7zXZ\0", "xz"),
    (b"\x5d\0\0", "lzma"), (b"\x78\x01", "zlib"), (b"\x78\x5e", "zlib"), (b"\x78\x9c", "zlib"), (b"\x78\xda", "zlib"),
)  # fmt: skip


@dataclass(slots=True)
class Plain:
    """What came out."""

    data: bytearray
    state: Literal["whole", "cut", "damaged", "capped", "timeout"]
    """`whole`: every stream ended as it says; `cut`: the input ended first; `capped`: there is more than `limit`."""
    used: int = 0
    """Input bytes read."""


class _Decoder(Protocol):
    def feed(self, data: Bytes, room: int) -> bytes: ...
    @property
    def ended(self) -> bool: ...
    @property
    def rest(self) -> int: ...
    @property
    def hungry(self) -> bool: ...


class _Zlib:
    def __init__(self, bits: int) -> None:
        self._it, self._tail = zlib.decompressobj(bits), b""

    def feed(self, data: Bytes, room: int) -> bytes:
        out = self._it.decompress(self._tail + data if self._tail else data, room)
        self._tail = self._it.unconsumed_tail
        return out

    @property
    def ended(self) -> bool:
        return self._it.eof

    @property
    def rest(self) -> int:
        return len(self._it.unused_data)

    @property
    def hungry(self) -> bool:
        return not self._tail


class _Brotli:
    def __init__(self) -> None:
        self._it = brotli.Decompressor()

    def feed(self, data: Bytes, room: int) -> bytes:
        out: bytes = self._it.process(data, output_buffer_limit=room)  # a soft limit: the caller's is hard
        return out

    @property
    def ended(self) -> bool:
        return bool(self._it.is_finished())

    rest = 0

    @property
    def hungry(self) -> bool:
        return bool(self._it.can_accept_more_data())


class _Stock:
    """bz2, lzma and zstd speak alike."""

    def __init__(self, it: bz2.BZ2Decompressor | lzma.LZMADecompressor | zstd.ZstdDecompressor) -> None:
        self._it = it

    def feed(self, data: Bytes, room: int) -> bytes:
        return self._it.decompress(data, room)

    @property
    def ended(self) -> bool:
        return self._it.eof

    @property
    def rest(self) -> int:
        return len(self._it.unused_data)

    @property
    def hungry(self) -> bool:
        return self._it.needs_input


_NEW: Final[dict[Kind, Callable[[], _Decoder]]] = {
    "gzip": lambda: _Zlib(-15),
    "raw": lambda: _Zlib(-15),
    "zlib": lambda: _Zlib(15),
    "br": _Brotli,
    "zstd": lambda: _Stock(zstd.ZstdDecompressor()),
    "bz2": lambda: _Stock(bz2.BZ2Decompressor()),
    "xz": lambda: _Stock(lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_BYTES)),
    "lzma": lambda: _Stock(lzma.LZMADecompressor(lzma.FORMAT_ALONE, _LZMA_BYTES)),
}
_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, brotli.error, OSError, EOFError, ValueError)


def decoded(data: Bytes, codings: list[str], limit: int) -> list[bytes]:
    """Every form in which a reader could see `data` after undoing `codings`, the last one first.

    Empty when nothing comes out: an unknown coding, more than `MAX_CODINGS`, or not in the coding it says.
    """
    forms: list[Bytes] = [data]
    if len(codings) > MAX_CODINGS:
        return []
    for coding in reversed(codings):
        kinds = _CODINGS.get(coding, ())
        forms = [memoryview(out) for form in forms for kind in kinds if (out := unpack(form, kind, limit).data)]
    return [bytes(form) for form in forms if len(form)]


def sniffed(data: Bytes, limit: int) -> list[bytes]:
    """What comes out when the first bytes decide, whatever was declared; through `MAX_CODINGS` layers."""
    forms, layer = [], data
    for _ in range(MAX_CODINGS):
        kind = magic(layer)
        if not kind or not (out := unpack(layer, kind, limit).data):
            break
        layer = bytes(out)
        forms.append(layer)
    return forms


def magic(data: Bytes) -> Kind | Literal[""]:
    """How `data` is compressed, by its first bytes."""
    head = bytes(data[:6])
    return next((kind for start, kind in _MAGIC if head.startswith(start)), "")


def unpack(data: Bytes, kind: Kind, limit: int, deadline: float = float("inf")) -> Plain:
    """All that comes out of `data`, its members joined, at most `limit` bytes before `deadline` (monotonic)."""
    view, at = memoryview(data), 0
    plain = Plain(bytearray(), "whole")
    for member in range(MAX_MEMBERS + 1):
        begin = _gzip_header(view, at) if kind == "gzip" else at
        if begin is None or (member and not _another(view, at, kind)):
            break
        if member == MAX_MEMBERS:
            plain.state = "capped"
            break
        at = _member(view, begin, kind, plain, limit, deadline)
        if plain.state != "whole":
            break
        at += 8 if kind == "gzip" else 0
    else:
        plain.state = "capped"
    del plain.data[limit:]
    plain.used = min(at, len(view))
    if not plain.used and plain.state == "whole":
        plain.state = "damaged"
    return plain


def _another(view: memoryview, at: int, kind: Kind) -> bool:
    """Whether another member follows at `at`; what else follows is padding, or not of this kind."""
    if kind in ("br", "raw", "zlib", "lzma") or at >= len(view):
        return False
    return kind == "gzip" or magic(view[at : at + 6]) == kind


def _gzip_header(view: memoryview, at: int) -> int | None:
    """Offset behind a gzip header (RFC 1952 2.3); its CRC and reserved flags are nobody's concern."""
    head = bytes(view[at : at + 10])
    if len(head) < 10 or head[:2] != b"\x1f\x8b":
        return None
    flags, at = head[3], at + 10
    if flags & 4:
        at += 2 + int.from_bytes(view[at : at + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            text = bytes(view[at : at + _LARGEST])
            at += text.find(b"\0") + 1 if b"\0" in text else len(text)
    return at + 2 if flags & 2 else at


def _member(view: memoryview, at: int, kind: Kind, plain: Plain, limit: int, deadline: float) -> int:
    """Decode one stream into `plain`; the offset behind it."""
    decoder, slice_bytes, start, kept = _NEW[kind](), _FIRST, at, len(plain.data)
    while not decoder.ended:
        if len(plain.data) >= limit:
            plain.state = "capped"
            return at
        if at >= len(view) and decoder.hungry:
            plain.state = "cut"
            return at
        if time.monotonic() > deadline:
            plain.state = "timeout"
            return at
        piece = view[at : at + slice_bytes] if decoder.hungry else view[:0]
        try:
            plain.data += decoder.feed(piece, min(1 << 20, limit - len(plain.data)))
        except _ERRORS:
            plain.state = "damaged"
            _again(view[start : at + len(piece)], at - start, kind, plain, kept, limit)
            return at
        at += len(piece)
        slice_bytes = min(slice_bytes * 2, _LARGEST)
    return at - decoder.rest


def _again(view: memoryview, good: int, kind: Kind, plain: Plain, kept: int, limit: int) -> None:
    """Decode a damaged stream once more, byte by byte from where it broke: what precedes the error counts."""
    del plain.data[kept:]
    decoder, at = _NEW[kind](), 0
    try:
        while at < good and len(plain.data) < limit:
            piece = view[at : min(good, at + _LARGEST)] if decoder.hungry else view[:0]
            plain.data += decoder.feed(piece, min(1 << 20, limit - len(plain.data)))
            at += len(piece)
        for _ in range(_STEPS):
            if len(plain.data) >= limit or (at >= len(view) and decoder.hungry):
                return
            piece = view[at : at + 1] if decoder.hungry else view[:0]
            plain.data += decoder.feed(piece, 1 if at >= len(view) - 1 else 4096)
            at += len(piece)
    except _ERRORS:
        return
