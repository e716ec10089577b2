"""A mail as it lies in a stream, and what can be looked at in it: the seam between POP3, IMAP and the neutraliser."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from sekisho.inspect.streams import mime
from sekisho.inspect.streams.found import Bytes, Found
from sekisho.inspect.streams.mime import Part


@dataclass(frozen=True, slots=True)
class Letter:
    """Offsets are the carrier's: the mail's bytes as they travel, put together without what lies between them."""

    carrier: bytes
    spans: tuple[tuple[int, int], ...]
    """(carrier offset, stream offset) at which each stretch of it begins, ascending."""
    parts: tuple[Part, ...]
    """Those behind `Found.parts[1:]`, in the same order."""
    finished: bool
    """Nothing of it is still to come."""
    keep: int = 0
    """So many last bytes must stay as they are: they end the mail, or may be the beginning of what does."""
    dotted: bool = False
    """A line that is a lone "." would end it (RFC 1939 section 3)."""
    left: int = 0
    """Bytes of it still to come; 0 = none, or not known."""
    bare: bool = False
    """It is a part's content without any header (an IMAP section)."""

    def stream_at(self, offset: int) -> int:
        """Where this byte of the carrier lies in the stream."""
        begins, at = self.spans[max(0, bisect_right(self.spans, (offset, 1 << 62)) - 1)]
        return at + offset - begins

    def carrier_at(self, stream_offset: int) -> int:
        """How many bytes of the carrier lie before this place in the stream."""
        for number in range(len(self.spans) - 1, -1, -1):
            begins, at = self.spans[number]
            if at < stream_offset:
                stop = self.spans[number + 1][0] if number + 1 < len(self.spans) else len(self.carrier)
                return min(begins + stream_offset - at, stop)
        return 0


def found(
    letter: Letter,
    content: bytes,
    dots: list[int],
    *,
    start: int,
    end: int,
    complete: bool,
    limit: int,
    expected: int = 0,
) -> Found:
    """One mail. `content` is what a program reads, `dots` the carrier offsets of what it does not."""
    inside = mime.contents(content, limit=limit)
    parts = tuple(_placed(part, dots) for part in inside.parts)
    forms: list[Bytes] = [content, *(part.body for part in parts)]
    return Found(
        start, end, complete, forms, expected=expected, trouble=inside.trouble,
        mail_from=inside.sender, mail_subject=inside.subject, letter=replace(letter, parts=parts),
    )  # fmt: skip


def _placed(part: Part, dots: list[int]) -> Part:
    """The part with its offsets moved by the stuffed dots before each."""
    if not dots:
        return part
    head, start, end = (_behind(dots, offset) for offset in (part.head, part.start, part.end))
    return replace(part, head=head, start=start, end=end)


def _behind(dots: list[int], offset: int) -> int:
    """The carrier offset of a content offset: dot number n lies at `dots[n]`, behind `dots[n] - n` bytes of content."""
    low, high = 0, len(dots)
    while low < high:
        middle = (low + high) // 2
        if dots[middle] - middle < offset:
            low = middle + 1
        else:
            high = middle
    return offset + low
