"""What documents made of text carry: PDF streams, mails and forms, base64 in web pages, objects in RTF."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Final

from sekisho.inspect import decode
from sekisho.inspect.containers.budget import Budget, Bytes
from sekisho.inspect.containers.memory import places
from sekisho.inspect.streams import mime

_LOOK: Final = 4096
_DICTIONARY: Final = 1024
"""Bytes before a PDF stream in which its filters are looked for."""
_MAIL = re.compile(
    rb"\A(?:[ \t\r\n]*(?:>?From [^\n]*\n)?)"
    rb"(?=(?:[!-9;-~]{1,80}:[^\n]*\n(?:[ \t][^\n]*\n)*){0,40}?"
    rb"(?:mime-version|content-type|content-transfer-encoding|content-disposition|received|return-path|message-id):)",
    re.IGNORECASE,
)
_FORM = re.compile(rb"\A(?:\r?\n)*--[^\r\n]{1,200}\r?\n[!-9;-~]{1,80}[ \t]*:")
_DIGITS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_HEXADECIMAL: Final = b"0123456789abcdefABCDEF"
_RUN_BYTES: Final = 160
_STRAY: Final = 16
"""With fewer digits that are none of base 16, a run is hexadecimal beside something else: nothing fits into so few."""
_IS_DIGIT: Final = bytes(1 if code in _DIGITS else 0 for code in range(256))
_RUN = re.compile(rb"(?:[A-Za-z0-9+/]|\\?[\r\n]+)++={0,2}")
_HEX = re.compile(rb"(?<![A-Za-z0-9])(?:[0-9a-fA-F][ \t\r\n]*+){64,}+")
_ENCRYPT = re.compile(rb"/Encrypt[\s\0]*(?:[0-9]+[\s\0]+[0-9]+[\s\0]+R|<<)")
_SPACE = re.compile(rb"[ \t\r\n\\]+")


def is_mail(head: bytes) -> bool:
    """Whether a file that begins so is a mail, a web archive or a form with its uploads."""
    return bool(_MAIL.match(head) or _FORM.match(head))


def mailed(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Parts of a mail, of an .mht file, of a multipart form."""
    contents = mime.contents(bytes(data), limit=budget.room)
    if contents.trouble in ("too_deep", "too_many_parts"):
        budget.note("depth" if contents.trouble == "too_deep" else "too_large")
    for part in contents.parts:
        budget.open_member()
        yield part.name, part.body
        budget.take(len(part.body))


def is_text(head: bytes) -> bool:
    return bool(head) and b"\0" not in head and sum(32 <= c < 127 or c in b"\t\r\n" for c in head) * 8 > len(head) * 5


def encoded(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Long runs of base64: data addresses, and files that a web page's script puts together."""
    text = bytes(data)
    digit, at = text.translate(_IS_DIGIT), 0  # twenty times faster than a pattern that tries every position
    while (at := digit.find(b"\1" * _RUN_BYTES, at)) >= 0:
        end = digit.find(b"\0", at)
        if len(text[at : end if end >= 0 else None].translate(None, _HEXADECIMAL)) < _STRAY:
            at = end if end >= 0 else len(text)  # a hash, a key, a dump
            continue
        match = _RUN.match(text, at)
        if match is None:
            return
        at = match.end()
        budget.attempt()
        digits = _SPACE.sub(b"", match[0]).rstrip(b"=")
        digits = digits[: len(digits) - (len(digits) % 4 == 1)]
        content = binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))[: budget.room]
        budget.open_member()
        yield "", content
        budget.take(len(content))


def rich(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Objects in RTF: long runs of hexadecimal digits."""
    for match in _HEX.finditer(data):
        budget.attempt()
        digits = _SPACE.sub(b"", match[0])
        content = binascii.a2b_hex(digits[: len(digits) & ~1])[: budget.room]
        budget.open_member()
        yield "", content
        budget.take(len(content))
        at = content.find(b"\xd0\xcf\x11\xe0")
        if at > 0:  # behind the header of an embedded object ([MS-OLEDS] 2.2.5)
            budget.open_member()
            yield "", memoryview(content)[at:]


def portable(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Streams of a PDF (ISO 32000-1 7.3.8) whose filters change what they look like."""
    view = memoryview(data)
    if any(_ENCRYPT.match(view, hit) for hit in places(data, b"/Encrypt")):
        budget.note("encrypted")
    for hit in places(data, b"stream"):
        if bytes(view[max(0, hit - 3) : hit]) == b"end":
            continue
        budget.attempt()
        start = hit + 6
        start += 2 if bytes(view[start : start + 2]) == b"\r\n" else 1
        filters = bytes(view[max(0, hit - _DICTIONARY) : hit]).rpartition(b"obj")[2]
        content = _unfiltered(view[start:], filters, budget)
        if content:
            budget.open_member()
            yield "", content
            budget.take(len(content))


def _unfiltered(body: memoryview, filters: bytes, budget: Budget) -> Bytes:
    first: Bytes = body
    if b"ASCIIHex" in filters or b"/AHx" in filters:
        text = bytes(body[: next(places(body, b">"), len(body))])[: budget.room * 2]
        first = bytes.fromhex(
            re.sub(rb"[^0-9a-fA-F]", b"", text)[: len(text) & ~1].decode()[: len(text) // 2 * 2] or ""
        )
    elif b"ASCII85" in filters or b"/A85" in filters:
        text = bytes(body[: next(places(body, b"~>"), len(body))])[: budget.room * 2]
        try:
            first = base64.a85decode(text.strip().removeprefix(b"<~"), ignorechars=b" \t\r\n\v\0")
        except ValueError:
            first = b""
    plain = decode.unpack(first, "zlib", budget.room, budget.deadline).data
    if plain:
        return plain
    return b"" if first is body else first
