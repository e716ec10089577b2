"""SMB 2 and 3 in clear text over TCP (MS-SMB2): what is read from files to the client, what is written to the server.

Only fixed fields are read (headers, CREATE, READ, WRITE, CLOSE, SET_INFO EndOfFile). Data is put to its file by FileId
and offset, so reads in parallel and writes in any order give the file. A read's place is in its request, which travels
the other way: requests leave it in their memo, and answers whose request is not known are put together in the
order of their MessageIds. A file is complete when everything up to its known end is there or when it is closed, and it
is looked at before that too: a server has what was written, whatever is said later.

`end` moves only to places at which no file is unfinished; a file of which nothing has come for `IDLE` bytes no
longer counts. Encrypted messages are passed over (nothing can be read in them, clear ones may follow);
compressed ones carry `trouble`. SMB 1 is looked at as it travels.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import msgspec

from sekisho.inspect.streams.found import Bytes, Found, memos

MAX_MESSAGES: Final = 100_000
MAX_FILES: Final = 256
"""With data in one spool."""
IDLE: Final = 8 << 20
OFTEN: Final = 1 << 20
"""An unfinished file that is shorter is looked at whole every time."""
EFFORT: Final = 16
"""Times its own length that an unfinished read is looked at whenever it pauses; then each time an eighth has come."""
TAIL: Final = 4096
"""What is held back of a file that goes on without a look."""
REMEMBERED: Final = 64
"""Open files and pending CREATEs whose names are kept."""
PENDING: Final = 400
"""Reads whose place is kept until they are answered."""
MAX_NAME: Final = 120
_HEADER: Final = 64
_CREATE, _CLOSE, _READ, _WRITE, _SET_INFO = 5, 6, 8, 9, 17
_RESPONSE: Final = 0x1
_SETS_END: Final = b"\x01\x14"
"""InfoType file, FileEndOfFileInformation (MS-FSCC 2.4.14)."""
_MORE_DATA: Final = 0x80000005
_SAME: Final = b"\xff" * 16
"""FileId of the one that the same compound created (3.3.5.2.7.2)."""


class _Asked(msgspec.Struct, array_like=True):
    """What requests said that their answers do not."""

    names: dict[int, str] = {}
    """By MessageId of the CREATE."""
    reads: dict[int, tuple[bytes, int]] = {}
    """FileId and offset, by MessageId."""
    closes: dict[int, bytes] = {}
    looked: dict[bytes, int] = {}
    """How much of each unfinished file has been looked at."""
    seen: int = 0
    """How much of all of them was there at the last look."""


class _Known(msgspec.Struct, array_like=True):
    """Of open files by FileId: name, end, and the MessageId that opened it."""

    files: dict[bytes, tuple[str, int, int]] = {}
    looked: dict[bytes, int] = {}
    seen: int = 0
    effort: dict[bytes, int] = {}
    """Bytes of each unfinished file that looks have taken."""


@dataclass(slots=True)
class _Message:
    command: int
    number: int
    status: int
    response: bool
    at: int
    body: memoryview
    """What there is of it, header included."""
    whole: bool


@dataclass(slots=True)
class _File:
    start: int
    touched: int
    chunks: list[tuple[int, memoryview]] = field(default_factory=list)
    length: int = 0
    """Of all chunks."""
    tail: int = 0
    """Where in the stream its last bytes begin."""
    ended: bool = False


def responses(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """A `found.Splitter` for what travels from the server."""
    return _Responses(stream, peer).objects()


def requests(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """A `found.Splitter` for what travels to the server."""
    return _Requests(stream, peer).objects()


class _Reader(ABC):
    """The files of one direction. They are known by what opened them, which both directions can tell."""

    _declared = False
    """A file's size is known before its content comes."""

    def __init__(self, stream: memoryview) -> None:
        self._stream = stream
        self._files: dict[bytes, _File] = {}
        self._names: dict[bytes, str] = {}
        self._sizes: dict[bytes, int] = {}
        self._looked: dict[bytes, int] = {}
        self._seen = 0
        self._effort: dict[bytes, int] = {}

    def objects(self) -> Iterator[Found]:
        """Each file as it ends, then (without parts) what can be forgotten, then the unfinished ones."""
        stream, at, safe, trouble, ended = self._stream, 0, 0, "", False
        for _ in range(MAX_MESSAGES):
            if at + 8 > len(stream):
                break
            size, magic = int.from_bytes(stream[at + 1 : at + 4], "big"), bytes(stream[at + 4 : at + 8])
            if stream[at] == 0 and magic == b"\xfcSMB":
                trouble = "it is compressed"
                break
            if stream[at] == 0 and magic == b"\xffSMB":
                yield Found(at, 0, False, [stream[at:]])
            elif stream[at] == 0 and magic == b"\xfeSMB":
                self._compound(at + 4, min(at + 4 + size, len(stream)), whole=at + 4 + size <= len(stream))
            elif stream[at] == 0 and magic != b"\xfdSMB":
                trouble = "it is no message of SMB"
                break
            for found in self._ended(min(at + 4 + size, len(stream))):
                ended = True
                yield found
            if at + 4 + size > len(stream):
                break
            at += 4 + size
            if not self._files:
                safe = at
        else:
            trouble = "more messages than files need"
        passes = 0 if ended or trouble else self._passes()
        if not passes:
            for key, file in self._files.items():
                if file.length > self._looked.get(key, 0):
                    self._looked[key] = file.length
                    self._effort[key] = self._effort.get(key, 0) + file.length
                    yield self._object(key, file)
        self._seen = sum(file.length for file in self._files.values())
        self._looked = {key: length for key, length in self._looked.items() if key in self._files}
        self._effort = {key: effort for key, effort in self._effort.items() if key in self._files}
        yield Found(safe, safe, True, memo=self._memo(), passes=passes)
        if trouble:
            yield Found(at, 0, False, [stream[at:]], trouble=trouble)

    def _compound(self, at: int, end: int, *, whole: bool) -> None:
        while at + _HEADER <= end:
            command, _, flags, following, number = struct.unpack_from("<HHIIQ", self._stream, at + 12)
            stop = at + following if _HEADER <= following <= end - at else end
            (status,) = struct.unpack_from("<I", self._stream, at + 8)
            body = self._stream[at:stop]
            done = whole or stop < end
            with suppress(struct.error):  # too short for what it says it is: nothing is in it
                self._take(_Message(command, number, status, bool(flags & _RESPONSE), at, body, done))
            if stop == end:
                return
            at = stop

    @abstractmethod
    def _take(self, message: _Message) -> None:
        """Note what one message says or carries."""

    @abstractmethod
    def _memo(self) -> bytes:
        """What this direction's next look, and the other's, must know."""

    def _data(self, key: bytes, offset: int, data: memoryview, at: int, data_at: int) -> None:
        if len(data) and (key in self._files or len(self._files) < MAX_FILES):
            file = self._files.setdefault(key, _File(at, at))
            file.chunks.append((offset, data))
            file.length += len(data)
            file.touched = data_at + len(data)
            file.tail = data_at + max(0, len(data) - TAIL)

    def _ended(self, at: int) -> Iterator[Found]:
        for key, file in list(self._files.items()):
            size = self._sizes.get(key, 0)
            whole = 0 < size <= file.length and _covered(file.chunks) >= size
            if whole or file.ended or at - file.touched > IDLE:
                del self._files[key]
                yield replace(self._object(key, file), complete=True)

    def _passes(self) -> int:
        """How far the stream may go on although what is new has not been looked at; 0 = look now.

        The last bytes stay until a look finds nothing more or twice as much as the last one: what a server announces
        proves nothing, its file may end anywhere. Who reads piece by piece and waits for each makes a pause of every
        one. When too many of these looks have been taken, the announced end is believed for an eighth of the file.
        """
        fresh = {key: file for key, file in self._files.items() if file.length > self._looked.get(key, 0)}
        if not fresh:
            return 0
        told = {key for key in fresh if self._declared and self._sizes.get(key, 0) > fresh[key].length}
        still = sum(file.length for file in self._files.values()) <= self._seen
        if still:
            told = {key for key in told if self._effort.get(key, 0) > EFFORT * fresh[key].length}
            told = {key for key in told if fresh[key].length * 8 < self._looked.get(key, 0) * 9}
        for key, file in fresh.items():
            if file.length < OFTEN or file.length >= 2 * self._looked.get(key, 0) or (still and key not in told):
                return 0
        kept = (file.tail for key, file in fresh.items() if not still or key not in told)
        return min(kept, default=len(self._stream))

    def _object(self, key: bytes, file: _File) -> Found:
        runs = _runs(file.chunks) if key else [_joined([data for _, data in sorted(file.chunks, key=_place)])]
        part = key and (min(map(_place, file.chunks)) > 0 or _covered(file.chunks) < self._sizes.get(key, 0))
        parts: list[Bytes] = [b"", *runs] if part else runs  # a part of a file is looked at, not told of
        name = self._names.get(key, "").replace("\\", "/").rpartition("/")[2]
        return Found(file.start, 0, False, parts, name=name)


