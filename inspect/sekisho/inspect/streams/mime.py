"""What a mail carries, and where: every part in every form in which some mail program could open it.

Used for mails in both directions (SMTP, POP3, IMAP), in scan workers only. Mail programs disagree about broken
MIME, so this reads for all of them at once: a boundary counts wherever it was declared and wherever headers
follow a line that looks like one; a declared encoding is undone however it is spelt (RFC 2045 6.1), and what looks
encoded is decoded whatever its headers say. Too many forms cost a scan; a form too few lets a file through.

Owns no verdict and never raises on content. Time is linear in the mail for each of `MAX_DEPTH` levels; decoded
bytes are capped by `limit`, parts by `MAX_PARTS`.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.errors import MessageError
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser

MAX_DEPTH = 5
"""Mails in mails, and encodings in encodings."""
MAX_PARTS = 2000
"""Further parts are seen in the mail's raw form only."""
MAX_HEAD = 64 << 10
MAX_NAME = 255
_SHORT = 24
"""Encoded runs below this many characters hold no file."""

_DELIMITER = re.compile(rb"\n--([^\r\n]{1,200})(?=\r?(?:\n|\Z))")
"""Begins with a literal, which is searched for thirty times as fast as a line's beginning."""
_FIRST_DELIMITER = re.compile(rb"--([^\r\n]{1,200})(?=\r?(?:\n|\Z))")
_DECLARED = re.compile(
    rb"boundary(?:\*[0-9*]*)?[ \t\r\n]*=[ \t\r\n]*(?:\"([^\"]{1,200})|'([^']{1,200})|([^\s;\"']{1,200}))", re.I
)
_FIELD = re.compile(rb"(?:[ \t]*\r?\n)?[!-9;-~]{1,80}[ \t]*:")
_HEAD_END = re.compile(rb"\r?\n(?=\r?\n)|\A(?=\r?\n)")
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]*:((?:[^\r\n]|\r?\n[ \t])*)", re.I | re.MULTILINE)
_BASE64_LINES = re.compile(rb"^(?:[A-Za-z0-9+/]++={0,3}[ \t]*+(?:\r?\n|\Z))++", re.MULTILINE)
_BASE64_URL = re.compile(rb";base64,([A-Za-z0-9+/\r\n=%]++)")
_JUNK = re.compile(rb"[^A-Za-z0-9+/=]+")
_PAD = re.compile(rb"=+")
_QUOTED = re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]*\r?\n)")
_UU = re.compile(
    rb"^begin(-base64)? [0-7]{3,4} ([^\r\n]{0,255})\r?\n(.*?)(?:^(?:end|====)[ \t]*\r?$|\Z)", re.MULTILINE | re.DOTALL
)
_YENC = re.compile(rb"^=ybegin [^\r\n]*?(?:name=([^\r\n]{0,255}))?\r?\n(.*?)(?:^=yend|\Z)", re.MULTILINE | re.DOTALL)
_YENC_PART = re.compile(rb"\A=ypart[^\n]*\n")
_UNYENC = bytes((value - 42) & 0xFF for value in range(256))
_MAIL_START = re.compile(rb"(?:[!-9;-~]{1,80}:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*)+\r?\n")


@dataclass(frozen=True, slots=True)
class Part:
    """One form of one part. Offsets are the raw mail's; nested parts have those of the part that carries them."""

    head: int
    """Where its header fields begin."""
    start: int
    """Where its content begins."""
    end: int
    """Behind its content, before the line end that belongs to the next delimiter."""
    name: str
    body: bytes | memoryview
    """The content as a reader could see it."""
    boundary: bytes = b""
    """What its enclosing multipart is divided by; empty = it is the mail's only part."""
    encoding: str = ""
    """"base64", "quoted-printable" or empty: as its own header declares."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a mail, the raw mail itself not among it."""

    parts: list[Part]
    trouble: str
    """Why it is not all of it: "too_many_parts", "too_deep", or "fragment" (a program joins it with other mails,
    RFC 2046 5.2.2); empty = it is."""
    subject: str
    """Decoded, at most 255 characters."""
    sender: str


