"""Which YARA files can be taken: those that compile by themselves and leave clean samples alone. And what they weigh.

A box compiles all files at once, and one broken file refuses the set there: so it is left out here, and named.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.model import COMPILER_BYTES, COMPILER_SECONDS, Source

COMPILED = "weighed"
"""Name of the compiled rules that `weigh` leaves in its directory."""
_OUTPUT_BYTES = 32 << 20
_CHILD = "sekisho.signatures.press."


class Tried(msgspec.Struct, frozen=True):
    """One file, its rules, and why it cannot be taken; empty when it can."""

    file: str
    names: list[str]
    why: str


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes: of the compiler at its peak, and of a process that has the rules loaded and used them."""

    peak_mb: int
    rest_mb: int


def tried(sources: Sequence[Source], work: Path, clean: str = "") -> list[Tried]:
    """Every file by itself, compiled and on clean samples. `clean`: a directory of more files no rule may find.

    Raises:
        RejectedInput: the child ended before it said something of every file; the next one is to blame.

    """
    return _each("try", sources, work, clean)


def named(sources: Sequence[Source], work: Path) -> list[Tried]:
    """The rules in every file, by name. Raises as `tried` does."""
    return _each("name", sources, work, "")


def _each(verb: str, sources: Sequence[Source], work: Path, clean: str) -> list[Tried]:
    folder = _written(sources, work / "each")
    output = _child("yara_try", [verb, str(folder), *([clean] if clean else [])])
    try:
        found = [msgspec.json.decode(line, type=Tried) for line in output.splitlines()]
    except msgspec.DecodeError:
        found = []
    if len(found) != len(sources):
        blamed = sorted(source.name for source in sources)[len(found)]
        raise RejectedInput(f"The YARA file {blamed} breaks the compiler, or takes too long.", "Leave it out.")
    return found


def weigh(sources: Sequence[Source], work: Path) -> Weight:
    """What the rules together take.

    Raises:
        RejectedInput: they cannot be compiled or loaded within the limits a box has.

    """
    folder = _written(sources, work / "together")
    compiled = work / COMPILED
    compiled.unlink(missing_ok=True)
    peak = _child("yara_weigh", ["compile", str(folder), str(compiled)])
    rest = _child("yara_weigh", ["load", str(compiled)])
    if not peak.strip().isdigit() or not rest.strip().isdigit():
        raise RejectedInput("The YARA rules cannot be compiled and loaded within the limits a box has.")
    return Weight(peak_mb=int(peak) >> 10, rest_mb=int(rest) >> 10)


def missed(compiled: Path, directory: str) -> list[str]:
    """The files below a directory that the compiled rules do not find.

    Raises:
        RejectedInput: the child ended without saying so.

    """
    try:
        return msgspec.json.decode(_child("yara_weigh", ["find", str(compiled), directory]), type=list[str])
    except msgspec.DecodeError as err:
        raise RejectedInput(f"Scanning {directory} with the YARA rules took too long or too much memory.") from err


def _written(sources: Sequence[Source], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for source in sources:
        (folder / source.name).write_bytes(source.data)
    return folder


def _child(module: str, options: list[str]) -> bytes:
    limits = [
        "prlimit",
        f"--cpu={COMPILER_SECONDS * 2}",
        f"--as={COMPILER_BYTES}",
        f"--fsize={1 << 29}",
        "--core=0",
        "--",
    ]
    argv = [*limits, sys.executable, "-I", "-m", _CHILD + module, *options]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMPILER_SECONDS * 4, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise RejectedInput("Trying the YARA rules took too long, or could not be started.") from err
    return done.stdout[:_OUTPUT_BYTES]
