"""Whether a RAR 5 archive is encrypted: libarchive reads names and says "damaged" of the rest.

Technical note "RAR 5.0 archive format": a block is CRC32, then variable-length integers for header size, type, flags,
and the sizes of its extra area and its data. Only the chain of blocks is followed.
"""

from __future__ import annotations

from typing import Final

from sekisho.inspect.containers.budget import Bytes

MAGIC: Final = b"Rar!\x1a\x07\x01\x00"
MAX_BLOCKS: Final = 10_000
_FILE, _SERVICE, _ENCRYPTION, _END = 2, 3, 4, 5
_HAS_EXTRA, _HAS_DATA = 1, 2
_RECORD_ENCRYPTION = 1


def encrypted(data: Bytes) -> bool:
    """Whether any block of the RAR 5 archive at the beginning of `data` says so."""
    view = memoryview(data)
    at = len(MAGIC)
    for _ in range(MAX_BLOCKS):
        size, begin = _number(view, at + 4)
        kind, here = _number(view, begin)
        flags, here = _number(view, here)
        if not size or kind == _END or begin + size > len(view):
            return False
        extra, here = _number(view, here) if flags & _HAS_EXTRA else (0, here)
        content, here = _number(view, here) if flags & _HAS_DATA else (0, here)
        if kind == _ENCRYPTION:
            return True
        if (
            kind in (_FILE, _SERVICE)
            and extra <= size
            and _RECORD_ENCRYPTION in _records(view[begin + size - extra : begin + size])
        ):
            return True
        at = begin + size + content
    return False


def _records(extra: memoryview) -> set[int]:
    kinds, at = set(), 0
    while at < len(extra):
        size, begin = _number(extra, at)
        if not size:
            break
        kinds.add(_number(extra, begin)[0])
        at = begin + size
    return kinds


def _number(view: memoryview, at: int) -> tuple[int, int]:
    """(value, offset behind it) of a variable-length integer of at most 10 bytes."""
    value = 0
    for place, byte in enumerate(view[at : at + 10]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return 0, at + 10
