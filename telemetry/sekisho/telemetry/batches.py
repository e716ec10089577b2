"""A batch's bytes: one header line, then lines `[seq,lane,event]`, compressed where that pays. No I/O.

The box keeps old rows as exactly these compressed lines, so that what waited for days goes out as it
lies on the disk. Whoever expands them says how large they may become: a few bytes can claim gigabytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

import msgspec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES_CAP: Final = 2 << 20
"""Bytes the lines of one batch may have when expanded; a box stops at half of it."""
WORTH_BYTES: Final = 512
"""Fewer bytes are sent as they are."""
_WINDOW_LOG: Final = 21
"""The expander's memory is bounded too: 2 MiB of window, which holds all a batch may have."""

_COMPRESSION: Final[dict[int, int]] = {
    zstd.CompressionParameter.compression_level: 6,
    zstd.CompressionParameter.checksum_flag: 1,
}


class Row(msgspec.Struct, frozen=True, gc=False):
    """One event and its number."""

    seq: int
    lane: int
    body: bytes


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first line of a batch."""

    v: int
    e: str
    n: int
    z: str = ""
    """"zstd" where the lines are compressed."""
    off: float | msgspec.UnsetType = msgspec.UNSET
    """Seconds to add to each `at`: the box's clock was wrong when these were recorded."""
    again: bool = False
    """The centre had acknowledged all of these before it was restored: people were told of them then."""


_line = msgspec.json.Decoder(tuple[int, int, msgspec.Raw]).decode
_header = msgspec.json.Encoder().encode


def encode_lines(rows: Iterable[Row]) -> bytes:
    return b"".join(b"[%d,%d,%s]\n" % (row.seq, row.lane, row.body) for row in rows)


def decode_lines(lines: bytes) -> list[Row]:
    """The rows of lines that this box has made."""
    decoded = map(_line, lines.splitlines())
    return [Row(seq, lane, bytes(body)) for seq, lane, body in decoded]


def numbers(lines: bytes) -> list[int]:
    """The rows' numbers only, several times as fast."""
    return [int(line[1 : line.index(b",")]) for line in lines.splitlines()]


def compress(lines: bytes) -> bytes:
    """One zstd frame with a checksum: a disk that forgets a bit is found out before anything is sent."""
    return zstd.compress(lines, options=_COMPRESSION)


def expand(packed: bytes, cap: int = LINES_CAP) -> bytes:
    """The lines behind one zstd frame.

    Raises:
        ValueError: not exactly one whole frame, or more than `cap` bytes behind it.

    """
    decompressor = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    try:
        lines = decompressor.decompress(packed, cap + 1)
    except zstd.ZstdError as err:
        raise ValueError(f"cannot be expanded: {err}") from err
    if len(lines) > cap:
        raise ValueError("larger than its cap when expanded")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("not one whole compressed frame")
    return lines


def payload(epoch: str, count: int, lines: bytes, *, packed: bool, off: float = 0.0, again: bool = False) -> bytes:
    """The message: `lines` are compressed here if they are not yet and it pays."""
    if not packed and len(lines) >= WORTH_BYTES:
        smaller = compress(lines)
        if len(smaller) < len(lines) * 9 // 10:
            packed, lines = True, smaller
    return _header(Header(1, epoch, count, "zstd" if packed else "", off or msgspec.UNSET, again)) + b"\n" + lines
