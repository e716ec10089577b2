"""Zip archives (APPNOTE.TXT 6.3), and what is built on them: OOXML, OpenDocument, jar, apk, self-extracting programs.

Programs differ in what they trust: the central directory, the last or the first of several, or the local headers. So
every member the directory names is opened, and every local header that no such member accounts for as well, wherever
it lies. Compressed data says itself where it ends; sizes and methods count only as further readings.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sekisho.inspect import decode
from sekisho.inspect.containers.archives import archive
from sekisho.inspect.containers.budget import Budget, Bytes
from sekisho.inspect.containers.memory import places

LOCAL: Final = b"PK\x03\x04"
END: Final = b"PK\x05\x06"
END_BYTES: Final = 70_000
"""A directory's end lies within so many bytes of the file's end (APPNOTE 4.3.16: a comment of at most 65,535)."""
_HEADER = struct.Struct("<4s2xHH8xLLHH")  # signature, flags, method, sizes (packed, plain), name, extra
_STORED, _LZMA = 0, 14
_METHODS: Final[dict[int, decode.Kind]] = {8: "raw", 12: "bz2", 93: "zstd", 95: "xz"}
_NAMED: Final = {*range(20), *range(93, 100)}
"""Methods APPNOTE 4.4.5 has a name for."""
_KNOWN: Final = {_STORED, _LZMA, *_METHODS}
_SECRET = 1


@dataclass(frozen=True, slots=True)
class _Local:
    at: int
    start: int
    """Of the content."""
    flags: int
    method: int
    packed: int
    plain: int
    name: bytes


def zipped(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Members of every zip archive in `data`, by directory and by local headers."""
    view = memoryview(data)
    covered: list[tuple[int, int]] = []
    opened = False
    entries = _directory(view)
    for entry in entries:
        local = _local(view, entry.header_offset)
        budget.open_member()
        methods = {entry.compress_type, local.method}
        if (entry.flag_bits | local.flags) & _SECRET:
            budget.note("encrypted")
        size = max(entry.compress_size, local.packed)
        end = 0
        for content, used in _contents(view, local, methods, size, entry.flag_bits & local.flags & _SECRET, budget):
            opened, end = True, local.start + min(used, entry.compress_size)
            yield entry.filename, content
        if not end and entry.file_size and not entry.flag_bits & _SECRET and entry.compress_type in _KNOWN:
            budget.note("damaged")
        if local.method == entry.compress_type and local.packed in (0, entry.compress_size):
            covered.append((local.at, end))
    for local in _unaccounted(view, covered, budget):
        budget.attempt()
        if local.flags & _SECRET and local.at == 0 and local.method in _NAMED:
            budget.note("encrypted")
        for content, _ in _contents(view, local, {local.method, 8}, local.packed, local.flags & _SECRET, budget):
            opened = True
            budget.open_member()
            yield local.name.decode("utf-8", "replace"), content
    if not opened and not entries and bytes(view[:4]) == LOCAL and "encrypted" not in budget.noted:
        budget.note("damaged")


def rare(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Members packed by a method that only libarchive may know (PPMd)."""
    if _strange(_directory(memoryview(data))):
        yield from archive(data, ("zip",), budget)


def _strange(entries: list[zipfile.ZipInfo]) -> bool:
    return any(entry.compress_type not in _KNOWN and not entry.flag_bits & _SECRET for entry in entries)


def _directory(view: memoryview) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(_Reader(view)) as opened:
            return opened.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error, IndexError, EOFError):
        return []  # none, or none that can be read: the local headers remain


def _local(view: memoryview, at: int) -> _Local:
    """The local header at `at`, whether or not it looks like one."""
    head = bytes(view[at : at + _HEADER.size]).ljust(_HEADER.size, b"\0")
    _, flags, method, packed, plain, name, extra = _HEADER.unpack(head)
    start = at + _HEADER.size
    return _Local(at, start + name + extra, flags, method, packed, plain, bytes(view[start : start + name]))


def _unaccounted(view: memoryview, covered: list[tuple[int, int]], budget: Budget) -> Iterator[_Local]:
    covered.sort()
    at, index = 0, 0
    while True:
        hit = next(places(view, LOCAL, at), -1)
        if hit < 0:
            return
        while index < len(covered) and covered[index][1] <= hit:
            index += 1
        if index < len(covered) and covered[index][0] <= hit:
            at = covered[index][1]
            continue
        yield _local(view, hit)
        at = hit + len(LOCAL)


def _contents(
    view: memoryview, local: _Local, methods: set[int], size: int, secret: int, budget: Budget
) -> Iterator[tuple[Bytes, int]]:
    """(content, packed bytes it was read from) by every method that was named and works."""
    body = view[local.start :]
    for method in sorted(methods):
        content: Bytes = b""
        used = size
        if method == _STORED:
            content = body[: 0 if secret else size]
        elif method == _LZMA:
            content = _lzma(body, size, budget)
        elif method in _METHODS:
            plain = decode.unpack(body, _METHODS[method], budget.room, budget.deadline)
            content, used = plain.data, plain.used
        if len(content):
            yield content, used
            budget.take(len(content))


def _lzma(body: memoryview, size: int, budget: Budget) -> bytearray:
    """APPNOTE 5.8.8: version, length of properties, properties, raw LZMA1; read as an .lzma file of unknown size."""
    head = bytes(body[:9])
    if len(head) < 9 or head[2:4] != b"\x05\0":
        return bytearray()
    dictionary = min(int.from_bytes(head[5:9], "little"), 64 << 20)
    alone = head[4:5] + dictionary.to_bytes(4, "little") + b"\xff" * 8 + bytes(body[9 : size or None])
    return decode.unpack(alone, "lzma", budget.room, budget.deadline).data


class _Reader(io.RawIOBase):
    """A memoryview as the file zipfile wants, without a copy."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        if base + offset < 0:
            raise OSError("before the beginning")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = len(self._view) if size is None or size < 0 else self._at + size
        out = bytes(self._view[self._at : end])
        self._at += len(out)
        return out
