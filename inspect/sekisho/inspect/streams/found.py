"""What a splitter reports: the seam between the protocols and the scanner."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from sekisho.inspect.streams.letter import Letter

Bytes = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Found:
    """One object (a response body, a mail, a file) in a stream."""

    start: int
    end: int
    """Stream offset behind it; 0 while unknown."""
    complete: bool
    """Its last byte has been seen: `end` bytes of the stream need not be kept for it."""
    parts: list[Bytes] = field(default_factory=list)
    """Every form in which a reader could see it (decoded first); empty = nothing to look at."""
    expected: int = 0
    """Stream offset at which it will end by its own declaration; 0 = not declared."""
    trouble: str = ""
    """Why two readers could disagree about it; empty = there is one reading."""
    opaque: bool = False
    """From `end` on the stream is no longer this protocol (encrypted, a tunnel): nothing more can be read in it."""
    becomes: str = ""
    """The protocol that begins at `end`; the splitter stops there."""
    body_at: int = 0
    """Stream offset of its content where that travels unchanged; 0 = it does not."""
    ranged: tuple[int, int, int] | None = None
    """(from, to, total or 0) where it is only a part of something larger."""
    name: str = ""
    url: str = ""
    host: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    mail_subject: str = ""
    letter: Letter | None = None
    """Where a mail lies in the stream, when a part of it could be replaced there."""
    passes: int = 0
    """Not 0: nothing has ended, and so far the stream may go on without a look at all of it."""
    memo: bytes = b""
    """What the next look at either direction must know of this one, once what is `complete` has left the spool: at
    most 64 KiB; the last one that is not empty counts."""


MAX_MEMO = 64 << 10


def memos(peer: Bytes) -> tuple[bytes, bytes, int]:
    """(memo of the direction itself, memo of the other, place of `stream` in all that was sent) from a `peer`."""
    try:
        return msgspec.msgpack.decode(peer, type=tuple[bytes, bytes, int])
    except msgspec.MsgspecError:
        return b"", b"", 0


class Splitter(Protocol):
    """Never raises on content; time and memory are linear in `len(stream)` and `limit`."""

    def __call__(self, stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
        """Objects of `stream` in order; only the last may be incomplete.

        `peer` is what is known from elsewhere: of HTTP the newest request's beginning, else both directions' memos and
        the stream's place (`memos`). May be empty.
        `limit` bounds decoded bytes per object.
        """
        ...
