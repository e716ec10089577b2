"""Replaces what is malicious in a mail on its way to a mailbox program, byte for byte. Pure; runs in scan workers.

The mail keeps its length to the byte: sequence numbers, IMAP literals and octet counts all stay right, and the
session goes on with the next mail. What was delivered before is never touched, so an attachment whose beginning is
already with the reader is ended there: a delimiter, the notice, filler. Where the mail's end is not in sight the rest
of it becomes filler until it is.

Lines stay below 998 characters (RFC 5322 2.1.1), and none becomes the lone "." that ends a POP3 reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import msgspec

from sekisho.inspect import notice as notices
from sekisho.inspect.notice import Notice
from sekisho.inspect.streams.letter import Letter
from sekisho.inspect.streams.mime import MAX_HEAD, Part

_LINE = 80
_FILL = b" " * (_LINE - 2) + b"\r\n"
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FIELDS = re.compile(rb"^(?!content-|mime-version)[!-9;-~]{1,80}:[^\n]*\n(?:[ \t][^\n]*\n)*", re.I | re.MULTILINE)
_PLAIN_FIELDS = re.compile(rb"^(?:date|message-id|from|to):[ -~]{0,200}\r?\n", re.I | re.MULTILINE)
_BASE64 = re.compile(rb"[A-Za-z0-9+/=\r\n]{16,}\Z")
_CONTENT_TYPE = re.compile(rb"^content-type[ \t]*:", re.I | re.MULTILINE)
_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*:[ \t]*(base64|quoted-printable)[ \t]*\r?\n", re.I | re.MULTILINE
)
_DIGIT = re.compile(rb"[A-Za-z0-9+/]")


class Patch(msgspec.Struct, frozen=True):
    """What the receiver gets from this place in the stream on: `data`, then filler up to `until`."""

    offset: int
    data: bytes
    until: int

    def whole(self) -> bytes:
        """All of it."""
        return self.data + filler(self.offset + len(self.data), self.until - self.offset - len(self.data))


def filler(offset: int, length: int) -> bytes:
    """White space in lines of 80 that neither begins nor ends within a line end; the same for the same place."""
    if length <= 0:
        return b""
    phase = offset % _LINE
    out = bytearray((_FILL * (length // _LINE + 2))[phase : phase + length])
    if out[0] == 0x0A:
        out[0] = 0x20
    if out[-1] == 0x0D:
        out[-1] = 0x20
    return bytes(out)


def plan(letter: Letter, infected: Iterable[Part | None], delivered: int, notice: Notice) -> tuple[list[Patch], bool]:
    """(patches, whether all that is still to come of this mail must become filler too).

    `infected` are parts of the letter; None stands for the mail as a whole. `delivered` is a place in the stream.
    """
    had = letter.carrier_at(delivered)
    end = len(letter.carrier) - letter.keep
    patches: list[Patch] = []
    done = had
    places = [part or _whole(letter) for part in infected]
    for part in sorted(places, key=lambda p: (p.head, -p.end)):
        open_ended = part.end >= end and not letter.finished
        if part.end <= done:
            if open_ended:
                return patches, True
            continue
        if part.boundary and part.head and not letter.bare:
            stop = min(part.end, end)
            patches += _in_multipart(letter, part, max(done, had), stop, notice, last=open_ended)
        else:
            patches += _alone(letter, part, max(done, had), end, notice)
            return patches, not letter.finished
        if open_ended:
            return patches, True
        done = stop
    return patches, False


def blank(letter: Letter, delivered: int) -> list[Patch]:
    """Filler for all of the mail that is there and not delivered."""
    had, end = letter.carrier_at(delivered), len(letter.carrier) - letter.keep
    return _patch(letter, had, b"", end)


def patched(stream: bytes, patches: Iterable[Patch]) -> bytes:
    """The stream as its receiver will have it."""
    out = bytearray(stream)
    for patch in patches:
        out[patch.offset : patch.until] = patch.whole()
    return bytes(out)


def _whole(letter: Letter) -> Part:
    return Part(0, 0, len(letter.carrier) - letter.keep, "", b"")


def _in_multipart(letter: Letter, part: Part, done: int, stop: int, notice: Notice, *, last: bool) -> list[Patch]:
    at = max(part.head, done)
    close = b"\r\n--" + part.boundary + b"--\r\n" if last else b""
    lead = b""
    if at > part.head:
        lead = _quantum(letter, part, at) + _line_break(letter, at) + b"--" + part.boundary + b"\r\n"
    elif at == done:
        lead = _guard(letter, at)
    room = stop - at - len(lead) - len(close)
    text = notices.part(notice, room)
    return _patch(letter, at, lead + text + close if text else b"", stop)


def _alone(letter: Letter, part: Part, done: int, end: int, notice: Notice) -> list[Patch]:
    """The mail's only part, or something that no part holds: header fields stay, the content goes."""
    if letter.bare or (part.end > part.start > 0 and done >= part.start):
        return _content(letter, part, done, end, notice)
    if done == 0:
        head = _kept_fields(letter, part)
        text = notices.part(notice, end - len(head) - 19)
        if not text:
            head, text = b"", notices.part(notice, end - 19)
        mime = b"MIME-Version: 1.0\r\n" if text.startswith(b"Content-") else b""
        return _patch(letter, 0, head + mime + text if text else b"", end)
    header = _HEAD_END.search(letter.carrier, 0, MAX_HEAD)
    if header is not None and header.end() <= done:
        return _content(letter, part, done, end, notice)
    lead = _line_break(letter, done)
    if _CONTENT_TYPE.search(letter.carrier, 0, done):
        said = _ENCODING.search(letter.carrier, 0, done)
        encoding = said[1].lower().decode() if said else ""
        text = notices.text(notice, end - done - len(lead) - 2, encoding)
        return _patch(letter, done, lead + b"\r\n" + text, end)
    text = notices.part(notice, end - done - len(lead))
    return _patch(letter, done, lead + text if text else b"", end)


