"""HTTP/1 (RFC 9112): response bodies on their way to a client, uploads on their way to a server.

A response has one reading or none: what readers are known to disagree on (a length told twice, a chunk
size with a sign, a coding nobody has heard of) carries `trouble`, and every reading that can be imagined is
still handed to the scanner. Leniency is only where all readers agree on what is meant: bare LF line ends,
a missing reason phrase, foreign header lines that say nothing about framing. Requests are our own clients';
they are read leniently and never carry trouble.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from sekisho.inspect.decode import decoded
from sekisho.inspect.streams.found import Bytes, Found

MAX_HEAD = 64 << 10
MAX_OBJECTS = 1024
MAX_PARTS = 256
_STATUS = re.compile(rb"(?:HTTP/1\.([01])|ICY)[ ]([1-5][0-9]{2})(?: [^\r\n\0]*)?\r?\n")
_PREFIX = re.compile(rb"(?:HTTP/1\.[01] [1-5][0-9]{2}|ICY [1-5][0-9]{2})")
_REQUEST = re.compile(rb"([A-Z][A-Z-]{2,19}) ([^ \r\n]*) HTTP/1\.[01]\r?\n")
_BLANK = re.compile(rb"\n\r?\n")
"""The end of a head, from the end of a line in it."""
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = re.compile(rb"content-|transfer-|encoding|length|chunked|gzip|deflate|range|location", re.IGNORECASE)
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]{0,32}(?:;[^\r\n\0]{0,1024})?\r\n")
_NEXT_CHUNK = re.compile(rb"\r\n" + _CHUNK.pattern)
_LENIENT_CHUNK = re.compile(rb"(?:\r?\n)?[ \t]*+(?:0[xX])?(?=[0-9a-fA-F])0*+([0-9a-fA-F]{0,15}+)[^\n]*+\n")
CONTENT_RANGE = re.compile(rb"bytes[ ]+([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)", re.IGNORECASE)
_PART_RANGE = re.compile(rb"content-range:[ \t]*" + CONTENT_RANGE.pattern, re.IGNORECASE)
_FILE_NAME = re.compile(rb"filename\s*=\s*(?:\"([^\"]{1,255})\"|([^;\s]{1,255}))", re.IGNORECASE)
_BOUNDARY = re.compile(rb"boundary\s*=\s*(?:\"([^\"]{1,200})\"|([^;\s]{1,200}))", re.IGNORECASE)
_CODINGS = {b"gzip", b"x-gzip", b"deflate", b"x-deflate", b"br", b"zstd", b"compress", b"x-compress"}
_SPEAKS_OF_CODING = re.compile(rb"gzip|deflate|compress|zstd|lzma|^x?-?br$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Head:
    body_at: int
    status: int
    version: int
    fields: dict[bytes, list[bytes]]
    trouble: str = ""

    def values(self, name: bytes) -> list[bytes]:
        """The comma-separated elements of all fields of this name, lower case."""
        return [v.strip().lower() for line in self.fields.get(name, []) for v in line.split(b",") if v.strip()]

    def text(self, name: bytes) -> bytes:
        return b",".join(self.fields.get(name, []))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the newest request says, as far as it is known."""

    method: bytes = b""
    target: bytes = b""
    host: str = ""
    upgrade: bool = False

    @property
    def url(self) -> str:
        return self.target.decode("latin-1")

    @property
    def name(self) -> str:
        return self.target.partition(b"?")[0].rpartition(b"/")[2].decode("utf-8", "replace")[:256]


