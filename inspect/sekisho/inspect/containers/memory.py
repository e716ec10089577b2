"""Addresses of read-only buffers, and a search in them: no copy of a 64 MB file is made to look into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import cffi

from sekisho.inspect.containers.budget import Bytes

_ffi = cffi.FFI()
_ffi.cdef("void *memmem(const void *hay, size_t hay_bytes, const void *needle, size_t needle_bytes);")
_libc = _ffi.dlopen(None)


@contextmanager
def address(data: Bytes) -> Iterator[int]:
    """Where `data` lies, for C that only reads; valid inside the `with`."""
    with _ffi.from_buffer(data) as held:
        yield int(_ffi.cast("uintptr_t", held))


def places(data: Bytes, needle: bytes, start: int = 0) -> Iterator[int]:
    """Offsets of `needle` in `data`, ascending, overlapping ones left out."""
    size = len(data)
    while start < size:
        with _ffi.from_buffer(data) as held:
            base = int(_ffi.cast("uintptr_t", held))
            hit = int(_ffi.cast("uintptr_t", _libc.memmem(held + start, size - start, needle, len(needle))))
        if not hit:
            return
        yield hit - base
        start = hit - base + len(needle)


def holds(data: Bytes, needle: bytes) -> bool:
    """Whether `needle` is anywhere in `data`."""
    return next(places(data, needle), -1) >= 0
