"""HTTP content codings (RFC 9110 8.4.1), undone as far as the data goes and never further than `limit` bytes."""

from __future__ import annotations

import zlib

Bytes = bytes | memoryview


def decoded(data: Bytes, codings: list[str], limit: int) -> list[bytes]:
    """Every form in which a reader could see `data` after undoing `codings` (the last one first)."""
    forms: list[Bytes] = [data]
    for coding in reversed(codings):
        windows = {"gzip": (31,), "x-gzip": (31,), "deflate": (15, -15)}.get(coding, ())
        forms = [out for form in forms for bits in windows if (out := _inflate(form, bits, limit))]
    return [bytes(form) for form in forms if len(form)]


def _inflate(data: Bytes, bits: int, limit: int) -> bytes:
    try:
        return zlib.decompressobj(bits).decompress(data, limit)
    except zlib.error:
        return b""
