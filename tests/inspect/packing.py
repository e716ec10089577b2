"""Containers made for tests: with the real programs where there are any, by their published formats where not."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import zipfile
import zlib
from pathlib import Path


def zipped(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


def tarred(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def bsdtar(folder: Path, data: bytes, *arguments: str, name: str = "member.bin") -> bytes:
    """What bsdtar makes of one file."""
    (folder / name).write_bytes(data)
    done = subprocess.run(
        ["bsdtar", "-cf", "-", *arguments, name], cwd=folder, capture_output=True, check=True, timeout=30
    )
    return done.stdout


def _vint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _rar5_block(fields: bytes) -> bytes:
    body = _vint(len(fields)) + fields
    return struct.pack("<I", zlib.crc32(body)) + body


def rar5(name: str, data: bytes, *, secret: bool = False, secret_names: bool = False) -> bytes:
    """A RAR 5 archive with one stored member; `secret` gives it an encryption record, as WinRAR writes."""
    extra = b"\x31\x01\x00\x00\x0f" + bytes(45) if secret else b""  # size, type 1, version, flags, KDF count, salt, IV
    flags = _vint(2 | (1 if extra else 0)) + (_vint(len(extra)) if extra else b"") + _vint(len(data))
    fields = _vint(0) + _vint(len(data)) + _vint(0o100644) + _vint(0) + _vint(0) + _vint(len(name)) + name.encode()
    file = _rar5_block(_vint(2) + flags + fields + extra) + data
    if secret_names:
        return b"Rar!\x1a\x07\x01\0" + _rar5_block(b"\x04\0\0\0\x0f" + bytes(16)) + bytes(200)
    return b"Rar!\x1a\x07\x01\0" + _rar5_block(b"\x01\0\0") + file + _rar5_block(b"\x05\0\0")


def rar4(name: str, data: bytes, *, secret: bool = False) -> bytes:
    """A RAR 4 archive with one stored member."""

    def block(kind: int, flags: int, rest: bytes, size: int = 0) -> bytes:
        body = struct.pack("<BHH", kind, flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(body) & 0xFFFF) + body

    encoded = name.encode()
    rest = struct.pack("<IIBIIBBHI", len(data), len(data), 2, zlib.crc32(data), 0, 29, 0x30, len(encoded), 0x20)
    file = block(0x74, 0x8000 | (4 if secret else 0), rest + encoded) + data
    return b"Rar!\x1a\x07\0" + block(0x73, 0, bytes(6)) + file + block(0x7B, 0x4000, b"")


def cab(name: str, data: bytes) -> bytes:
    """A cabinet ([MS-CAB] 2) with one stored member of at most 32 KB."""
    encoded = name.encode() + b"\0"
    files = 36 + 8
    content = files + 16 + len(encoded)
    size = content + 8 + len(data)
    head = struct.pack("<4sIIIIIBBHHHHH", b"MSCF", 0, size, 0, files, 0, 3, 1, 1, 1, 0, 0, 0)
    folder = struct.pack("<IHH", content, 1, 0)
    file = struct.pack("<IIHHHH", len(data), 0, 0, 0x21, 0, 0x20) + encoded
    return head + folder + file + struct.pack("<IHH", 0, len(data), len(data)) + data


def compound(*streams: tuple[str, bytes]) -> bytes:
    """A compound file ([MS-CFB] version 3) with streams of at least 4096 bytes each, padded with zeros."""
    fat: list[int] = []
    directory = [_entry("Root Entry", 5, 0xFFFFFFFE, 0, child=1 if streams else 0xFFFFFFFF)]
    body = b""
    for index, (name, data) in enumerate(streams):
        data = data.ljust(4096, b"\0")
        data += bytes(-len(data) % 512)
        start = len(fat)
        fat += [*range(start + 1, start + len(data) // 512), 0xFFFFFFFE]
        body += data
        directory.append(_entry(name, 2, start, len(data), right=index + 2 if index + 1 < len(streams) else 0xFFFFFFFF))
    entries = b"".join(directory)
    entries += bytes(-len(entries) % 512)
    first = len(fat)
    fat += [*range(first + 1, first + len(entries) // 512), 0xFFFFFFFE]
    body += entries
    sectors = (len(fat) * 4 + 511) // 512 + 1
    places = list(range(len(fat), len(fat) + sectors))
    fat += [0xFFFFFFFD] * sectors
    table = b"".join(struct.pack("<I", n) for n in fat).ljust(sectors * 512, b"\xff")
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    head += struct.pack("<IIIIIIIII", 0, sectors, first, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    head += b"".join(struct.pack("<I", n) for n in places).ljust(436, b"\xff")
    return head + body + table


def _entry(name: str, kind: int, start: int, size: int, *, child: int = 0xFFFFFFFF, right: int = 0xFFFFFFFF) -> bytes:
    encoded = name.encode("utf-16-le") + b"\0\0"
    links = struct.pack("<III", 0xFFFFFFFF, right, child)
    head = encoded.ljust(64, b"\0") + struct.pack("<HBB", len(encoded), kind, 1)
    return head + links + bytes(36) + struct.pack("<IQ", start, size)


def macro(text: bytes) -> bytes:
    """A VBA compressed container ([MS-OVBA] 2.4.1) in which only the first characters lie as they are."""
    out = bytearray(b"\x01")
    for begin in range(0, len(text), 4096):
        chunk = bytearray()
        piece = text[begin : begin + 4096]
        at = 0
        while at < len(piece):
            flags, tokens = 0, bytearray()
            for bit in range(8):
                if at >= len(piece):
                    break
                offset, length = _longest(piece, at)
                if length >= 3:
                    bits = max((at - 1).bit_length(), 4)
                    tokens += struct.pack("<H", (offset - 1) << (16 - bits) | (length - 3))
                    flags |= 1 << bit
                    at += length
                else:
                    tokens.append(piece[at])
                    at += 1
            chunk += bytes([flags]) + tokens
        out += struct.pack("<H", 0xB000 | (len(chunk) - 1)) + chunk
    return bytes(out)


def _longest(piece: bytes, at: int) -> tuple[int, int]:
    bits = max((at - 1).bit_length(), 4) if at else 4
    for length in range(min(0xFFFF >> bits, 40, len(piece) - at), 2, -1):
        found = piece.rfind(piece[at : at + length], 0, at + length - 1)
        if 0 <= found < at and at - found <= 1 << bits:
            return at - found, length
    return 0, 0
