"""The one interface to the content engine: bytes in, names of rules out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import BinaryIO

import yara

MAX_RULES = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What one look may cost: a monotonic deadline, and bytes unpacked in all."""

    deadline: float = 0.0
    expanded: int = 64 << 20


@dataclass(slots=True)
class Finding:
    """Rules that matched, where inside, and why something could not be looked at."""

    rules: list[str] = field(default_factory=list)
    inner: str = ""
    reason: str = ""


class Scanner:
    """Compiled rules, ready to match."""

    def __init__(self, source: BinaryIO) -> None:
        self._rules = yara.load(file=source)

    def look(self, data: bytes | memoryview, *, name: str, limits: Limits) -> Finding:
        """What is found in `data`. Never raises on content."""
        if not len(data):
            return Finding()
        externals = {"filename": name, "filepath": "", "extension": name.rpartition(".")[2].lower()}
        left = max(1, int(limits.deadline - time.monotonic()))
        try:
            matches = self._rules.match(data=data, timeout=left, externals=externals)
        except yara.TimeoutError:
            return Finding(reason="timeout")
        except yara.Error:
            return Finding(reason="damaged")
        return Finding([m.rule for m in matches if "private" not in m.tags][:MAX_RULES])