@dataclass(slots=True)
class _Budget:
    left: int
    deep: bool = False
    tries: int = 4 * MAX_PARTS
    parts: list[Part] = field(default_factory=list)

    @property
    def spent(self) -> bool:
        return self.left <= 0 or len(self.parts) >= MAX_PARTS or self.tries <= 0

    def add(self, part: Part) -> None:
        self.tries -= 1
        if len(part.body) and not self.spent:
            self.left -= len(part.body)
            self.parts.append(part)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What lies between two delimiters."""

    head: int
    start: int
    end: int
    boundary: bytes
    fields: bytes


def contents(mail: bytes, *, limit: int) -> Contents:
    """All of `mail` (as it is after dot-unstuffing); at most `limit` decoded bytes in all.

    An unfinished mail gives what is there so far.
    """
    if len(mail) < _SHORT:
        return Contents([], "", "", "")
    budget = _Budget(limit)
    _walk(mail, None, 0, budget)
    header = _header(mail[:MAX_HEAD])
    trouble = "too_many_parts" if budget.spent else "too_deep" if budget.deep else ""
    if header.content_type() == "message/partial":
        trouble = "fragment"
    return Contents(budget.parts, trouble, _decoded(header.get("Subject")), _decoded(header.get("From")))


def _walk(mail: bytes, carrier: Part | None, depth: int, budget: _Budget) -> None:
    declared = _declared(mail)
    seen: set[tuple[int, int]] = set()
    for wide in (False, True):  # by what was declared, then by all that looks like a delimiter
        for piece in _pieces(mail, declared, wide=wide):
            if budget.spent:
                return
            if (piece.start, piece.end) not in seen:
                seen.add((piece.start, piece.end))
                _forms(mail, piece, carrier, depth, budget)


def _declared(mail: bytes) -> set[bytes]:
    """What any header, wherever it stands, calls a boundary."""
    found: set[bytes] = set()
    lower, at = mail.lower(), 0
    while (at := lower.find(b"boundary", at)) >= 0 and len(found) < MAX_PARTS:
        match = _DECLARED.match(mail, at)
        if match:
            found.add((match[1] or match[2] or match[3]).strip())
        at += 8
    return found


def _delimiters(mail: bytes) -> Iterator[re.Match[bytes]]:
    first = _FIRST_DELIMITER.match(mail)
    if first:
        yield first
    yield from _DELIMITER.finditer(mail)


def _pieces(mail: bytes, declared: set[bytes], *, wide: bool) -> Iterator[_Piece]:
    at, boundary = 0, b""
    for match in _delimiters(mail):
        text = match[1].rstrip()
        known = text in declared or (text.endswith(b"--") and text[:-2] in declared)
        behind = match.end() + (2 if mail[match.end() : match.end() + 1] == b"\r" else 1)
        if not known and not (wide and _FIELD.match(mail, behind)):
            continue
        stop = match.start(1) - 2
        stop -= 2 if mail[stop - 2 : stop] == b"\r\n" else 1 if stop else 0
        yield _piece(mail, at, max(at, stop), boundary)
        at, boundary = min(behind, len(mail)), text if text in declared or not text.endswith(b"--") else b""
    yield _piece(mail, at, len(mail), boundary)


def _piece(mail: bytes, at: int, end: int, boundary: bytes) -> _Piece:
    stop = min(end, at + MAX_HEAD)
    if not _FIELD.match(mail, at, stop):  # no header at all: an empty line first, or content at once
        return _Piece(at, at, end, boundary, b"")
    found = _HEAD_END.search(mail, at, stop)
    if found is None:
        return _Piece(at, at, end, boundary, mail[at:stop])
    start = found.end()
    start += 2 if mail[start : start + 2] == b"\r\n" else 1
    start += 0 if mail[start - 1 : start] == b"\n" else 1
    while mail[start : start + 2] == b"\r\n" and found.end() == at:
        start += 2
    return _Piece(at, min(start, end), end, boundary, mail[at : found.end()])


def _forms(mail: bytes, piece: _Piece, carrier: Part | None, depth: int, budget: _Budget) -> None:
    budget.tries -= 1
    if piece.start >= piece.end:
        return
    header = _header(piece.fields)
    encodings = b" ".join(_ENCODING.findall(piece.fields)).lower()
    encoding = "base64" if b"base64" in encodings else "quoted-printable" if b"quoted" in encodings else ""
    text = mail[piece.start : piece.end]
    for body, name in _decode(text, encodings, budget.left):
        name = name or _name(header)
        if carrier is None:
            part = Part(piece.head, piece.start, piece.end, name, body, piece.boundary, encoding)
        else:
            part = Part(
                carrier.head, carrier.start, carrier.end, name or carrier.name, body, carrier.boundary, carrier.encoding
            )
        budget.add(part)
        if body is not text and _holds_more(body):
            _deeper(body, part, depth, budget)
    if piece.fields and _MAIL_START.match(text):  # message/rfc822 as it is
        part = Part(piece.head, piece.start, piece.end, "", text, piece.boundary, encoding)
        _deeper(text, carrier or part, depth, budget)


def _deeper(body: bytes, carrier: Part, depth: int, budget: _Budget) -> None:
    if depth < MAX_DEPTH:
        _walk(body, carrier, depth + 1, budget)
    else:
        budget.deep = True


def _holds_more(body: bytes) -> bool:
    near = body[: 1 << 20]
    if b"begin" not in near:
        return _MAIL_START.match(body) is not None
    return bool(_MAIL_START.match(body) or _UU.search(near) or _YENC.search(near))


def _decode(text: bytes, encodings: bytes, limit: int) -> Iterator[tuple[bytes, str]]:
    """(content, name) in every form; `text` itself among them unless it is plainly base64."""
    whole = b"base64" in encodings
    if whole:
        yield from ((form, "") for form in _base64(text[: limit * 2]))
    if not whole and (b"quoted" in encodings or _QUOTED.search(text) is not None):
        yield binascii.a2b_qp(text), ""
    if b"uu" in encodings or b"\nbegin" in text or text.startswith(b"begin"):
        yield from _uudecode(text)
    if b"=ybegin " in text:
        for match in _YENC.finditer(text):
            yield _unyenc(match[2]), _plain(match[1] or b"")
    for match in () if whole else _BASE64_LINES.finditer(text):
        if match.end() - match.start() >= _SHORT:
            yield from ((form, "") for form in _base64(match[0]))
    for match in _BASE64_URL.finditer(text):
        yield from ((form, "") for form in _base64(match[1]))
    if not whole:
        yield text, ""


def _base64(text: bytes) -> Iterator[bytes]:
    """Stopping at the first padding, as most do, and going on behind it, as some do."""
    first = _lenient(text)
    if first:
        yield first
    pads = _PAD.match(text, padded) if (padded := text.find(b"=")) >= 0 else None
    if pads is not None and len(text) - pads.end() > _SHORT:
        joined = b"".join(map(_digits, _PAD.split(_JUNK.sub(b"", text))))
        if joined != first:
            yield joined


def _lenient(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        return _digits(_PAD.split(_JUNK.sub(b"", text), maxsplit=1)[0])


def _digits(run: bytes) -> bytes:
    """Base64 digits alone, however many; one over is no byte yet."""
    return binascii.a2b_base64(run[: len(run) - (len(run) % 4 == 1)] + b"==")


def _uudecode(text: bytes) -> Iterator[tuple[bytes, str]]:
    for match in _UU.finditer(text):
        if match[1]:
            yield _lenient(match[3]), _plain(match[2])
            continue
        out = bytearray()
        for line in match[3].splitlines():
            try:
                out += binascii.a2b_uu(line)
            except binascii.Error:  # as the standard decoders do: what the length byte covers, the rest is junk
                length = ((line[0] - 32 & 63) * 4 + 5) // 3 if line else 0
                try:
                    out += binascii.a2b_uu(line[:length])
                except binascii.Error:
                    continue
        yield bytes(out), _plain(match[2])


_YENC_ESCAPE = re.compile(rb"=(.)", re.DOTALL)


def _unyenc(text: bytes) -> bytes:
    body = _YENC_PART.sub(b"", text).replace(b"\r", b"").replace(b"\n", b"")
    body = _YENC_ESCAPE.sub(lambda match: bytes(((match[1][0] - 64) & 0xFF,)), body)
    return body.translate(_UNYENC)


class _Header:
    """Header fields that are read without trusting them."""

    def __init__(self, fields: bytes) -> None:
        try:
            self._message = BytesHeaderParser().parsebytes(fields[:MAX_HEAD])
        except (MessageError, ValueError, IndexError, LookupError):
            self._message = BytesHeaderParser().parsebytes(b"")

    def get(self, name: str) -> str:
        return str(self._message.get(name, ""))

    def content_type(self) -> str:
        return self._message.get_content_type()

    def filename(self) -> str:
        try:
            return str(self._message.get_filename("") or "")
        except (MessageError, ValueError, IndexError, LookupError, TypeError):
            return ""


def _header(fields: bytes) -> _Header:
    end = _HEAD_END.search(fields)
    return _Header(fields[: end.end()] if end else fields)


def _name(header: _Header) -> str:
    return _decoded(header.filename())


def _decoded(text: str) -> str:
    try:
        plain = str(make_header(decode_header(text)))
    except (MessageError, ValueError, IndexError, LookupError):
        plain = text
    return "".join(c for c in plain if c.isprintable())[:MAX_NAME]


def _plain(name: bytes) -> str:
    return "".join(c for c in name.decode("utf-8", "replace").strip(' "') if c.isprintable())[:MAX_NAME]
