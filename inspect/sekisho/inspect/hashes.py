"""Looks a file up in a list of hashes, without reading the list."""

from __future__ import annotations

import mmap


def contains(hashes: bytes | mmap.mmap, key: bytes) -> bool:
    """Whether a sorted sequence of 32-byte hashes holds this one."""
    low, high = 0, len(hashes) // 32
    while low < high:
        middle = (low + high) // 2
        found = hashes[middle * 32 : middle * 32 + 32]
        if found == key:
            return True
        low, high = (middle + 1, high) if found < key else (low, middle)
    return False