class _Requests(_Reader):
    def __init__(self, stream: memoryview, peer: memoryview) -> None:
        super().__init__(stream)
        own, other, _ = memos(peer)
        self._asked, self._known = _decode(own, _Asked), _decode(other, _Known).files
        self._looked, self._seen = self._asked.looked, self._asked.seen
        self._created = _SAME
        for name, _, number in self._known.values():
            self._names[_opened(number)] = name

    def _key(self, identity: bytes) -> bytes:
        if identity == _SAME:
            return self._created
        known = self._known.get(identity)
        return _opened(known[2]) if known else identity

    def _take(self, message: _Message) -> None:
        body, asked = message.body, self._asked
        if message.response:
            return
        if message.command == _CREATE and message.whole:
            place, length = struct.unpack_from("<HH", body, _HEADER + 44)
            name = bytes(body[place : place + min(length, 2 * MAX_NAME)]).decode("utf-16-le", "replace")
            self._created = _opened(message.number)
            asked.names[message.number] = self._names[self._created] = name
        elif message.command == _READ:
            (offset,) = struct.unpack_from("<Q", body, _HEADER + 8)
            asked.reads[message.number] = (self._key(bytes(body[_HEADER + 16 : _HEADER + 32])), offset)
        elif message.command == _WRITE:
            place, length, offset = struct.unpack_from("<HIQ", body, _HEADER + 2)
            key = self._key(bytes(body[_HEADER + 16 : _HEADER + 32]))
            self._data(key, offset, body[place : place + length], message.at, message.at + place)
        elif message.command == _CLOSE and message.whole:
            key = asked.closes[message.number] = self._key(bytes(body[_HEADER + 8 : _HEADER + 24]))
            if key in self._files:
                self._files[key].ended = True
        elif message.command == _SET_INFO and bytes(body[_HEADER + 2 : _HEADER + 4]) == _SETS_END:
            (place,) = struct.unpack_from("<H", body, _HEADER + 8)
            (size,) = struct.unpack_from("<Q", body, place)
            self._sizes[self._key(bytes(body[_HEADER + 16 : _HEADER + 32]))] = size

    def _memo(self) -> bytes:
        asked = self._asked
        kept = _Asked(
            _last(asked.names, REMEMBERED),
            _last(asked.reads, PENDING),
            _last(asked.closes, REMEMBERED),
            self._looked,
            self._seen,
        )
        return msgspec.msgpack.encode(kept)