def responses(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """A `found.Splitter` for what travels from the server; `peer` is the newest request's beginning."""
    asked = _asked(bytes(peer[:MAX_HEAD]))
    at = 0
    if asked.method == b"PRI" and bytes(stream[:1]) < b" ":
        yield Found(0, 0, True, becomes="http2")
        return
    for _ in range(MAX_OBJECTS):
        at = _skip_empty_lines(stream, at)
        if at >= len(stream):
            return
        head = _head(stream, at)
        if head is None:
            yield Found(at, 0, False, [stream[at:]])
            return
        if head.trouble:
            yield Found(at, 0, False, _readings(stream, at, limit), trouble=head.trouble)
            return
        found = _response(stream, at, head, asked, limit)
        yield from _byteranges(stream, head, found)
        yield found
        if not found.complete or found.trouble or found.opaque or found.becomes:
            return
        at = found.end
    yield Found(at, 0, False, [stream[at:]])


def requests(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """A `found.Splitter` for what travels from the client: one object per request, uploads among them."""
    at = 0
    for _ in range(MAX_OBJECTS):
        at = _skip_empty_lines(stream, at)
        if at >= len(stream):
            return
        window = bytes(stream[at : at + MAX_HEAD])
        line, end = _REQUEST.match(window), _HEAD_END.search(window)
        if window.startswith(b"PRI * HTTP/2.0\r\n"):
            yield Found(at, at, True, becomes="http2")
            return
        if line is None or end is None:
            yield Found(at, 0, False, [stream[at:]])
            return
        asked = _asked(window)
        head = Head(at + end.end(), 0, 1, _fields(window[line.end() : end.start()])[0])
        if line[1] == b"CONNECT":
            yield Found(at, len(stream), True, [], opaque=True, host=asked.host, url=asked.url)
            return
        found = _framed(stream, at, head, limit)
        if not head.fields.get(b"content-length") and not head.fields.get(b"transfer-encoding"):
            found = Found(at, head.body_at, True)
        parts = [p for p in found.parts if len(p)]
        parts += [piece for p in parts[:1] for piece in form_members(p, head.text(b"content-type"))]
        yield replace(
            found, parts=parts, trouble="", name=form_name(parts) or asked.name, url=asked.url, host=asked.host
        )
        if not found.complete:
            return
        at = found.end
    yield Found(at, 0, False, [stream[at:]])


def _skip_empty_lines(stream: memoryview, at: int) -> int:
    while bytes(stream[at : at + 1]) in (b"\r", b"\n") and bytes(stream[at : at + 2]) != b"\r":
        step = 2 if bytes(stream[at : at + 2]) == b"\r\n" else 1
        if step == 1 and stream[at] == 13:
            break
        at += step
    return at


def _head(stream: memoryview, at: int) -> Head | None:
    """The response head at `at`; None while it is not all there."""
    window = bytes(stream[at : at + MAX_HEAD])
    status = _STATUS.match(window)
    if status is None:
        whole = b"\n" in window or len(window) > 1024
        if whole or not _could_become_status(window):
            return Head(at, 0, 0, {}, "the answer does not begin as HTTP/1 does")
        return None
    end = _BLANK.search(window, status.end() - 1)
    if end is None:
        if len(window) >= MAX_HEAD:
            return Head(at, 0, 0, {}, "the head is longer than 64 KiB")
        trouble = _fields(window[status.end() : window.rfind(b"\n") + 1])[1]
        return Head(at, 0, 0, {}, trouble) if trouble else None
    fields, trouble = _fields(window[status.end() : end.start() + 1])
    return Head(at + end.end(), int(status[2]), int(status[1] or b"0"), fields, trouble)


def _could_become_status(window: bytes) -> bool:
    shortest = window[:12]
    return any(
        re.fullmatch(rb"[0-9]*", shortest[len(word) :].replace(b" ", b"")) is not None
        if shortest.startswith(word)
        else word.startswith(shortest)
        for word in (b"HTTP/1.0 ", b"HTTP/1.1 ", b"ICY ")
    )


def _fields(text: bytes) -> tuple[dict[bytes, list[bytes]], str]:
    """(fields by lower-case name, why the head has more than one reading)."""
    fields: dict[bytes, list[bytes]] = {}
    trouble = ""
    if b"\0" in text:
        trouble = "the head contains NUL"
    if b"\r" in text.replace(b"\r\n", b""):
        trouble = "the head contains a bare CR"
    name = b""
    for line in re.split(rb"\r?\n", text):
        if not line:
            continue
        if line[:1] in (b" ", b"\t"):
            if _FRAMING.search(name) or _FRAMING.search(line) or not line.strip():
                trouble = "a line about framing is folded"
            continue
        raw, colon, value = line.partition(b":")
        name = raw.strip().lower()
        if not colon or not _NAME.fullmatch(raw):
            if not colon or _FRAMING.search(line):
                trouble = "a header line is malformed"
            continue
        fields.setdefault(name, []).append(value.strip(b" \t"))
        if _FRAMING.search(name) and re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", value):
            trouble = "a header about framing contains control characters"
    return fields, trouble


def _response(stream: memoryview, at: int, head: Head, asked: _Asked, limit: int) -> Found:
    told = Found(at, 0, False, name=file_name(head) or asked.name, url=asked.url, host=asked.host)
    if head.status == 101 or (asked.method == b"CONNECT" and head.status // 100 == 2):
        if (asked.upgrade or asked.method == b"PRI") and head.values(b"upgrade") == [b"h2c"]:
            return replace(told, end=head.body_at, complete=True, becomes="http2")
        if asked.upgrade or asked.method == b"CONNECT":
            return replace(told, end=head.body_at, complete=True, opaque=True)
        return replace(told, parts=[stream[head.body_at :]], trouble="it changes to a protocol nobody asked for")
    if head.status // 100 == 1 or head.status in (204, 304) or asked.method == b"HEAD":
        return replace(told, end=head.body_at, complete=True)
    found = _framed(stream, at, head, limit)
    ranged = CONTENT_RANGE.match(head.text(b"content-range").strip()) if head.status == 206 else None
    place = _place(ranged) if ranged else None
    return replace(found, name=told.name, url=told.url, host=told.host, ranged=place)


def _place(ranged: re.Match[bytes]) -> tuple[int, int, int]:
    """(first byte, behind the last, bytes in all or 0 where that is not said)."""
    return int(ranged[1]), int(ranged[2]) + 1, 0 if ranged[3] == b"*" else int(ranged[3])


def _byteranges(stream: memoryview, head: Head, found: Found) -> Iterator[Found]:
    """The parts of a multipart/byteranges response (RFC 9110 14.6), each a piece of the same download."""
    kind = head.text(b"content-type")
    boundary = _BOUNDARY.search(kind)
    if head.status != 206 or not found.body_at or not boundary or b"byteranges" not in kind.lower():
        return
    body = bytes(stream[found.body_at : found.end or len(stream)])
    mark = b"--" + (boundary[1] or boundary[2])
    at = body.find(mark)
    for _ in range(MAX_PARTS):
        start = body.find(b"\r\n\r\n", at) + 4
        stop = body.find(b"\r\n" + mark, start)
        if at < 0 or start < 4 or stop < 0:
            return
        told = _PART_RANGE.search(body, at, start)
        if told:
            begin = found.body_at + start
            parts: list[Bytes] = [stream[begin : found.body_at + stop]]
            yield replace(found, start=begin, parts=parts, body_at=begin, ranged=_place(told))
        at = stop + 2


def _framed(stream: memoryview, at: int, head: Head, limit: int) -> Found:
    body_at = head.body_at
    transfer, lengths = head.values(b"transfer-encoding"), head.values(b"content-length")
    trouble, complete, expected = "", False, 0
    body: Bytes
    if transfer:
        body, end, complete, trouble = _dechunk(stream, body_at)
        if transfer != [b"chunked"] or head.version == 0 or lengths:
            trouble = trouble or "the transfer coding has more than one reading"
    elif b"transfer-encoding" in head.fields:
        return Found(at, 0, False, _readings(stream, at, limit), trouble="an empty transfer coding")
    elif lengths or b"content-length" in head.fields:
        if len(set(lengths)) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 15:
            return Found(at, 0, False, _readings(stream, at, limit), trouble="the length has more than one reading")
        expected = body_at + int(lengths[0])
        complete = expected <= len(stream)
        body, end = stream[body_at:expected], expected if complete else 0
    else:
        body, end = stream[body_at:], 0
    if trouble:
        return Found(at, 0, False, [body, *_readings(stream, at, limit)], trouble=trouble)
    parts, trouble = content_forms(body, head, limit, complete)
    if trouble:
        parts += _readings(stream, at, limit)
        return Found(at, 0, False, parts, trouble=trouble)
    return Found(at, end, complete, parts, expected=0 if complete else expected, body_at=0 if transfer else body_at)


def content_forms(body: Bytes, head: Head, limit: int, complete: bool) -> tuple[list[Bytes], str]:
    """(every form of the body, trouble)."""
    tokens = head.values(b"content-encoding")
    codings = [t.decode() for t in tokens if t in _CODINGS]
    strange = [t for t in tokens if t not in _CODINGS and _SPEAKS_OF_CODING.search(t)]
    if not len(body):
        return [], ""
    if not codings and not strange:
        return [body], ""
    forms: list[Bytes] = [form for form in decoded(body, codings, limit) if form] if codings else []
    if codings and not forms:  # a header longer than the decoder has patience for
        forms = [out for bits in (31, 15, -15) if (out := _inflate(body, bits, limit))]
    if strange:
        return [*forms, body], "its content coding is not one anybody agreed on"
    if not forms and complete and len(body) > 40:
        return [body], "it is not in the content coding it says"
    return [*forms, body], ""


def _dechunk(stream: memoryview, at: int) -> tuple[Bytes, int, bool, str]:
    """(content, offset behind the last byte understood, whether the final chunk was seen, trouble)."""
    content, size = bytearray(), len(stream)
    line = _CHUNK.match(stream, at, at + 1200)
    while line is not None:  # millions of times for one-byte chunks: nothing is kept but the content
        at, length = line.end(), int(line[1], 16)
        if length == 0:
            end, trouble = _trailer(stream, at)
            return memoryview(content), end or size, end > 0, trouble
        content += stream[at : at + length]
        at += length
        line = _NEXT_CHUNK.match(stream, at, at + 1200)
    rest = bytes(stream[at : at + 1200])
    if content and rest[:2] != b"\r\n"[: len(rest)]:
        return memoryview(content), size, False, "a chunk is longer than it says"
    rest = rest[2:] if content else rest
    begun = len(rest) < 1100 and re.fullmatch(rb"[0-9a-fA-F]{0,8}[ \t]{0,32}(?:;[^\r\n\0]*)?\r?", rest)
    return memoryview(content), size, False, "" if begun else "a chunk size has more than one reading"


def _trailer(stream: memoryview, at: int) -> tuple[int, str]:
    """(offset behind the trailer section or 0 while it is unfinished, trouble)."""
    tail = bytes(stream[at : at + MAX_HEAD])
    if tail.startswith(b"\r\n"):
        return at + 2, ""
    if b"\r\n".startswith(tail):
        return 0, ""
    end = _HEAD_END.search(tail)
    if end:
        return at + end.end(), _fields(tail[: end.start()])[1]
    return 0, "" if len(tail) < MAX_HEAD and _NAME.match(tail) else "what follows the last chunk is no trailer"


def _readings(stream: memoryview, at: int, limit: int) -> list[Bytes]:
    """Every way in which a careless reader could take what begins at `at`."""
    window = bytes(stream[at : at + MAX_HEAD])
    end = re.search(rb"(?:\r*\n){2,}|\r\r", window)
    body = stream[at + end.end() :] if end else stream[at:]
    forms: list[Bytes] = [stream[at:]]
    if end:
        forms.append(body)
    for form in (body, _lenient_dechunk(body)):
        if form is not body and len(form):
            forms.append(form)
        for skip in _compressed_at(form):
            forms += [out for bits in (31, 15, -15) if (out := _inflate(form[skip:], bits, limit))]
        forms += [out for coding in ("br", "zstd") for out in decoded(form, [coding], limit) if out]
    return [form for i, form in enumerate(forms) if form not in forms[:i]]


def _compressed_at(form: Bytes) -> list[int]:
    """Where compressed data may begin: at once, and wherever gzip says so near the beginning."""
    near = bytes(form[:4096])
    magic = [m.start() for m in re.finditer(rb"\x1f\x8b\x08", near)]
    lines = [m.end() for m in re.finditer(rb"\n", near)]
    return [0, *magic[:4], *lines[:8]]


def _inflate(body: Bytes, bits: int, limit: int) -> bytes:
    try:
        out = zlib.decompressobj(bits).decompress(body, limit)
        if bits == 31 and out[:2] == b"\x1f\x8b":
            out = zlib.decompressobj(bits).decompress(out, limit) or out
        return out
    except zlib.error:
        return b""


def _lenient_dechunk(body: Bytes) -> bytes:
    content, at, size = bytearray(), 0, len(body)
    while at < size:
        line = _LENIENT_CHUNK.match(body, at, at + MAX_HEAD)
        if line is None:
            content += body[at:]
            break
        at, length = line.end(), int(line[1] or b"0", 16)
        if length == 0:
            break
        content += body[at : at + length]
        at += length
    return bytes(content)


def _asked(head: bytes) -> _Asked:
    line = _REQUEST.match(head)
    if line is None:
        return _Asked(head.partition(b" ")[0][:20])
    fields = _fields(head[line.end() :].partition(b"\r\n\r\n")[0])[0]
    host = fields.get(b"host", [b""])[0].decode("latin-1")[:256]
    return _Asked(line[1], line[2], host, b"upgrade" in fields)


def file_name(head: Head) -> str:
    found = _FILE_NAME.search(head.text(b"content-disposition"))
    return (found[1] or found[2]).decode("utf-8", "replace")[:256] if found else ""


def form_name(parts: list[Bytes]) -> str:
    for part in parts[:1]:
        found = _FILE_NAME.search(bytes(part[:2048]))
        return (found[1] or found[2]).decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2] if found else ""
    return ""


def form_members(body: Bytes, content_type: bytes) -> list[Bytes]:
    """The members of a form (RFC 7578), each without its own head."""
    found = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith(b"multipart/") or not found:
        return []
    members = bytes(body).split(b"--" + (found[1] or found[2]), MAX_PARTS)[1:]
    return [member.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for member in members]
