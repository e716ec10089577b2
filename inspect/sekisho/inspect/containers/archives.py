"""Archives that libarchive reads: 7z, RAR 4 and 5, cabinet, tar, ISO 9660, cpio, ar, LHA, xar, and rare kinds of zip.

Only formats are enabled that are asked for, and at most one filter: layers of compression are levels of their own, so
that the budget sees them, and no filter can start a program. Names are taken as bytes; none is ever a path here.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Generator, Iterator

os.environ.setdefault("LIBARCHIVE", "libarchive.so.13")  # the name; looking for it would start a compiler
from libarchive import ffi
from libarchive.exception import ArchiveError

from sekisho.inspect.containers.budget import Budget, Bytes
from sekisho.inspect.containers.memory import address

ffi.logger.disabled = True
_is_encrypted = ffi.ffi("entry_is_encrypted", [ffi.c_archive_entry_p], ctypes.c_int)
_SECRET = ("encrypt", "passphrase", "password", "crypto")
"""Words in libarchive's messages where a format has no flag for it."""
_EMPTY = 128
"""An archive of no members is smaller."""
_DIRECTORY, _FILE, _KIND = 0o040000, 0o100000, 0o170000


def archive(
    data: Bytes, formats: tuple[str, ...], budget: Budget, *, sure: bool = True, layer: str = "none"
) -> Iterator[tuple[str, Bytes]]:
    """Members of `data` read as one of `formats`; with `sure`, what cannot be read at all is noted as damaged.

    `layer` is a compression around it that only libarchive knows, "raw" the format of what is in it.
    """
    reader = ffi.read_new()
    try:
        with address(data) as start:
            for name in formats:
                ffi.get_read_format_function(name)(reader)
            ffi.get_read_filter_function(layer)(reader)
            ffi.read_open_memory(reader, start, len(data))
            count = yield from _entries(reader, budget)
        if sure and not count and len(data) > _EMPTY:
            budget.note("damaged")  # a later volume, or a kind that this library passes over in silence
    except ArchiveError as err:
        if any(word in str(err.msg).lower() for word in _SECRET):
            budget.note("encrypted")
        elif sure:
            budget.note("damaged")
    finally:
        ffi.read_free(reader)


def _entries(reader: int, budget: Budget) -> Generator[tuple[str, Bytes], None, int]:
    """Members with content; returns how many there were in all."""
    entry, count = ffi.entry_new(), 0
    try:
        while ffi.read_next_header2(reader, entry) != ffi.ARCHIVE_EOF:
            budget.open_member()
            count += 1
            name = (ffi.entry_pathname(entry) or b"").decode("utf-8", "replace")
            if ffi.entry_filetype(entry) & _KIND == _DIRECTORY:
                continue
            content, error = _content(reader, budget)
            secret = _is_encrypted(entry) > 0 or any(word in error.lower() for word in _SECRET)
            if (
                secret
                or error
                or (not content and ffi.entry_filetype(entry) & _KIND == _FILE and ffi.entry_size(entry) > 0)
            ):
                budget.note("encrypted" if secret else "damaged")
            if content:
                yield name, content
            budget.take(len(content))
        return count
    finally:
        ffi.entry_free(entry)


def _content(reader: int, budget: Budget) -> tuple[bytearray, str]:
    """(all that can be read of the current member, up to the budget's room; the error that ended it)."""
    content, room = bytearray(), budget.room
    block, length, offset = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_longlong()
    try:
        while len(content) < room:
            if ffi.read_data_block(reader, block, length, offset) == ffi.ARCHIVE_EOF:
                break
            if block.value and length.value:
                content += ctypes.string_at(block.value, min(length.value, room - len(content)))
            budget.check()
    except ArchiveError as err:
        return content, str(err.msg) or "unreadable"
    return content, ""
