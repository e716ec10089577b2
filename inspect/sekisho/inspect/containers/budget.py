"""What opening one file may cost, and what was left unopened."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

Bytes = bytes | bytearray | memoryview

BOMB_RATIO: Final = 100
"""More unpacked bytes than this for one byte of the file are no honest archive's."""
HONEST_BYTES: Final = 1 << 20
"""Below this much nobody is harmed, however well it packs."""
REASONS: Final = ("encrypted", "bomb", "depth", "too_large", "timeout", "damaged")
"""Why a part of a file was not looked at; the first that applies is told."""


class Spent(Exception):
    """The budget is used up: nothing more of this file is opened."""


@dataclass(slots=True)
class Budget:
    """Shared by all levels of one file."""

    size: int
    """Bytes of the file itself."""
    unpacked: int
    """Bytes that may still be unpacked."""
    files: int
    """Members that may still be opened."""
    depth: int
    """Containers in containers that are opened."""
    deadline: float
    """Monotonic."""
    noted: set[str] = field(default_factory=set)
    taken: int = 0
    tries: int = 1 << 16
    """Places that may be tried where a container might begin and does not."""

    @property
    def reasons(self) -> list[str]:
        return [reason for reason in REASONS if reason in self.noted]

    @property
    def room(self) -> int:
        """Bytes the next member may have, and one more, by which its size is seen to be too large."""
        return self.unpacked + 1

    def note(self, reason: str) -> None:
        self.noted.add(reason)

    def check(self) -> None:
        """Raise `Spent` when the time is over."""
        if time.monotonic() > self.deadline:
            self.note("timeout")
            raise Spent

    def open_member(self) -> None:
        """Account for one more member."""
        self.check()
        self.files -= 1
        if self.files < 0:
            self.note("too_large")
            raise Spent

    def attempt(self) -> None:
        """Account for a look at a place that only may be one."""
        self.tries -= 1
        if self.tries < 0:
            self.note("too_large")
            raise Spent
        if not self.tries % 64:
            self.check()

    def take(self, octets: int) -> None:
        """Account for unpacked bytes, which exist already: at most `room` at a time."""
        self.taken += octets
        self.unpacked -= octets
        if self.unpacked < 0:
            self.note("bomb" if self.taken > max(HONEST_BYTES, self.size * BOMB_RATIO) else "too_large")
            raise Spent