class _Responses(_Reader):
    _declared = True

    def __init__(self, stream: memoryview, peer: memoryview) -> None:
        super().__init__(stream)
        own, other, _ = memos(peer)
        mine, self._asked = _decode(own, _Known), _decode(other, _Asked)
        self._known, self._looked, self._seen, self._effort = mine.files, mine.looked, mine.seen, mine.effort
        for name, size, number in self._known.values():
            self._names[_opened(number)], self._sizes[_opened(number)] = name, size

    def _take(self, message: _Message) -> None:
        body, asked = message.body, self._asked
        if not message.response or message.status not in (0, _MORE_DATA):
            return
        if message.command == _CREATE:
            (size,) = struct.unpack_from("<Q", body, _HEADER + 48)
            name = asked.names.get(message.number, "")
            self._known[bytes(body[_HEADER + 64 : _HEADER + 80])] = (name, size, message.number)
            self._names[_opened(message.number)], self._sizes[_opened(message.number)] = name, size
        elif message.command == _READ:
            place, length = struct.unpack_from("<BxI", body, _HEADER + 2)
            identity, offset = asked.reads.get(message.number, (b"", message.number))
            known = self._known.get(identity)
            key = _opened(known[2]) if known else identity
            self._data(key, offset, body[place : place + length], message.at, message.at + place)
        elif message.command == _CLOSE:
            key = asked.closes.get(message.number, b"?")
            if key in self._files:
                self._files[key].ended = True

    def _memo(self) -> bytes:
        return msgspec.msgpack.encode(_Known(_last(self._known, REMEMBERED), self._looked, self._seen, self._effort))


_T = TypeVar("_T")
_K = TypeVar("_K")
_V = TypeVar("_V")


def _decode(memo: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.msgpack.decode(memo, type=kind) if memo else kind()
    except msgspec.MsgspecError:
        return kind()


def _opened(number: int) -> bytes:
    """What stands for the file that the CREATE of this MessageId opens."""
    return b"create" + number.to_bytes(8, "big")


def _last(known: dict[_K, _V], count: int) -> dict[_K, _V]:
    return dict(list(known.items())[-count:])


def _place(chunk: tuple[int, memoryview]) -> int:
    return chunk[0]


def _covered(chunks: list[tuple[int, memoryview]]) -> int:
    """Contiguous bytes from offset 0."""
    there = 0
    for offset, data in sorted(chunks, key=_place):
        if offset > there:
            break
        there = max(there, offset + len(data))
    return there


def _runs(chunks: list[tuple[int, memoryview]]) -> list[Bytes]:
    """Contiguous data by place, each run as it is in the end; where a place was told twice also as it was at first."""
    runs: list[Bytes] = []
    group: list[int] = []
    end = 0
    for number in sorted(range(len(chunks)), key=lambda number: chunks[number][0]):
        offset, data = chunks[number]
        if group and offset > end:
            runs += _images([chunks[n] for n in sorted(group)])
            group, end = [], 0
        group.append(number)
        end = max(end, offset + len(data))
    return runs + _images([chunks[n] for n in sorted(group)])


def _images(chunks: list[tuple[int, memoryview]]) -> list[Bytes]:
    """One run from `chunks` in the order of their coming."""
    begin, end = min(map(_place, chunks)), max(offset + len(data) for offset, data in chunks)
    if sum(len(data) for _, data in chunks) == end - begin:
        return [_joined([data for _, data in sorted(chunks, key=_place)])]
    images: list[bytes] = []
    for order in (chunks, chunks[::-1]):
        image = bytearray(end - begin)
        for offset, data in order:
            image[offset - begin : offset - begin + len(data)] = data
        if not images or images[0] != bytes(image):
            images.append(bytes(image))
    return list[Bytes](images)


def _joined(pieces: list[memoryview]) -> Bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
