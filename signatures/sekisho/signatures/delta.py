"""Compression of archives, alone and against an earlier archive (zstd with a prefix, RFC 8878).

One frame, which says how long its content is. Whatever a frame claims, no more than the cap is ever made of it, and
the window it may ask memory for is no larger than the largest archive.
"""

from __future__ import annotations

import sys
from typing import Final

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.published import ARCHIVE_CAP

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_LEVEL: Final = 19
_WINDOW_LOG: Final = ARCHIVE_CAP.bit_length() - 1
_SHORTEST_WINDOW_LOG: Final = 10
_SHORTEST_PREFIX: Final = 8
"""The library takes no shorter ones."""
_COMPRESS: Final = zstd.CompressionParameter
_DECOMPRESS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}


def compress(data: bytes) -> bytes:
    """`data` on its own. Takes some seconds for 20 MB; the result depends on the library's version."""
    return _frame(data, None)


def decompress(packed: bytes, cap: int) -> bytes:
    """What `compress` was given.

    Raises:
        RejectedInput: not one whole frame, or its content is longer than `cap` bytes.

    """
    return _content(packed, cap, None)


def make(old: bytes, new: bytes) -> bytes:
    """The way from `old` to `new`; a few kB where they differ little."""
    return _frame(new, old)


def apply(old: bytes, delta: bytes, cap: int) -> bytes:
    """The `new` that `delta` was made of. A delta may be made for anything: compare the result's SHA-256.

    Raises:
        RejectedInput: not one whole frame, not made against `old`, or its content is longer than `cap` bytes.

    """
    return _content(delta, cap, old)


def _frame(data: bytes, prefix: bytes | None) -> bytes:
    reach = (len(data) + len(prefix or b"")).bit_length()
    options: dict[int, int] = {
        _COMPRESS.compression_level: _LEVEL,
        _COMPRESS.window_log: min(max(reach, _SHORTEST_WINDOW_LOG), _WINDOW_LOG),
        _COMPRESS.enable_long_distance_matching: int(prefix is not None),
        _COMPRESS.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=_prefix(prefix))
    compressor.set_pledged_input_size(len(data))
    return compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)


def _content(packed: bytes, cap: int, prefix: bytes | None) -> bytes:
    try:
        told = zstd.get_frame_info(packed[:64]).decompressed_size
        if told is None or told > min(cap, ARCHIVE_CAP):
            raise RejectedInput(f"The download claims to hold {told or 'unknown'} bytes; {cap} are allowed.")
        decompressor = zstd.ZstdDecompressor(zstd_dict=_prefix(prefix), options=_DECOMPRESS)
        data = decompressor.decompress(packed, told + 1)
    except zstd.ZstdError as err:
        raise RejectedInput(f"The download cannot be unpacked: {err}.") from err
    if not decompressor.eof or decompressor.unused_data or len(data) != told:
        raise RejectedInput("The download is cut off, or has something behind its end.")
    return data


def _prefix(content: bytes | None) -> tuple[zstd.ZstdDict, int] | None:
    if content is None or len(content) < _SHORTEST_PREFIX:
        return None
    return zstd.ZstdDict(content, is_raw=True).as_prefix
