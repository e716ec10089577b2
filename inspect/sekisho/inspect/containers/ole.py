"""Compound files ([MS-CFB]: old Office documents, .msi, .msg, encrypted Office documents) and the macros in them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import olefile

from sekisho.inspect.containers.budget import Budget, Bytes
from sekisho.inspect.containers.memory import places

MAGIC: Final = olefile.MAGIC
_ENCRYPTED: Final = {"encryptedpackage", "\x06dataspaces/encryptedpackage"}
_MACRO_MARK: Final = b"\0Attribut"
"""Inside every compressed VBA module, three bytes behind its beginning ([MS-OVBA] 2.3.4.3): its first literal run."""
_FILEPASS: Final = 0x002F


def compound(data: Bytes, budget: Budget) -> Iterator[tuple[str, Bytes]]:
    """Every stream of the file, and the source text of every macro."""
    try:
        with olefile.OleFileIO(io.BytesIO(data), raise_defects=olefile.DEFECT_FATAL) as ole:
            for path in ole.listdir(streams=True, storages=False):
                budget.open_member()
                yield from _stream(ole, path, budget)
    except (OSError, ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError):
        budget.note("damaged")  # olefile on a broken file; what it gave before counts


def _stream(ole: olefile.OleFileIO, path: list[str], budget: Budget) -> Iterator[tuple[str, Bytes]]:
    name = "/".join(path)
    with ole.openstream(path) as stream:
        content = stream.read(budget.room)
    if name.lower() in _ENCRYPTED or _protected(name, content):
        budget.note("encrypted")
    if content:
        yield path[-1].lstrip("\x01\x03\x05"), content
        budget.take(len(content))
    for at in places(content, _MACRO_MARK):
        budget.attempt()
        source = decompressed(memoryview(content)[at - 3 :]) if at >= 3 else b""
        if source:
            yield path[-1] + ".vba", source
            budget.take(len(source))


def _protected(name: str, content: bytes) -> bool:
    """Whether an old Word or Excel document says that it is encrypted ([MS-DOC] 2.5.2, [MS-XLS] 2.4.117)."""
    if name == "WordDocument":
        return len(content) > 12 and bool(content[11] & 1)
    if name not in ("Workbook", "Book"):
        return False
    at = 0
    for _ in range(8):  # FILEPASS follows the first BOF closely
        kind, length = (
            int.from_bytes(content[at : at + 2], "little"),
            int.from_bytes(content[at + 2 : at + 4], "little"),
        )
        if kind == _FILEPASS:
            return True
        at += 4 + length
    return False


def decompressed(data: Bytes, limit: int = 8 << 20) -> bytes:
    """A VBA compressed container ([MS-OVBA] 2.4.1) as text, as far as it goes; empty when it is none."""
    if len(data) < 3 or data[0] != 1:
        return b""
    out, at = bytearray(), 1
    while at + 2 <= len(data) and len(out) < limit:
        header = data[at] | data[at + 1] << 8
        end = min(at + (header & 0xFFF) + 3, len(data))
        if (header >> 12) & 7 != 3:
            break
        at += 2
        if header & 0x8000:
            _chunk(data[at:end], out)
        else:
            out += data[at : at + 4096]
        at = end
    return bytes(out)


def _chunk(data: Bytes, out: bytearray) -> None:
    """One compressed chunk of at most 4096 bytes ([MS-OVBA] 2.4.1.3.2)."""
    start, at = len(out), 0
    while at < len(data) and len(out) - start < 4096:
        flags, at = data[at], at + 1
        for bit in range(8):
            if at >= len(data):
                return
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 2 > len(data):
                return
            token = data[at] | data[at + 1] << 8
            at += 2
            bits = max((len(out) - start - 1).bit_length(), 4)
            length = (token & (0xFFFF >> bits)) + 3
            offset = (token >> (16 - bits)) + 1
            if offset > len(out) - start:
                return
            for _ in range(length):
                out.append(out[-offset])
