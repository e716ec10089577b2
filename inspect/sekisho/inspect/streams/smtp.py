"""SMTP (RFC 5321), client to server: the mails of one connection and what each of them carries.

Knows DATA with its dots, BDAT (RFC 3030) in any number of chunks, pipelining (RFC 2920) and several mails on
one connection. It reads without the server's answers: where a server could have refused what the client began,
what follows is still read as content, so nothing escapes the scanner by being said in the wrong place. A mail
whose end two servers would see in different places (a dot between line ends that are not CRLF, RFC 5321 2.3.8)
carries `trouble`; so do commands that could hide a line end, and what follows a mail but is no command.

Each named part of a mail is an object of its own, complete when the mail says so much; then comes the mail
itself with all forms of everything in it. Only a mail's end, or a pause between mails, moves `end`.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

from sekisho.inspect.streams.found import Bytes, Found, memos
from sekisho.inspect.streams.mime import Contents, contents

MAX_LINE = 12288
"""The longest command anybody sends (RFC 4954 4: AUTH)."""
MAX_COMMANDS = 20_000
MAX_ANSWERS = 8
"""Lines a client may send after AUTH."""
MAX_RECIPIENTS = 100
LOOK_FROM = 8 << 20
"""No server keeps a mail whose end it has not seen (RFC 5321 4.1.1.4): a shorter one is looked at when it is whole."""
_ANSWER = b"(answer)"
_TOLD = b"told"
"""Memo: this connection has carried a mail."""
_VERBS = frozenset(
    b"HELO EHLO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY EXPN HELP AUTH STARTTLS ETRN BURL XCLIENT XFORWARD".split()
)
_COMMAND = re.compile(rb"([A-Za-z][A-Za-z0-9-]{2,15})(?:[ \t:].*)?\Z", re.DOTALL)
_DOT = re.compile(rb"[\r\n]\.[\r\n]")
_PATH = re.compile(rb":[ \t]*<?([^<> \t\r\n]{1,256})")
_BDAT = re.compile(rb"BDAT[ ]+([0-9]{1,12})(?:[ ]+(LAST))?[ ]*\Z", re.IGNORECASE)
_TLS = re.compile(rb"\x16\x03[\x00-\x04]")


@dataclass(slots=True)
class _Mail:
    """The mail that is being told."""

    start: int
    open: bool = False
    """Its sender has been named."""
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    chunks: list[memoryview] = field(default_factory=list)
    trouble: str = ""


def objects(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """A `found.Splitter` for what travels to the server."""
    return _Reader(stream, memos(peer)[0] == _TOLD, limit).objects()


class _Reader:
    def __init__(self, stream: memoryview, told: bool, limit: int) -> None:
        self._stream = stream
        self._told = told
        self._limit = limit
        self._mail = _Mail(0)
        self._answers = 0

    def objects(self) -> Iterator[Found]:
        stream, at = self._stream, 0
        for _ in range(MAX_COMMANDS):
            if _TLS.match(stream, at):
                yield Found(at, len(stream), True, opaque=True)
                return
            line, after = _line(stream, at)
            if not after and len(line) <= MAX_LINE:
                break
            verb = self._verb(line, after)
            if self._mail.trouble:
                yield from self._content([stream[self._mail.start :]], 0)
                return
            if verb == b"BDAT":
                at = yield from self._chunk(line, after)
            elif verb in (b"DATA", b""):
                at = yield from self._data(after if verb else at)
            else:
                self._command(verb, line, at, after)
                at = after
                continue
            if not at:
                return
        mail = self._mail
        if mail.chunks:
            yield from self._content(mail.chunks, 0)
        elif at and not mail.open and not self._answers:
            yield Found(at, at, True)

    def _verb(self, line: bytes, after: int) -> bytes:
        """The command's name; empty when this is none, and sets the mail's `trouble` when it cannot be told."""
        found = _COMMAND.match(line) if after else None
        verb = found[1].upper() if found else b""
        if b"\r" in line or b"\0" in line:
            self._mail.trouble = "a command holds a line end of another kind"
        elif verb == b"BDAT" and not _BDAT.match(line):
            self._mail.trouble = "the length of a chunk has more than one reading"
        if self._answers and verb not in _VERBS:
            self._answers -= 1
            return _ANSWER
        if not line and after:
            return b"NOOP"
        if not verb and self._told:
            self._mail.trouble = "what follows a mail is not a command"
        return verb

    def _command(self, verb: bytes, line: bytes, at: int, after: int) -> None:
        path = _PATH.search(line[:2048])
        name = path[1].decode("utf-8", "replace") if path else ""
        mail = self._mail
        if verb != _ANSWER:
            self._answers = MAX_ANSWERS if verb == b"AUTH" else 0
        if verb == b"MAIL":
            mail.start, mail.open, mail.sender = mail.start if mail.chunks else at, True, name
        elif verb == b"RCPT" and len(mail.recipients) < MAX_RECIPIENTS:
            mail.recipients.append(name)
        elif verb in (b"RSET", b"EHLO", b"HELO", b"LHLO") and not mail.chunks:
            self._mail = _Mail(after)

    def _chunk(self, line: bytes, after: int) -> Generator[Found, None, int]:
        """Take one chunk; returns the offset behind it, or 0 while it is not all there."""
        found = _BDAT.match(line)
        size, last = (int(found[1]), bool(found[2])) if found else (0, True)
        end = after + size
        self._mail.chunks.append(self._stream[after:end])
        if end > len(self._stream):
            for one in self._content(self._mail.chunks, 0):
                yield replace(one, expected=end)
            return 0
        if last:
            yield from self._content(self._mail.chunks, end)
        return end

    def _data(self, at: int) -> Generator[Found, None, int]:
        """Take what begins at `at` as a mail with dots; returns the offset behind it, or 0 while it has no end."""
        end, self._mail.trouble = _end_of_data(self._stream, at)
        yield from self._content([self._stream[at : end or len(self._stream)]], end, dots=True)
        return end

    def _content(self, pieces: list[memoryview], end: int, *, dots: bool = False) -> Iterator[Found]:
        """The objects of one mail, whole (it ends at `end`) or as far as it has come (0)."""
        mail = self._mail
        if not end and not mail.trouble and sum(map(len, pieces)) < LOOK_FROM:
            yield Found(mail.start, 0, False)
            return
        text = b"".join(pieces)
        if dots:
            text = _unstuffed(text.removesuffix(b".\r\n") if end else text)
        inside = contents(text, limit=self._limit)
        found = Found(
            mail.start, 0, False, mail_from=mail.sender or inside.sender, mail_to=tuple(mail.recipients),
            mail_subject=inside.subject,
        )  # fmt: skip
        named, rest = _grouped(inside)
        for (_, behind), (name, forms) in named.items():
            yield replace(found, complete=end > 0 or behind < len(text), parts=forms, name=name)
        yield replace(found, parts=[text, *rest] if text else [], trouble=mail.trouble)
        if end:
            yield replace(found, end=end, complete=True, memo=_TOLD)
            self._mail, self._told = _Mail(end), True


def _line(stream: memoryview, at: int) -> tuple[bytes, int]:
    """(the line at `at` without its end, offset behind it or 0 while it has none within `MAX_LINE`)."""
    window = bytes(stream[at : at + MAX_LINE + 2])
    end = window.find(b"\n")
    if end < 0:
        return window, 0
    return window[:end].removesuffix(b"\r").strip(b" \t"), at + end + 1


def _end_of_data(stream: memoryview, at: int) -> tuple[int, str]:
    """(offset behind the line with the dot that ends what begins at `at`, or 0; why it has more than one end)."""
    first = bytes(stream[at : at + 3])
    if first == b".\r\n":
        return at + 3, ""
    trouble = "the mail ends in more than one place"
    if first[:2] == b".\n" or (first[:2] == b".\r" and len(first) == 3):
        return 0, trouble
    for found in _DOT.finditer(stream, at):
        dot = found.start() + 1
        before, behind = bytes(stream[max(at, dot - 2) : dot]), bytes(stream[dot + 1 : dot + 3])
        if before == b"\r\n" and behind == b"\r\n":
            return dot + 3, ""
        if behind != b"\r" or before != b"\r\n":
            return 0, trouble
    return 0, ""


def _unstuffed(text: bytes) -> bytes:
    """RFC 5321 4.5.2."""
    return text.removeprefix(b".").replace(b"\r\n.", b"\r\n") if b"." in text else text


def _grouped(inside: Contents) -> tuple[dict[tuple[int, int], tuple[str, list[Bytes]]], list[Bytes]]:
    """(name and forms of each named part by its place, the forms of all else)."""
    named: dict[tuple[int, int], tuple[str, list[Bytes]]] = {}
    rest: list[Bytes] = []
    names = {(part.start, part.end): part.name for part in reversed(inside.parts) if part.name}
    for part in inside.parts:
        place = (part.start, part.end)
        if place in names:
            named.setdefault(place, (names[place], []))[1].append(part.body)
        else:
            rest.append(part.body)
    return named, rest
