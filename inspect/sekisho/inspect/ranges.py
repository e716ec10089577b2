"""Puts the pieces of one download together again: ranges (RFC 9110 14) and transfers that broke off and go on.

A piece proves nothing about the whole, so what arrived before is kept for a while, by host and URL, and each
piece is judged together with everything before it. Owns memory files only, under one cap; interprets nothing.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

KEEP_S = 3600.0
MAX_DOWNLOADS = 512
MAX_SPANS = 64


@dataclass
class _Download:
    fd: int
    touched: float
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Known (from, to), in order, apart from each other."""
    total: int = 0

    def add(self, start: int, stop: int) -> bool:
        """False when the pieces lie too scattered to keep account of."""
        spans = sorted([*self.spans, (start, stop)])
        joined = [spans[0]]
        for one in spans[1:]:
            if one[0] <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], one[1]))
            else:
                joined.append(one)
        self.spans = joined
        return len(joined) <= MAX_SPANS

    def around(self, place: int) -> tuple[int, int]:
        """What is known without a gap around a known place."""
        return next(span for span in self.spans if span[0] <= place < span[1])

    @property
    def bytes(self) -> int:
        return sum(stop - start for start, stop in self.spans)


class Piece(msgspec.Struct, frozen=True):
    """One download as it is handed to another process, beside its descriptor."""

    key: tuple[str, str]
    touched: float
    spans: list[tuple[int, int]]
    total: int


@dataclass
class Ranges:
    """Downloads in pieces; the one untouched for longest makes room."""

    total_bytes: int
    object_bytes: int
    """A piece beyond this offset is not kept: the whole would be too large to scan."""
    _known: OrderedDict[tuple[str, str], _Download] = field(default_factory=OrderedDict)

    def put(
        self, key: tuple[str, str], start: int, source: int, at: int, length: int, total: int
    ) -> tuple[int, int, int]:
        """Keep `length` bytes of file `source` from `at` as the download's bytes from `start` on.

        Returns (descriptor owned by us or -1, from, to): what is known of the download without a gap around the piece;
        all of it is (0, `total`). -1: the piece cannot be put to others (too large, too many, no name).
        """
        self._expire(time.monotonic())
        stop = start + length
        if length <= 0 or stop > self.object_bytes or not key[1]:
            return -1, 0, 0
        known = self._known.get(key)
        if known is not None and total and known.total and known.total != total:
            self._forget(key)  # the resource has changed: its pieces do not belong together
            known = None
        if known is None:
            known = self._known[key] = _Download(os.memfd_create("range", os.MFD_CLOEXEC), time.monotonic())
        self._known.move_to_end(key)
        known.touched = time.monotonic()
        known.total = known.total or total
        if not self._copy(known, start, source, at, length) or not known.add(start, stop):
            self._forget(key)
            return -1, 0, 0
        self._make_room(key)
        return known.fd, *known.around(start)

    @staticmethod
    def _copy(known: _Download, start: int, source: int, at: int, length: int) -> bool:
        try:
            while length:
                data = os.pread(source, min(length, 1 << 20), at)
                if not data:
                    return False
                os.pwrite(known.fd, data, start)
                start, at, length = start + len(data), at + len(data), length - len(data)
        except OSError:
            return False
        return True

    def _make_room(self, keep: tuple[str, str]) -> None:
        while len(self._known) > 1 and (
            len(self._known) > MAX_DOWNLOADS or sum(d.bytes for d in self._known.values()) > self.total_bytes
        ):
            oldest = next(iter(self._known))
            if oldest == keep:
                return
            self._forget(oldest)

    def _expire(self, now: float) -> None:
        while self._known and now - next(iter(self._known.values())).touched > KEEP_S:
            self._forget(next(iter(self._known)))

    def _forget(self, key: tuple[str, str]) -> None:
        os.close(self._known.pop(key).fd)

    def hand_over(self) -> tuple[list[Piece], list[int]]:
        """What is known, oldest first, and the descriptors, which stay ours."""
        known = self._known.items()
        return [Piece(key, d.touched, d.spans, d.total) for key, d in known], [d.fd for _, d in known]

    def take_over(self, pieces: list[Piece], fds: list[int]) -> None:
        """Go on with what another process knew; the descriptors become ours."""
        for piece, fd in zip(pieces, fds, strict=True):
            self._known[piece.key] = _Download(fd, piece.touched, piece.spans, piece.total)

    def close(self) -> None:
        for key in list(self._known):
            self._forget(key)
