"""HTTP/2 in clear text (RFC 9113), from its first frame or from any later one: the bodies of all its streams.

Frames of many streams travel mixed; each stream is one object. What is finished leaves the spool only up to a
place at which no stream is open, so that what is kept always begins with a whole frame. What header compression
(RFC 7541) has said until then is in the memo. Of a connection that was met later, names that cannot be known are
empty, and a body whose headers are not all known is tried in every coding. Nothing is skipped because it could not be
read.

Both directions are read the same way; requests leave their names to the responses in the memo.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from hpack import Decoder, HPACKError
from hpack.table import HeaderTable

from sekisho.inspect.decode import decoded, sniffed
from sekisho.inspect.streams import http1
from sekisho.inspect.streams.found import Bytes, Found, memos
from sekisho.inspect.streams.http1 import CONTENT_RANGE, Head, content_forms, file_name, form_members, form_name

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAMES: Final = 500_000
MAX_STREAMS: Final = 1024
"""Open at once; a server that holds more open has agreed to none of the usual limits."""
MAX_BLOCK: Final = 256 << 10
MAX_TABLE: Final = 1 << 20
MAX_KEPT: Final = 12 << 10
"""Bytes of a table that is handed to the next look; browsers and servers have 4 KiB."""
MAX_DIGITS: Final = 15
MAX_NAMED: Final = 128
"""Requests whose names are remembered for their responses."""
OFTEN: Final = 256 << 10
"""A stream of which less is unfinished is looked at whole every time."""
TAIL: Final = 4096
"""What is held back of a body that goes on without a look at all of it."""
_FRAME: Final = 9
_DATA, _HEADERS, _RST, _PUSH, _CONTINUATION = 0, 1, 3, 5, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_ANY_CODING: Final = ("gzip", "deflate", "br", "zstd")

Fields = list[tuple[bytes, bytes]]


class _Names(msgspec.Struct, array_like=True):
    """What a request is for."""

    path: str = ""
    host: str = ""


class _Said(msgspec.Struct, array_like=True):
    """The table of header compression as it was at a place of all that was sent."""

    at: int
    maxsize: int
    entries: list[tuple[bytes, bytes]]
    """Newest first (RFC 7541 2.3.2)."""


class _Memo(msgspec.Struct, array_like=True):
    named: dict[int, _Names] = {}
    tables: list[_Said] = []
    """At the place where the look began, and where the next one does when what is finished has left the spool."""


_MEMO: Final = msgspec.msgpack.Decoder(_Memo)


class _Table(HeaderTable):
    """Entries from before the stream was met are empty instead of an error."""

    missed = False

    def get_by_index(self, index: int) -> tuple[bytes, bytes]:
        known = HeaderTable.STATIC_TABLE_LENGTH + len(self.dynamic_entries)
        if index > known:
            self.missed = True
            return b"", b""
        name, value = super().get_by_index(index)
        return name, value


class _Fields:
    """Header compression of one direction, read leniently."""

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_BLOCK)
        self._decoder.max_allowed_table_size = MAX_TABLE
        self._table = self._decoder.header_table = _Table()

    def said(self, at: int) -> _Said:
        """What is known so far; none of it where it is too much to be kept."""
        entries = list(self._table.dynamic_entries)
        small = sum(len(name) + len(value) for name, value in entries) <= MAX_KEPT
        return _Said(at, self._table.maxsize, entries if small else [])

    def go_on(self, said: _Said) -> None:
        self._table.maxsize = min(said.maxsize, MAX_TABLE)
        for name, value in reversed(said.entries):
            self._table.add(name, value)

    def read(self, block: bytes) -> tuple[Fields, bool]:
        """(fields, whether they are all known)."""
        self._table.missed = False
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except (HPACKError, ValueError, IndexError, OverflowError):
            return [], False
        return fields, not self._table.missed


@dataclass(slots=True)
class _Stream:
    number: int
    start: int
    known: bool = False
    """Its headers have been seen, all of them."""
    fields: dict[bytes, list[bytes]] = field(default_factory=dict)
    data: list[memoryview] = field(default_factory=list)
    size: int = 0
    """Bytes of `data`."""
    full_at: int = 0
    """Place of the byte with which the body is as long as it has said; 0 = not yet, or it says nothing."""
    ended: bool = False
    trouble: str = ""

    def left(self) -> int:
        """Bytes of the body still to come by its own word (RFC 9113 8.1.1); below 0: more came, or it says nothing."""
        said = self.fields.get(b"content-length", [])
        if len(said) != 1 or not said[0].isdigit() or len(said[0]) > MAX_DIGITS:
            return -1
        return int(said[0]) - self.size

    def first(self, name: bytes) -> str:
        return self.fields.get(name, [b""])[0].decode("latin-1")


def responses(stream: memoryview, peer: memoryview, *, limit: int, at: int = 0) -> Iterator[Found]:
    """A `found.Splitter` for what travels from the server; frames begin at `at`."""
    if bytes(stream[at : at + 7]) == b"HTTP/1." and bytes(stream[at + 8 : at + 12]) != b" 101":
        yield from http1.responses(stream[at:], memoryview(b""), limit=limit)  # it has declined
        return
    own, other, base = memos(peer)
    asked = _memo(other).named
    reader = _Reader(stream, at, limit, _memo(own).tables, base)
    for found, one in reader.objects():
        if one is None:
            yield replace(found, memo=msgspec.msgpack.encode(_Memo({}, reader.tables())))
            continue
        names = asked.get(one.number, _Names())
        head = _head(one)
        ranged = CONTENT_RANGE.match(head.text(b"content-range").strip())
        trouble = found.trouble
        if ranged and head.status == 206 and (int(ranged[1]) or ranged[3] != b"%d" % (int(ranged[2]) + 1)):
            trouble = trouble or "a part of a file cannot be put to its other parts in HTTP/2"
        name = file_name(head) or names.path.partition("?")[0].rpartition("/")[2]
        yield replace(found, trouble=trouble, name=name[:256], url=names.path, host=names.host)


def requests(stream: memoryview, peer: memoryview, *, limit: int, at: int = 0) -> Iterator[Found]:
    """A `found.Splitter` for what travels from the client: uploads, and names for the answers."""
    own, _, base = memos(peer)
    memo = _memo(own)
    named, reader = memo.named, _Reader(stream, at, limit, memo.tables, base)
    for found, one in reader.objects():
        if one is None:
            left = _Memo(dict(sorted(named.items())[-MAX_NAMED:]), reader.tables())
            yield replace(found, memo=msgspec.msgpack.encode(left))
            continue
        if one.known:
            named[one.number] = _Names(one.first(b":path")[:200], one.first(b":authority")[:40])
        names = named.get(one.number, _Names())
        parts = found.parts
        parts += [piece for p in parts[:1] for piece in form_members(p, _head(one).text(b"content-type"))]
        name = form_name(parts) or names.path.partition("?")[0].rpartition("/")[2]
        yield replace(found, parts=parts, trouble="", name=name[:256], url=names.path, host=names.host)


def _memo(memo: bytes) -> _Memo:
    try:
        return _MEMO.decode(memo) if memo else _Memo()
    except msgspec.MsgspecError:
        return _Memo()


def _head(one: _Stream) -> Head:
    status = one.fields.get(b":status", [b"0"])[-1]
    return Head(0, int(status) if status.isdigit() and len(status) == 3 else 0, 1, one.fields)


class _Reader:
    def __init__(self, stream: memoryview, at: int, limit: int, tables: Iterable[_Said] = (), base: int = 0) -> None:
        """`base`: place of `stream` in all that was sent; `tables`: what is known of earlier looks."""
        self._stream, self._at, self._limit, self._base = stream, at, limit, base
        self._fields = _Fields()
        self._begun = next((said for said in tables if said.at == base), None)
        if self._begun is not None:
            self._fields.go_on(self._begun)
        self._said = self._begun or self._fields.said(base)
        self._news = False
        """Header blocks were read behind `_said`."""
        self._open: dict[int, _Stream] = {}
        self._block: tuple[int, int, bytearray] | None = None
        """(stream, its frame's flags, fragments) of headers that a CONTINUATION goes on with."""
        self._safe, self._trouble = at, ""

    def objects(self) -> Iterator[tuple[Found, _Stream | None]]:
        """Each stream as it ends, then (with None) what can be forgotten, then those that are open."""
        for ended in self.walk():
            yield self._object(ended), ended
        safe = self._safe
        yield Found(safe, safe, True), None
        if self._trouble:
            yield Found(safe, 0, False, [self._stream[safe:]], trouble=self._trouble), None
        expected = self.expected()
        for one in self._open.values():
            yield replace(self._object(one), expected=expected), one

    def tables(self) -> list[_Said]:
        """For the memo: of where this look began, and of where the next one does."""
        then = msgspec.structs.replace(self._said, at=self._base + self._safe)
        return [then, *([self._begun] if self._begun is not None and self._begun.at != then.at else [])]

    def expected(self) -> int:
        """No body that has said how long it is ends before this place of the stream, and one may end there; 0 = none.

        Its bytes still travel in frames, of which nobody knows how many: it ends a little later, or in this frame.
        """
        left = [left for one in self._open.values() if (left := one.left()) > 0]
        end = len(self._stream) + min(left, default=0)
        return end if left and end <= self._limit else 0

    def filled(self, since: int) -> bool:
        """Whether a body of which the stream goes on was as long as it has said at a place behind `since`."""
        return any(one.full_at > since for one in self._open.values())

    def walk(self) -> Iterator[_Stream]:
        """Read all frames; each stream as it ends."""
        stream, at = self._stream, self._skip(self._at)
        self._safe, self._trouble = at, ""
        for _ in range(MAX_FRAMES):
            if at + _FRAME > len(stream):
                break
            size = int.from_bytes(stream[at : at + 3], "big")
            kind, flags = stream[at + 3], stream[at + 4]
            number = int.from_bytes(stream[at + 5 : at + 9], "big") & 0x7FFFFFFF
            payload = stream[at + _FRAME : at + _FRAME + size]
            if len(payload) < size:
                if kind == _DATA and len(payload):
                    self._data(number, flags & ~_END_STREAM, payload, at, size)
                break
            ended = self._frame(kind, flags, number, payload, at)
            at += _FRAME + size
            if ended is not None:
                yield ended
            if not self._open and self._block is None:
                self._safe = at
                if self._news:
                    self._said, self._news = self._fields.said(self._base + at), False
            if len(self._open) > MAX_STREAMS:
                self._trouble = "more streams are open than anybody allows"
                break
        else:
            self._trouble = "more frames than content needs"

    def _skip(self, at: int) -> int:
        """Behind what precedes the first frame: the client's preface, or the answer that changed to HTTP/2."""
        window = bytes(self._stream[at : at + 65536])
        if window[:1] < b"A" or window[:1] > b"Z":
            return at
        preface, answer = window.find(PREFACE), window.find(b"\r\n\r\n")
        return at + preface + len(PREFACE) if preface >= 0 else at + answer + 4 if answer >= 0 else at

    def _frame(self, kind: int, flags: int, number: int, payload: memoryview, at: int) -> _Stream | None:
        """Take one whole frame; the stream that ended with it, if one did."""
        if kind == _DATA:
            self._data(number, flags, payload, at, len(payload))
            return self._ended(number, flags)
        if kind == _RST:
            return self._open.pop(number, None)
        if kind in (_HEADERS, _PUSH):
            fragment, trouble = _unpadded(payload, flags, len(payload))
            skip = (5 if flags & _PRIORITY else 0) if kind == _HEADERS else 4
            if kind == _HEADERS:
                one = self._of(number, at)
                one.trouble = one.trouble or trouble
            else:  # its fields are the promised request's
                number, flags = 0, flags & ~_END_STREAM
            self._block = (number, flags, bytearray(fragment[skip:]))
        elif kind == _CONTINUATION and self._block is not None:
            number, first, fragments = self._block
            fragments += payload[: MAX_BLOCK - len(fragments)]
            self._block = (number, first | (flags & _END_HEADERS), fragments)
        else:
            return None
        number, flags, fragments = self._block
        if not flags & _END_HEADERS:
            return None
        self._block = None
        fields, whole = self._fields.read(bytes(fragments))
        self._news = True
        if not number:
            return None
        one = self._of(number, at)
        one.known = whole and (one.known or not one.data)
        for name, value in fields:
            one.fields.setdefault(name.lower(), []).append(value)
        return self._ended(number, flags)

    def _of(self, number: int, at: int) -> _Stream:
        return self._open.setdefault(number, _Stream(number, at))

    def _data(self, number: int, flags: int, payload: memoryview, at: int, size: int) -> None:
        one = self._of(number, at)
        content, trouble = _unpadded(payload, flags, size)
        one.trouble = one.trouble or trouble
        if not len(content):
            return
        if 0 < (left := one.left()) <= len(content):
            one.full_at = at + _FRAME + bool(flags & _PADDED) + left
        one.data.append(content)
        one.size += len(content)

    def _ended(self, number: int, flags: int) -> _Stream | None:
        if not flags & _END_STREAM:
            return None
        one = self._open.pop(number, None)
        if one is not None:
            one.ended = True
        return one

    def _object(self, one: _Stream) -> Found:
        body: Bytes = one.data[0] if len(one.data) == 1 else b"".join(one.data)
        head = _head(one)
        parts, trouble = content_forms(body, head, self._limit, one.ended)
        if not one.known and len(body):
            forms = [out for coding in _ANY_CODING for out in decoded(body, [coding], self._limit)]
            parts = [*forms, *sniffed(body, self._limit), *parts]
        return Found(one.start, 0, one.ended, parts, trouble=one.trouble or trouble)


def may_pass(stream: memoryview, peer: memoryview, *, full: int, looked: int, limit: int) -> tuple[int, int]:
    """(bytes of an unfinished body that may go on before all of it is looked at again, 0 = look now; `expected`).

    `full` and `looked` are how much was there at the last whole look and at the last look. Long bodies are looked at
    when they have grown to four times that, when one ends, also by its own word, and when nothing more comes. The last
    bytes of each stay.
    """
    there = len(stream)
    if full < OFTEN or there <= looked or there >= full * 4:
        return 0, 0
    own, _, base = memos(peer)
    reader = _Reader(stream, 0, limit, _memo(own).tables, base)
    deque(reader.walk(), maxlen=0)
    return (0, 0) if reader.filled(looked) else (_behind_tails(stream, looked), reader.expected())


def _behind_tails(stream: memoryview, looked: int) -> int:
    """The place before the last bytes of every body; 0 where one has ended behind `looked`."""
    there, at = len(stream), 0
    tails: dict[int, deque[tuple[int, int]]] = {}
    """By stream: place and length of the frames in which its last bytes are."""
    while at + _FRAME <= there:
        size, kind, flags = int.from_bytes(stream[at : at + 3], "big"), stream[at + 3], stream[at + 4]
        number = int.from_bytes(stream[at + 5 : at + 9], "big")
        if at + _FRAME + size > looked and kind in (_DATA, _HEADERS, _RST) and (flags & _END_STREAM or kind == _RST):
            return 0
        at += _FRAME
        if kind == _DATA and flags & _END_STREAM:
            tails.pop(number, None)
        elif kind == _DATA:
            tail = tails.setdefault(number, deque())
            tail.append((at, min(size, there - at)))
            while sum(length for _, length in tail) - tail[0][1] >= TAIL:
                tail.popleft()
        at += size
    held = [tail[0][0] + max(0, sum(length for _, length in tail) - TAIL) for tail in tails.values()]
    return min(held, default=0)


def _unpadded(payload: memoryview, flags: int, size: int) -> tuple[memoryview, str]:
    """(the payload, of `size` bytes when whole, without its padding; trouble)."""
    if not flags & _PADDED or not size:
        return payload, ""
    end = size - payload[0]
    if end < 1:
        return payload[1:], "a frame's padding is longer than the frame"
    return payload[1:end], ""
