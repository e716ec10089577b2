"""IMAP (RFC 9051, 3501), server to client: the mails and parts of mails in FETCH responses. In scan workers only.

Needs no commands: a response is lines joined by literals, and a literal says its own length. Mails come whole
(BODY[], RFC822), by section (BODY[2], BINARY[2] of RFC 3516) or in pieces (BODY[]<65536>): pieces of one mail that
follow each other are one object, which lasts until something else is fetched. Header sections hold no file and are
passed over. COMPRESS=DEFLATE (RFC 4978) is undone, but what is found in it cannot be replaced in place. A TLS record
(STARTTLS) makes the stream opaque.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sekisho.inspect.streams.found import Bytes, Found
from sekisho.inspect.streams.letter import Letter, found
from sekisho.inspect.streams.pop3 import is_tls

MAX_LINE = 1 << 20
MAX_STRANGERS = 1000
"""So many stretches that are no responses; the rest is then one."""
OTHER_LITERAL = 4096
"""A literal this long is looked at whatever the server calls it."""
_RESPONSE = re.compile(rb"(?:[*+]|[!#$&',-\[\]^-z|}~]{1,64})(?:[ \r\n]|\Z)")
_RESPONSE_BEGUN = re.compile(rb"[!-~]{0,64}\Z")
_AGAIN = re.compile(
    rb"(?<=\n)(?:\* (?:[0-9]+ |OK|NO|BAD|BYE|FLAGS|LIST)|\+ |[A-Za-z0-9.]{1,32} (?:OK|NO|BAD)[ \r])", re.I
)
_LITERAL = re.compile(rb"\{([0-9]{1,18})\+?\}\r?\n\Z")
_SECTION = rb"(?:(?:BODY|BINARY)\[([^\]\r\n]{0,200})\](?:<([0-9]{1,18})>)?|RFC822(\.TEXT|\.HEADER)?)"
_ITEM = re.compile(_SECTION + rb"[ ]*~?\{[0-9]+\+?\}\r?\n\Z", re.I)
_QUOTED = re.compile(_SECTION + rb'[ ]+"((?:[^"\\\r\n]|\\.)*)"', re.I)
_WHO = re.compile(rb"\* ([0-9]{1,10}) FETCH", re.I)
_SIZE = re.compile(rb"[( ]RFC822\.SIZE ([0-9]{1,12})", re.I)
_UID = re.compile(rb"[( ]UID ([0-9]{1,10})", re.I)
_HEADER_ONLY = re.compile(rb"(?:[0-9.]+\.)?(?:HEADER\b.*|MIME)\Z", re.I | re.DOTALL)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Content:
    """A literal or quoted string that holds mail."""

    who: bytes
    section: bytes
    offset: int | None
    """Where in the mail it begins, when it is a piece of it."""
    start: int
    end: int
    """Behind what is there of it."""
    declared: int
    quoted: bool = False
    total: int = 0
    """Length of the whole mail, where the response says it (RFC822.SIZE)."""


@dataclass(frozen=True, slots=True)
class _Response:
    end: int
    complete: bool
    contents: list[_Content]
    expected: int = 0


@dataclass(slots=True)
class _Pieces:
    """A mail that comes in pieces; `spans` as in Letter."""

    who: bytes
    section: bytes
    start: int
    carrier: bytearray = field(default_factory=bytearray)
    spans: list[tuple[int, int]] = field(default_factory=list)
    expected: int = 0
    """Where the newest piece ends, when that has not come."""
    total: int = 0

    def takes(self, piece: _Content) -> bool:
        return (piece.who, piece.section) == (self.who, self.section) and piece.offset is not None and (
            piece.offset <= len(self.carrier)
        )  # fmt: skip

    def add(self, piece: _Content, data: bytes) -> None:
        """The newest copy of a byte counts: it is what can still be replaced."""
        at = min(piece.offset or 0, len(self.carrier))
        del self.carrier[at:]
        while self.spans and self.spans[-1][0] >= at:
            self.spans.pop()
        self.spans.append((at, piece.start))
        self.carrier += data[piece.start : piece.end]
        end = piece.start + piece.declared
        self.expected = end if end > len(data) else 0
        self.total = piece.total or self.total

    @property
    def whole(self) -> bool:
        return 0 < self.total <= len(self.carrier) and not self.section


def objects(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """The mails and sections of one direction, in order."""
    return _Reader(bytes(stream), limit).run()


@dataclass(slots=True)
class _Reader:
    data: bytes
    limit: int
    at: int = 0
    quiet: int = 0
    """Where the responses without content begin that have not been told."""
    pieces: _Pieces | None = None

    def run(self) -> Iterator[Found]:
        data, strangers = self.data, 0
        while self.at < len(data):
            if not _RESPONSE.match(data, self.at) and not _RESPONSE_BEGUN.match(data, self.at):
                yield from self._told()
                if is_tls(data[self.at : self.at + 3]):
                    yield Found(self.at, len(data), True, opaque=True)
                    return
                plain = _inflated(data[self.at :], self.limit) if not strangers else b""
                if plain:
                    yield Found(self.at, 0, False, _forms(plain, self.limit))
                    return
                strangers += 1
                yield self._stranger(last=strangers >= MAX_STRANGERS)
                continue
            response = _response(data, self.at)
            yield from self._contents(response)
            if response.complete and self.pieces is not None and self.pieces.whole:
                self.at = response.end
                yield from self._told()
                continue
            if not response.complete:
                if self.pieces is None and not response.contents:
                    yield from self._told()
                    yield Found(self.at, 0, False, expected=response.expected)
                break
            self.at = response.end
        else:
            if self.pieces is None:
                yield from self._told()
        if self.pieces is not None:
            yield _joined(self.pieces, 0, self.limit, finished=False)

    def _told(self) -> Iterator[Found]:
        """What is over before the current place."""
        if self.pieces is not None:
            yield _joined(self.pieces, self.at, self.limit, finished=True)
            self.pieces = None
        elif self.quiet < self.at:
            yield Found(self.quiet, self.at, True)
        self.quiet = self.at

    def _contents(self, response: _Response) -> Iterator[Found]:
        for content in response.contents:
            if self.pieces is not None and self.pieces.takes(content):
                self.pieces.add(content, self.data)
                continue
            yield from self._told()
            if content.offset is None:
                yield _whole(content, self.data, self.at, response, self.limit)
                self.quiet = response.end
            else:
                self.pieces = _Pieces(content.who, content.section, self.at)
                self.pieces.add(content, self.data)

    def _stranger(self, *, last: bool) -> Found:
        """The middle of a literal whose beginning nobody saw, or what no server says: as it is."""
        again = None if last else _AGAIN.search(self.data, self.at)
        start, end = self.at, again.start() if again else len(self.data)
        text = self.data[start:end]
        letter = Letter(text, ((0, start),), (), again is not None, bare=True)
        self.at = self.quiet = end
        complete = again is not None
        return found(letter, text, [], start=start, end=end if complete else 0, complete=complete, limit=self.limit)


def _response(data: bytes, at: int) -> _Response:
    """One response with all its literals."""
    contents: list[_Content] = []
    line_at, who, total = at, b"", 0
    while True:
        stop = data.find(b"\n", line_at, line_at + MAX_LINE)
        if stop < 0:
            complete = len(data) - line_at >= MAX_LINE  # no server writes such a line: as it is, then
            end = line_at + MAX_LINE if complete else len(data)
            if complete:
                contents.append(_Content(b"", b"", None, line_at, end, end - line_at))
            return _Response(end, complete, contents)
        line = data[line_at : stop + 1]
        who = _who(line) or who
        size = _SIZE.search(line)
        total = int(size[1]) if size else total
        contents += [_quoted(match, who, line_at) for match in _QUOTED.finditer(line) if not _is_header(match)]
        literal = _LITERAL.search(line)
        if literal is None:
            return _Response(stop + 1, True, contents)
        length, start = int(literal[1]), stop + 1
        item = _ITEM.search(line)
        end = min(start + length, len(data))
        if item is not None and not _is_header(item):
            offset = int(item[2]) if item[2] else None
            contents.append(_Content(who, item[1] or item[3] or b"", offset, start, end, length, total=total))
        elif item is None and length >= OTHER_LITERAL:
            contents.append(_Content(who, b"?", None, start, end, length))
        if start + length > len(data):
            return _Response(len(data), False, contents, start + length)
        line_at = start + length


def _who(text: bytes) -> bytes:
    uid, number = _UID.search(text), _WHO.match(text)
    return uid[1] if uid else number[1] if number else b""


def _is_header(item: re.Match[bytes]) -> bool:
    section = item[1] if item[1] is not None else (item[3] or b"").lstrip(b".")
    return bool(_HEADER_ONLY.match(section))


def _quoted(match: re.Match[bytes], who: bytes, line_at: int) -> _Content:
    offset = int(match[2]) if match[2] else None
    start, end = match.span(4)
    return _Content(who, match[1] or b"", offset, line_at + start, line_at + end, end - start, quoted=True)


def _bare(section: bytes) -> bool:
    return section not in (b"", b"?")


def _whole(content: _Content, data: bytes, at: int, response: _Response, limit: int) -> Found:
    carrier = data[content.start : content.end]
    finished = len(carrier) == content.declared
    dots = [m.start() for m in _ESCAPE.finditer(carrier)] if content.quoted else []
    readable = _ESCAPE.sub(rb"\1", carrier) if dots else carrier
    left = content.declared - len(carrier)
    letter = Letter(carrier, ((0, content.start),), (), finished, bare=_bare(content.section), left=left)
    made = found(
        letter, readable, dots, start=at, end=response.end if response.complete else 0, complete=response.complete,
        limit=limit, expected=0 if finished else content.start + content.declared,
    )  # fmt: skip
    return made


def _joined(pieces: _Pieces, end: int, limit: int, *, finished: bool) -> Found:
    carrier = bytes(pieces.carrier)
    left = max(0, pieces.total - len(carrier)) if not pieces.section else 0
    letter = Letter(carrier, tuple(pieces.spans), (), finished, bare=_bare(pieces.section), left=left)
    return found(
        letter, carrier, [], start=pieces.start, end=end, complete=finished, limit=limit, expected=pieces.expected
    )  # fmt: skip


def _forms(plain: bytes, limit: int) -> list[Bytes]:
    return [form for inner in _Reader(plain, limit).run() for form in inner.parts]


def _inflated(data: bytes, limit: int) -> bytes:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = decoder.decompress(data, limit)
    except zlib.error:
        return b""
    return plain if _RESPONSE.match(plain) and b" " in plain[:65] else b""
