"""Zip archives (APPNOTE.TXT 6.3), and what is built on them: OOXML, OpenDocument, jar, apk, self-extracting programs.

Programs differ in what they trust: the central directory, the last or the first of several, or the local headers. So
every member the directory names is opened, and every local header that no such member accounts for as well, wherever
it lies. Compressed data says itself where it ends; sizes and methods count only as further readings.
"""

from __future__ import annotations

import io
import lzma
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
_HEADER = struct.Struct("<4s2xHH8xLLHH")  # signature, flags, method, sizes (packed, plain), name, extra
_STORED, _LZMA = 0, 14
_METHODS: Final[dict[int, decode.Kind]] = {8: "raw", 12: "bz2", 93: "zstd", 95: "xz"}
_RARE: Final = 9
"""Deflate64, and what else only libarchive may know (98, PPMd)."""
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
    rare = opened = False
    for entry in _directory(view):
        local = _local(view, entry.header_offset)
        budget.open_member()
        methods = {entry.compress_type, local.method}
        rare |= not methods & {_STORED, _LZMA, *_METHODS}
        if (entry.flag_bits | local.flags) & _SECRET:
            budget.note("encrypted")
        size = max(entry.compress_size, local.packed)
        for content in _contents(view, local, methods, size, (entry.flag_bits & local.flags) & _SECRET, budget):
            opened = True
            yield entry.filename, content
        if local.method == entry.compress_type and local.packed in (0, entry.compress_size):
            covered.append((local.at, local.start + entry.compress_size))
    for local in _unaccounted(view, covered, budget):
        budget.attempt()
        if local.flags & _SECRET and local.at == 0:
            budget.note("encrypted")
        for content in _contents(view, local, {local.method, 8}, local.packed, local.flags & _SECRET, budget):
            opened = True
            budget.open_member()
            yield local.name.decode("utf-8", "replace"), content
    if rare or (not opened and bytes(view[:4]) == LOCAL):
        yield from archive(data, ("zip",), budget)


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
) -> Iterator[Bytes]:
    for method in sorted(methods):
        body = view[local.start :]
        if method == _STORED:
            content: Bytes = body[: 0 if secret else size]
        elif method == _LZMA:
            content = _lzma(body, budget.room)
        elif method in _METHODS:
            content = decode.unpack(body, _METHODS[method], budget.room, budget.deadline).data
        else:
            continue
        if len(content):
            yield content
            budget.take(len(content))


def _lzma(body: memoryview, room: int) -> bytes:
    """APPNOTE 5.8.8: version, length of the properties, properties, raw LZMA1."""
    head = bytes(body[:9])
    if len(head) < 9 or head[2:4] != b"\x05\0" or head[4] >= 225:
        return b""
    props, dictionary = head[4], min(int.from_bytes(head[5:9], "little"), 64 << 20)
    spec = {"id": lzma.FILTER_LZMA1, "dict_size": max(dictionary, 4096), "lc": props % 9}
    spec |= {"lp": props // 9 % 5, "pb": props // 45}
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[spec]).decompress(body[9:], room)
    except lzma.LZMAError:
        return b""


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
