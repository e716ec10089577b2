"""Where the channel's files come from: what a way to them offers, and the way from a directory (a USB stick)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

from sekisho.signatures.trust.faults import ChannelDown, ChannelRefused

CHUNK: Final = 64 << 10


@dataclass(frozen=True)
class Limits:
    """How long a server may take."""

    gap_s: float = 10.0
    """To connect, and between two bytes."""
    head_s: float = 30.0
    """From the request to the end of the answer's head."""
    small_s: float = 60.0
    """For a whole small file (metadata, manifest)."""
    rate: int = 2048
    """Bytes per second that a large file must come with at least ..."""
    window_s: float = 60.0
    """... counted over this long: a server that gives one byte now and then is left (TUF: slow retrieval)."""


@dataclass(frozen=True)
class Reply:
    """A file on its way."""

    start: int
    """Offset of the first byte of `chunks`: what was asked for, or 0 when the file is another one now."""
    length: int | None
    """Of the whole file, as the server says."""
    etag: str
    """To be given with the next request for the rest; empty: the server has no strong one."""
    chunks: Iterator[bytes]


class Source(Protocol):
    """A way to the channel's files. `metadata` and `targets` are URLs that end in a slash."""

    metadata: str
    targets: str

    def read(
        self, url: str, cap: int, *, start: int = 0, etag: str = "", bulk: bool = False
    ) -> AbstractContextManager[Reply]:
        """Fetch a file from byte `start` on; `chunks` must be used up inside the context.

        Args:
            url: below `metadata` or `targets`.
            cap: bytes of the whole file, at most.
            start: what is here already.
            etag: of the answer that came with; another file is then begun at 0.
            bulk: a large file: no end in time, but a least rate.

        Raises (also while reading `chunks`):
            ChannelDown: no answer, a wrong one, or too slow.
            ChannelRefused: `too_large`.

        """
        ...


def too_large(url: str, cap: int) -> ChannelRefused:
    return ChannelRefused("too_large", f"{name_of(url)} is larger than {cap} bytes, as it may not be.")


def name_of(url: str) -> str:
    """The last part of a URL, for messages."""
    return urlsplit(url).path.rsplit("/", 1)[-1][:100]


class Folder:
    """A copy of the repository in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        base = self._directory.as_uri()
        self.metadata, self.targets = f"{base}/metadata/", f"{base}/targets/"

    @contextmanager
    def read(self, url: str, cap: int, *, start: int = 0, etag: str = "", bulk: bool = False) -> Iterator[Reply]:
        path = Path(unquote(urlsplit(url).path))
        if ".." in path.parts or not path.is_relative_to(self._directory):
            raise ChannelDown("bad_answer", f"{name_of(url)} is not below {self._directory}.", status=404)
        try:
            if not path.is_file():
                raise ChannelDown("unreachable", f"{path} is not there.", status=404)
            with path.open("rb") as source:
                length = path.stat().st_size
                if length > cap:
                    raise too_large(url, cap)
                source.seek(start)
                yield Reply(start, length, "", iter(lambda: source.read(CHUNK), b""))
        except OSError as err:
            raise ChannelDown("unreachable", f"{path} cannot be read: {err.strerror}.", "Try another stick.") from err
