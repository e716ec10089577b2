"""Whose hardware a MAC address is: the registry's public listing, shipped compressed (`setup/oui.py` makes it).

`Vendors` costs about 2 MB and 0.1 s once, and a binary search for each question. A locally administered address
(a phone that invents one for each network) has no vendor.
"""

from __future__ import annotations

import lzma
from array import array
from bisect import bisect_left
from functools import cache
from importlib.resources import files
from typing import Final

PREFIX_BITS: Final = (36, 28, 24)
"""The longest assignment wins: a block of 24 bits may have been handed on in parts."""
_BITS: Final = 48


def is_random(mac: str) -> bool:
    """The address was invented by the device (IEEE 802-2014 8.4.2, locally administered)."""
    return int(mac[:2], 16) & 3 == 2


class Vendors:
    """The listing: keys (prefix in its place, its length below) in order, and where each one's name is."""

    def __init__(self, listing: bytes | None = None) -> None:
        """Read `listing` (name, tab, prefixes), by default the one that ships."""
        if listing is None:
            listing = lzma.decompress(files(__package__).joinpath("oui.xz").read_bytes())
        self._text = listing
        found: list[tuple[int, int]] = []
        at = 0
        for line in listing.split(b"\n"):
            for prefix in line.partition(b"\t")[2].split():
                found.append((_key(int(prefix, 16), 4 * len(prefix)), at))
            at += len(line) + 1
        found.sort()
        self._keys = array("Q", (key for key, _ in found))
        self._lines = array("I", (line for _, line in found))

    def of(self, mac: str) -> str:
        """The vendor's name; empty when nobody has registered the prefix."""
        if is_random(mac):
            return ""
        number = int(mac.replace(":", ""), 16)
        for bits in PREFIX_BITS:
            key = _key(number >> (_BITS - bits), bits)
            at = bisect_left(self._keys, key)
            if at < len(self._keys) and self._keys[at] == key:
                line = self._lines[at]
                return self._text[line : self._text.index(b"\t", line)].decode()
        return ""


def _key(prefix: int, bits: int) -> int:
    return prefix << (_BITS - bits) << 8 | bits


@cache
def shipped() -> Vendors:
    """The listing that ships, read once."""
    return Vendors()
