"""The one interface to content inspection: a file in, names of rules out, and what could not be looked at.

A look matches the file itself and everything in it (containers.walk). Verdicts of contents are remembered by SHA-256
and name; the memory goes with the worker, and workers are replaced when rules change. Runs in scan workers only.
"""

from __future__ import annotations

import hashlib
import mmap
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import yara

from sekisho.appliance.core.known import BY_FLEET
from sekisho.inspect.containers import walk
from sekisho.inspect.containers.budget import Budget, Bytes
from sekisho.inspect.containers.warm import warm
from sekisho.inspect.fleet import Listed
from sekisho.inspect.hashes import contains

MAX_RULES: Final = 16
KNOWN_FILE: Final = "known_file"
"""Told in the place of a rule for a file whose hash is listed."""
MAX_REMEMBERED: Final = 8192


@dataclass(frozen=True, slots=True)
class Limits:
    """What one look may cost; docs/limits.md says what happens at each."""

    deadline: float = 0.0
    """Monotonic."""
    expanded: int = 128 << 20
    """Bytes unpacked in all."""
    depth: int = 6
    """Containers in containers."""
    files: int = 5000
    """Members in all."""


@dataclass(slots=True)
class Finding:
    """Rules that matched, where inside, and why something could not be looked at."""

    rules: list[str] = field(default_factory=list)
    inner: str = ""
    """Path of the member that matched, with "/" between levels; empty = the file itself."""
    reason: str = ""
    """The first of `reasons`."""
    reasons: list[str] = field(default_factory=list)
    """Why parts were not looked at: budget.REASONS, in their order. With `rules` it is empty: it is malicious."""
    sha256: str = ""


class Scanner:
    """Compiled rules, ready to match."""

    def __init__(self, source: BinaryIO, known: bytes | mmap.mmap = b"", fleet: Listed | None = None) -> None:
        """`known`: sorted 32-byte hashes of malicious files, which no rule need recognise; `fleet`: other boxes'."""
        warm()
        self._rules = yara.load(file=source)
        self._names = frozenset(rule.identifier for rule in self._rules)
        self.loaded = sum(1 for _ in self._rules)
        """Rules there are."""
        self._muted: frozenset[str] = frozenset()
        self._known = known
        self._fleet = fleet
        self._fleet_number = 0
        self._clean: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._looked: OrderedDict[tuple[str, str], Finding] = OrderedDict()
        self._bad: OrderedDict[str, list[str]] = OrderedDict()

    @property
    def muted(self) -> int:
        """How many of them count for nothing."""
        return len(self._muted & self._names)

    def mute(self, names: tuple[str, ...]) -> None:
        """From now on matches of these rules count for nothing; what was found before is looked at anew."""
        if len(names) == len(self._muted) and self._muted.issuperset(names):
            return
        self._muted = frozenset(names)
        self._clean.clear()
        self._looked.clear()
        self._bad.clear()

    def catches(self, canary: bytes) -> bool:
        """Whether the rules, muted or not, find `canary` within a second, and find nothing in it backwards."""
        externals = dict.fromkeys(("filename", "filepath", "extension"), "")
        try:
            hit, none = (
                self._rules.match(data=data, timeout=1, externals=externals, fast=True)
                for data in (canary, canary[::-1])
            )
        except (yara.TimeoutError, yara.Error):
            return False
        return bool(hit) and not none

    def look(self, data: bytes | memoryview, *, name: str, limits: Limits) -> Finding:
        """What is found in `data` and everything it carries.

        Never raises on content, except MemoryError where not even the file itself could be matched. Treat what comes
        back as frozen: it may be remembered.
        """
        if not len(data):
            return Finding()
        if self._fleet is not None and self._fleet.number != self._fleet_number:
            self._fleet_number = self._fleet.number
            self._looked.clear()
        finding = Finding(sha256=hashlib.sha256(data).hexdigest())
        again = self._looked.get((finding.sha256, name))
        if again is not None:
            return again
        budget = Budget(len(data), limits.expanded, limits.files, limits.depth, limits.deadline)
        if self._match(data, finding.sha256, name, finding, budget):
            return finding
        try:
            for member in walk.members(data, name, budget, finding.sha256):
                if self._match(member.content, member.digest, member.name, finding, budget):
                    finding.inner = member.path
                    return finding
        except MemoryError:
            budget.note("too_large")  # the file itself and every member so far have been matched
        finding.reasons = budget.reasons
        finding.reason = finding.reasons[0] if finding.reasons else ""
        if "timeout" not in finding.reasons:
            self._looked[finding.sha256, name] = finding
            if len(self._looked) > MAX_REMEMBERED:
                self._looked.popitem(last=False)
        return finding

    def _match(self, data: Bytes, digest: str, name: str, finding: Finding, budget: Budget) -> bool:
        """Whether rules match; they are in `finding` then. What is known to be clean is not matched again."""
        key = (digest, name)
        if self._fleet is not None and digest not in self._bad and bytes.fromhex(digest) in self._fleet:
            finding.rules = [BY_FLEET]
            return True
        if key in self._clean:
            self._clean.move_to_end(key)
            return False
        if digest in self._bad or contains(self._known, bytes.fromhex(digest)):
            finding.rules = self._bad.get(digest, [KNOWN_FILE])
            return True
        externals = {"filename": name, "filepath": "", "extension": name.rpartition(".")[2].lower()}
        left = max(1, int(budget.deadline - time.monotonic()))
        try:
            matches = self._rules.match(
                data=data, timeout=left, externals=externals, fast=True, which_callbacks=yara.CALLBACK_MATCHES
            )
        except yara.TimeoutError:
            budget.note("timeout")
            return False
        except yara.Error:
            budget.note("damaged")
            return False
        finding.rules = [m.rule for m in matches if m.rule not in self._muted][:MAX_RULES]
        if finding.rules:
            self._bad[digest] = finding.rules
            if len(self._bad) > MAX_REMEMBERED:
                self._bad.popitem(last=False)
        else:
            self._clean[key] = None
            if len(self._clean) > MAX_REMEMBERED:
                self._clean.popitem(last=False)
        return bool(finding.rules)
