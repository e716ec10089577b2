"""Which splitter reads which stream. A protocol that turns out to be another is handed on here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sekisho.inspect.streams import http1, http2, imap, pop3, smb2, smtp
from sekisho.inspect.streams.found import Found, Splitter


def raw(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """The whole stream is one file, ended by FIN (FTP data)."""
    yield Found(0, 0, False, [stream])


def _responses(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    for found in http1.responses(stream, peer, limit=limit):
        yield found
        if found.becomes:
            yield from http2.responses(stream, peer, limit=limit, at=found.end)


def _requests(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    for found in http1.requests(stream, peer, limit=limit):
        yield found
        if found.becomes:
            yield from http2.requests(stream, peer, limit=limit, at=found.end)


_TO_CLIENT: Final[dict[str, Splitter]] = {
    "http": _responses,
    "http2": http2.responses,
    "ftp-data": raw,
    "pop3": pop3.objects,
    "imap": imap.objects,
    "smb": smb2.responses,
}
_TO_SERVER: Final[dict[str, Splitter]] = {
    "http": _requests,
    "http2": http2.requests,
    "ftp-data": raw,
    "smtp": smtp.objects,
    "smb": smb2.requests,
}
APPS: Final = ("http", "http2", "ftp-data", "smtp", "pop3", "imap", "smb")


def splitter(app: str, *, to_server: bool) -> Splitter:
    """The one for this direction; what nobody knows is one raw object."""
    return (_TO_SERVER if to_server else _TO_CLIENT).get(app, raw)
