"""The compiled rules of a set as files: opened for each worker, and held while they are the last good ones."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

MAX_SAID: Final = 1 << 20
"""Bytes of a set's description."""


class Said(msgspec.Struct, frozen=True):
    """What a set's own description (set.json) says of its YARA rules; nothing where there is none."""

    id: str = ""
    yara_rules: int = 0
    yara_sha256: str = ""


def opened(path: str | Path) -> tuple[int, int]:
    """Descriptors of the rules and of the hash list beside them, -1 where there is none; the caller closes them.

    Raises:
        OSError: there are no rules.

    """
    rules = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    known = -1
    with contextlib.suppress(OSError):
        known = os.open(Path(path).with_name("known.bin"), os.O_RDONLY | os.O_CLOEXEC)
    return rules, known


@dataclass
class Compiled:
    """Rules that stay readable when their directory is gone."""

    path: str
    fds: tuple[int, int]
    info: Said

    @classmethod
    def open(cls, path: str) -> Self | None:
        """None where they are gone already."""
        try:
            return cls(path, opened(path), cls.said(path))
        except OSError:
            return None

    @staticmethod
    def said(path: str) -> Said:
        """The description beside the rules."""
        try:
            with Path(path).with_name("set.json").open("rb") as source:
                return msgspec.json.decode(source.read(MAX_SAID), type=Said)
        except (OSError, msgspec.MsgspecError):
            return Said()

    def again(self) -> tuple[int, int]:
        """Descriptors of their own, each at its beginning; the caller closes them.

        Raises:
            OSError: no descriptors left.

        """
        rules, known = (
            os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC) if fd >= 0 else -1 for fd in self.fds
        )
        return rules, known

    def close(self) -> None:
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