def _content(letter: Letter, part: Part, done: int, end: int, notice: Notice) -> list[Patch]:
    """The header is with the reader: the notice speaks in the encoding it announced."""
    encoding = part.encoding
    begin = max(done, part.start)
    if letter.bare and _BASE64.match(letter.carrier[: max(begin, 512)][:512]):
        encoding = "base64"
    lead = _guard(letter, begin)
    if begin > part.start:
        lead = _quantum(letter, replace(part, encoding=encoding), begin) + _line_break(letter, begin)
    text = notices.text(notice, end - begin - len(lead), encoding)
    return _patch(letter, begin, lead + text if text else b"", end)


def _quantum(letter: Letter, part: Part, at: int) -> bytes:
    """What makes base64 that ends here a whole number of bytes: some programs show nothing of it otherwise."""
    if part.encoding != "base64" or at <= part.start:
        return b""
    return b"A" * (-len(_DIGIT.findall(letter.carrier, part.start, at)) % 4)


def _kept_fields(letter: Letter, part: Part) -> bytes:
    """The mail's own header without what describes its content; only plain ones when no part is to blame."""
    stop = _HEAD_END.search(letter.carrier, 0, MAX_HEAD)
    if stop is None:
        return b""
    head = letter.carrier[: stop.start() + 2]
    pattern = _FIELDS if part.start else _PLAIN_FIELDS
    return b"".join(match[0].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for match in pattern.finditer(head))


def _line_break(letter: Letter, at: int) -> bytes:
    """A line end that ends no reply: what was delivered of this line may be a lone dot."""
    guard = _guard(letter, at)
    return guard + (b"\n" if not guard and letter.carrier[at - 1 : at] == b"\r" else b"\r\n")


def _guard(letter: Letter, at: int) -> bytes:
    line = letter.carrier[letter.carrier.rfind(b"\n", 0, at) + 1 : at]
    return b" " if letter.dotted and line in (b".", b".\r") else b""


def _patch(letter: Letter, at: int, data: bytes, end: int) -> list[Patch]:
    """[at, end) of the carrier as patches of the stream, one for each stretch it lies in."""
    if at >= end:
        return []
    data = data[: end - at] or _guard(letter, at)
    stretches = [begins for begins, _ in letter.spans if at < begins < end]
    patches: list[Patch] = []
    for start, stop in zip([at, *stretches], [*stretches, end], strict=True):
        piece = data[start - at : stop - at]
        offset = letter.stream_at(start)
        patches.append(Patch(offset, piece, offset + stop - start))
    return patches
