"""POP3 (RFC 1939), server to client: the mails in multi-line replies. Runs in scan workers only.

Needs no commands: a line that begins with a status is one, anything else is the content of a multi-line reply until
the line that is a lone ".". So it starts anywhere between two replies, and pipelining (RFC 2449 6.6) is no case of
its own. A listing (LIST, UIDL, CAPA) is not content. A TLS record (STLS, RFC 2595) makes the stream opaque.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sekisho.inspect.streams.found import Found
from sekisho.inspect.streams.letter import Letter, found

MAX_LINE = 4096
_STATUS = re.compile(rb"(?:(?:\+OK|-ERR)(?=[ \r\n]|\Z)|\+ |\+\r?\n)[^\n]{0,%d}(?:\n|\Z)" % MAX_LINE, re.I)
_STATUS_START = re.compile(rb"(?:\+(?:O(?:K[^\n]*)?| [^\n]*)?|-(?:E(?:R(?:R[^\n]*)?)?)?)\Z", re.I)
_END = b"\r\n.\r\n"
_STUFFED = re.compile(rb"(?:\A|(?<=\n))\.(?=[^\r\n])")
_LISTING = re.compile(rb"(?:[0-9]{1,9}(?: [!-~]{1,70}){1,2}\r?\n)*\Z")
_CAPABILITY = re.compile(rb"(?:(?:[A-Z][A-Z0-9-]{1,31}|SASL|IMPLEMENTATION)(?: [ -~]{0,200})?\r?\n)*\Z")
MAX_CAPABILITIES = 4096


def is_tls(data: bytes) -> bool:
    """A TLS record with the beginning of a handshake or an alert (RFC 8446 5.1)."""
    return len(data) >= 3 and data[0] in (0x15, 0x16) and data[1] == 3 and data[2] <= 4


def objects(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """The mails of one direction, in order, and how far the replies between them are finished."""
    data = bytes(stream)
    at = 0
    while at < len(data):
        status = _STATUS.match(data, at)
        if status is not None and data[status.end() - 1 : status.end()] == b"\n":
            behind = status.end()
            while (more := _STATUS.match(data, behind)) is not None and data[more.end() - 1 : more.end()] == b"\n":
                behind = more.end()
            yield Found(at, behind, True)
            at = behind
            continue
        if status is not None or _STATUS_START.match(data, at):
            yield Found(at, 0, False)
            return
        if is_tls(data[at : at + 3]):
            yield Found(at, len(data), True, opaque=True)
            return
        reply = _reply(data, at, limit)
        yield reply
        if not reply.complete:
            return
        at = reply.end


def _reply(data: bytes, at: int, limit: int) -> Found:
    if data.startswith(b".\r\n", at):  # an empty listing
        return Found(at, at + 3, True)
    stop = data.find(_END, at)
    if stop < 0 and data.find(b"\r", at) < 0:  # a server that ends its lines with LF alone
        line = data.find(b"\n.\n", at)
        finished, end, keep = line >= 0, line + 3 if line >= 0 else 0, 3 if line >= 0 else 0
    else:
        finished, end, keep = stop >= 0, stop + 5 if stop >= 0 else 0, 5 if stop >= 0 else 0
    carrier = data[at : end or len(data)]
    body = carrier[: len(carrier) - keep + keep // 2]  # the line end before the dot is the mail's own
    if _is_listing(body):
        return Found(at, end, finished)
    if not finished:
        keep = next((n for n in (4, 3, 2, 1) if carrier.endswith(_END[:n])), 0)
    dots = _stuffed(body)
    content = _STUFFED.sub(b"", body) if dots else body
    letter = Letter(carrier, ((0, at),), (), finished, keep, dotted=True)
    return found(letter, content, dots, start=at, end=end, complete=finished, limit=limit)


def _stuffed(body: bytes) -> list[int]:
    """Where the dots lie that are not the mail's own."""
    dots = [0] if _STUFFED.match(body) else []
    at = body.find(b"\n.")
    while at >= 0:
        if _STUFFED.match(body, at + 1):
            dots.append(at + 1)
        at = body.find(b"\n.", at + 2)
    return dots


def _is_listing(body: bytes) -> bool:
    if _LISTING.match(body):
        return True
    return len(body) < MAX_CAPABILITIES and _CAPABILITY.match(body) is not None
