"""Finds the objects in a raw server-to-client stream: HTTP/1 responses, or one object (FTP data).

Runs in a scan worker on hostile bytes. It is lenient on purpose: where a reader could see content,
content is reported, because it is only ever *scanned*. It never decides that something is safe to skip;
what it cannot parse is reported raw. Bounded by `limit` decoded bytes and `MAX_OBJECTS`.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MAX_HEAD = 64 << 10
MAX_OBJECTS = 1024
INTERIM_PER_OBJECT = 64
"""Responses without a body that cost as much as one with."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"(?:\r?\n)?[ \t]*+(?:0[xX])?(?=[0-9a-fA-F])0*+([0-9a-fA-F]{0,15}+)[^\n]*+\n")
_STATUS = re.compile(rb"HTTP/[0-9][^\n]{0,16}[ \t][0-9]{3}", re.IGNORECASE)
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Found:
    """One object. `end` is the stream offset behind it, 0 while unknown; `body` its decoded bytes so far."""

    start: int
    end: int
    complete: bool
    body: bytes | memoryview
    raw: memoryview
    """The body as it travels; the same object as `body` when nothing had to be decoded."""


def objects(stream: memoryview, *, http: bool, limit: int) -> Iterator[Found]:
    """Objects in `stream`, in order; the last may be incomplete."""
    at = 0
    if not http:
        yield Found(0, 0, False, stream, stream)
        return
    left = MAX_OBJECTS * INTERIM_PER_OBJECT
    while at < len(stream):
        if left <= 0:
            yield Found(at, 0, False, stream[at:], stream[at:])
            return
        head = _next_head(stream, at)
        if head > at:  # the rest of an object whose head is gone, or no HTTP at all
            yield Found(at, head, head < len(stream), stream[at:head], stream[at:head])
            left -= INTERIM_PER_OBJECT
            at = head
            continue
        found = _response(stream, at, limit)
        yield found
        left -= INTERIM_PER_OBJECT if len(found.raw) else 1
        if not found.complete:
            return
        at = found.end


def expected_end(stream: memoryview, *, http: bool) -> int:
    """Stream offset at which the first unfinished object ends by its own declared length; 0 = not declared."""
    at = 0
    while http and at < len(stream):
        head = _head(stream, at)
        if head is None:
            return 0
        body_at, status, fields = head
        if _bodyless(status):
            at = body_at
            continue
        length = _length(fields)
        if length is None or b"chunked" in fields.get(b"transfer-encoding", b""):
            return 0
        if body_at + length > len(stream):
            return body_at + length
        at = body_at + length
    return 0


def _next_head(stream: memoryview, at: int) -> int:
    """Offset of the next response head at or after `at`; the stream's end when there is none near."""
    window = bytes(stream[at : at + MAX_HEAD])
    start = _STATUS.search(window)
    return at + start.start() if start else len(stream)


def _head(stream: memoryview, at: int) -> tuple[int, bytes, dict[bytes, bytes]] | None:
    window = bytes(stream[at : at + MAX_HEAD])
    if not window.lstrip(b"\r\n")[:5].upper() == b"HTTP/":
        return None
    end = _HEAD_END.search(window, len(window) - len(window.lstrip(b"\r\n")))
    if end is None:
        return None
    lines = window[: end.start()].strip().split(b"\n")
    status = lines[0].split(None, 2)[1] if len(lines[0].split(None, 2)) > 1 else b""
    fields: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        key = name.strip().lower()
        fields[key] = (fields[key] + b"," if key in fields else b"") + value.strip().lower()
    return at + end.end(), status, fields


def _bodyless(status: bytes) -> bool:
    return status in (b"204", b"304") or (status[:1] == b"1" and len(status) == 3)


def _length(fields: dict[bytes, bytes]) -> int | None:
    values = {v.strip() for v in fields.get(b"content-length", b"").split(b",")}
    value = values.pop() if len(values) == 1 else b""
    return int(value) if value.isdigit() and len(value) < 16 else None


def _response(stream: memoryview, at: int, limit: int) -> Found:
    head = _head(stream, at)
    if head is None:
        return Found(at, 0, False, stream[at:], stream[at:])
    body_at, status, fields = head
    if _bodyless(status):
        return Found(at, body_at, True, b"", stream[body_at:body_at])
    coding = fields.get(b"content-encoding", b"")
    length = _length(fields)
    body: bytes | memoryview
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body, end, complete = _dechunk(stream, body_at)
        raw = stream[body_at:end]
    else:
        end = len(stream) if length is None else body_at + length
        complete = length is not None and end <= len(stream)
        raw = body = stream[body_at:end]
        end = end if length is not None else 0
    if b"gzip" in coding or b"deflate" in coding or bytes(body[:2]) == b"\x1f\x8b":
        body = _inflate(body, limit)
    return Found(at, end, complete, body, raw)


def _dechunk(stream: memoryview, at: int) -> tuple[memoryview, int, bool]:
    """(content, offset behind the last byte understood, whether the final chunk was seen)."""
    content = bytearray()
    size = len(stream)
    match = _CHUNK.match
    while at < size:  # a million times for an adversary's one-byte chunks: nothing is copied twice
        line = match(stream, at, at + MAX_HEAD)
        if line is None:
            content += stream[at + 2 if bytes(stream[at : at + 2]) == b"\r\n" else at :]
            break
        at = line.end()
        length = int(line[1] or b"0", 16)
        if length == 0:
            end = _trailer(stream, at)
            return memoryview(content), end or size, end > 0
        content += stream[at : at + length]
        at += length
    return memoryview(content), size, False


def _trailer(stream: memoryview, at: int) -> int:
    """Offset behind the trailer section; 0 while it is unfinished."""
    tail = bytes(stream[at : at + MAX_HEAD])
    if tail.startswith((b"\r\n", b"\n")):
        return at + (2 if tail[:1] == b"\r" else 1)
    end = _HEAD_END.search(tail)
    return at + end.end() if end else 0


def _inflate(body: bytes | memoryview, limit: int) -> bytes:
    """As much as can be decoded of gzip, zlib or raw deflate data, at most `limit` bytes."""
    for bits in (_GZIP, zlib.MAX_WBITS, -zlib.MAX_WBITS):
        decoder = zlib.decompressobj(bits)
        try:
            out = decoder.decompress(body, limit)
        except zlib.error:
            continue
        if out:
            return out
    return b""
