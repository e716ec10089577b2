"""Which splitter reads which stream. A protocol that turns out to be another is handed on here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sekisho.inspect.streams import http1, imap, pop3, smtp
from sekisho.inspect.streams.found import Found, Splitter


def raw(stream: memoryview, peer: memoryview, *, limit: int) -> Iterator[Found]:
    """The whole stream is one file, ended by FIN (FTP data)."""
    yield Found(0, 0, False, [stream])


_TO_CLIENT: Final[dict[str, Splitter]] = {
    "http": http1.responses,
    "ftp-data": raw,
    "pop3": pop3.objects,
    "imap": imap.objects,
}
_TO_SERVER: Final[dict[str, Splitter]] = {"http": http1.requests, "ftp-data": raw, "smtp": smtp.objects}
APPS: Final = ("http", "ftp-data", "smtp", "pop3", "imap")


def splitter(app: str, stream: memoryview, *, to_server: bool) -> tuple[str, Splitter]:
    """(the protocol's name, its splitter) for one direction; what nobody knows is one raw object."""
    return app, (_TO_SERVER if to_server else _TO_CLIENT).get(app, raw)
