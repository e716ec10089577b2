"""The rule file the engine loads, made of a set: muted rules out, rules on trial only reporting, a canary at the end.

A rule's line is changed in its first word alone, or left out whole. One kind of muted rule stays, silent: it keeps
something that other rules ask for (a flow's bit, a variable, a list), and without it those would never speak again.
Written line by line: a set of twenty thousand rules never is in memory as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sekisho.appliance import canary, suricata
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.muting import Muting

MAX_SET_BYTES: Final = 128 << 20
MAX_LINE_BYTES: Final = 64 << 10

_ACTION: Final = re.compile(rb"^[ \t]*(?:drop|reject(?:src|dst|both)?)(?=[ \t])")
_ANY_ACTION: Final = re.compile(rb"^[ \t]*[a-z]+(?=[ \t])")
_SID: Final = re.compile(rb"[;(]\s*sid\s*:\s*(\d{1,10})\s*;")
_KEEPS: Final = re.compile(
    rb"[;(]\s*(?:(?:flowbits|xbits|hostbits)\s*:\s*(?:set|unset|toggle)\b"
    rb"|dataset\s*:\s*(?:set|unset)\b|flowint\s*:[^;,]*,\s*[=+-]\s*,)"
)
"""What a rule leaves behind for others."""


def keeps(rule: bytes) -> bool:
    """Whether other rules may ask for what this one leaves behind: a flow's bit, a variable, a list."""
    return _KEEPS.search(rule) is not None


@dataclass(frozen=True)
class RuleSet:
    """What the engine is to load: one file by absolute path, and how many rules that makes."""

    id: str
    file: Path
    rules: int
    rejection: str = ""
    """Why a newer set is not this one; reported once."""
    policy: Path | None = None
    """The rules of the owner's policy, absolute, beside the signatures."""
    known: Path | None = None
    """The rules that refuse files by their hash, absolute."""

    @property
    def own(self) -> list[Path]:
        """The product's rules, which stand before the signatures."""
        return [suricata.steer_rules(), *(path for path in (self.known, self.policy) if path is not None)]

    @property
    def set_id(self) -> str:
        """The signature set's identifier, without the policy's behind it."""
        return self.id.partition("+")[0]


@dataclass(frozen=True)
class Load:
    """A set as it was given to the engine."""

    wanted: RuleSet
    file: Path
    word: str
    """What the canary packet carries that these rules stop, and no others: it stands for all their bytes."""
    rules: int
    """Of the set."""
    own: int
    """The product's, the canary's among them."""
    muted: int = 0
    soaking: int = 0

    @property
    def files(self) -> list[Path]:
        return [*self.wanted.own, self.file]

    @property
    def expected(self) -> int:
        """Rules the engine must count."""
        return self.rules + self.own

    @property
    def set_id(self) -> str:
        return self.wanted.set_id


def prepare(wanted: RuleSet, muting: Muting, directory: Path, *, detect: bool) -> Load:
    """Write the rule file into `directory` under a name that says what is in it.

    Raises:
        RejectedInput: the set cannot be read, or is not what it says.
        DeviceFault: the file cannot be written.

    """
    found = _Counts()
    sha = hashlib.sha256()
    own = 1
    try:
        for path in wanted.own:
            sha.update(path.read_bytes())
            own += count_rules(path)
        source = wanted.file.open("rb")
    except OSError as err:
        raise RejectedInput(f"Rule set {wanted.id[:12]} cannot be read: {err.strerror}.") from err
    fresh = directory / f".rules.{os.getpid()}.tmp"
    with source:
        try:
            with fresh.open("wb") as out:
                for line in _lines(source, wanted, muting, detect, found):
                    sha.update(line)
                    out.write(line)
                word = sha.hexdigest()[:16]
                out.write(canary.rule(word))
            if found.read != wanted.rules:
                raise RejectedInput(f"Rule set {wanted.id[:12]} holds {found.read} rules instead of {wanted.rules}.")
            file = directory / f"rules-{word}.rules"
            if file.is_dir():
                _clear(file)
            fresh.replace(file)
        except OSError as err:
            raise DeviceFault(f"The rules cannot be written to {directory}: {err.strerror}.") from err
        finally:
            fresh.unlink(missing_ok=True)
    return Load(wanted, file, word, found.rules, own, found.muted, found.soaking)


def prune(directory: Path, *kept: Load) -> None:
    """Delete the rule files of former loads."""
    names = {load.file.name for load in kept}
    for path in directory.glob("rules-*.rules"):
        if path.name not in names:
            _clear(path)


def _clear(path: Path) -> None:
    """Take away what is in the place of a rule file, whatever somebody made of it."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass
class _Counts:
    read: int = 0
    rules: int = 0
    muted: int = 0
    soaking: int = 0


def _lines(source: BinaryIO, wanted: RuleSet, muting: Muting, detect: bool, found: _Counts) -> Iterator[bytes]:
    muted, on_trial = frozenset(muting.sids), frozenset(muting.on_trial)
    octets = 0
    for line in iter(lambda: source.readline(MAX_LINE_BYTES + 1), b""):
        octets += len(line)
        if octets > MAX_SET_BYTES or len(line) > MAX_LINE_BYTES:
            raise RejectedInput(f"Rule set {wanted.id[:12]} is larger than any set may be.")
        rule = line.strip()
        if not rule or rule.startswith(b"#"):
            continue
        found.read += 1
        number = _SID.search(rule) if muted or on_trial else None
        sid = int(number[1]) if number else 0
        if sid in muted:
            found.muted += 1
            if not keeps(rule):
                continue
            rule = silent(rule)
        elif sid in on_trial and _ACTION.match(rule):
            found.soaking += 1
            rule = _ACTION.sub(b"alert", rule)
        elif detect:
            rule = _ACTION.sub(b"alert", rule)
        found.rules += 1
        yield rule + b"\n"


def silent(rule: bytes) -> bytes:
    """The rule, neither stopping nor saying anything, still leaving behind what others ask for."""
    return _ANY_ACTION.sub(b"alert", rule[:-1]) + b" noalert;)"


def count_rules(path: Path) -> int:
    """Rules in a file: lines that are neither empty nor a comment."""
    return sum(1 for line in path.read_bytes().splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
