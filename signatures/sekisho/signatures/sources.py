"""Reads rule and YARA directories under caps, and splits rule files into rules. Looks into no folder below them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from sekisho.appliance.core.errors import RejectedInput
from sekisho.signatures.model import (
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_HASH_BYTES,
    MAX_RULE_BYTES,
    MAX_TOTAL_BYTES,
    Refused,
    Rule,
    Source,
)

SHIPPED = Path(__file__).parent / "shipped"
STEERING = range(9000000, 9000100)
"""Identifiers of the box's own steering rules, which no set may take."""

_ACTION = re.compile(r"(alert|drop|pass|reject|rejectsrc|rejectdst|rejectboth|config)\s")
_SID = re.compile(r"[;(]\s*sid\s*:\s*(\d{1,10})\s*;")
_HASH = re.compile(rb"[0-9a-fA-F]{64}")
_REV = re.compile(r"[;(]\s*rev\s*:\s*(\d{1,10})\s*;")


def read_directory(directory: Path, suffixes: tuple[str, ...]) -> list[Source]:
    """Every file of `directory` (not below it) with one of `suffixes`, by name.

    Raises:
        RejectedInput: unreadable, no such file in it, not a plain file, or past a cap.

    """
    try:
        names = sorted(path.name for path in directory.iterdir() if path.suffix in suffixes and path.name[0] != ".")
    except OSError as err:
        raise RejectedInput(f"{directory}: {err.strerror}.") from err
    if not names:
        raise RejectedInput(f"{directory} holds no {' or '.join(suffixes)} file.", "An empty set would protect nobody.")
    if len(names) > MAX_FILES:
        raise RejectedInput(f"{directory} holds {len(names)} files; at most {MAX_FILES} are read.")
    found = []
    left = MAX_TOTAL_BYTES
    for name in names:
        data = _read(directory / name, min(MAX_FILE_BYTES, left))
        left -= len(data)
        found.append(Source(name, data))
    return found


def read_hashes(directory: Path) -> bytes:
    """SHA-256 of known malicious files from every `*.sha256` file: sorted, each once, 32 bytes each.

    A line is a hash in hex, with anything behind it (as `sha256sum` writes); "#" begins a comment.

    Raises:
        RejectedInput: a line that is no hash, or past a cap.

    """
    found: set[bytes] = set()
    for path in sorted(directory.glob("*.sha256")):
        for number, line in enumerate(_read(path, MAX_HASH_BYTES).splitlines(), 1):
            word = line.split(b"#")[0].split()[:1]
            if not word:
                continue
            if not _HASH.fullmatch(word[0]):
                raise RejectedInput(f"{path.name}:{number}: {word[0][:70].decode('latin-1')!r} is not a SHA-256.")
            found.add(bytes.fromhex(word[0].decode()))
    return b"".join(sorted(found))


def _read(path: Path, cap_bytes: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as source:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise RejectedInput(f"{path} is not a plain file.")
            data = source.read(cap_bytes + 1)
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.") from err
    if len(data) > cap_bytes:
        raise RejectedInput(f"{path}: the signature files are larger than the {cap_bytes >> 20} MB that are allowed.")
    return data


def parse_rules(sources: list[Source]) -> tuple[list[Rule], list[Refused]]:
    """Enabled rules in file order, one per (sid), and those left out before any engine saw them.

    Where a sid occurs twice the higher revision stays, as the engine itself would have it.

    Raises:
        RejectedInput: a file is not text, or holds something that is no rule at all (cut off, a web page, ...).

    """
    rules: dict[int, Rule] = {}
    refused: list[Refused] = []
    for source in sources:
        for where, line in _lines(source):
            rule = _rule(where, line)
            if isinstance(rule, Refused):
                refused.append(rule)
            elif rule.sid not in rules or rules[rule.sid].rev < rule.rev:
                rules[rule.sid] = rule
    if not rules:
        raise RejectedInput("The rule files hold no enabled rule.", "An empty set would protect nobody.")
    return list(rules.values()), refused


def _lines(source: Source) -> list[tuple[str, str]]:
    try:
        text = source.data.decode()
    except UnicodeDecodeError as err:
        raise RejectedInput(f"{source.name}: not UTF-8 text (byte {err.start}).") from err
    found = []
    begin, held = 0, ""
    for number, raw in enumerate(text.split("\n"), 1):
        begin = begin if held else number
        held += raw.strip()
        if held.endswith("\\"):
            held = held[:-1]
            continue
        if held and not held.startswith("#"):
            found.append((f"{source.name}:{begin}", held))
        held = ""
    return found + [(f"{source.name}:{begin}", held)] * bool(held)


def _rule(where: str, line: str) -> Rule | Refused:
    if not _ACTION.match(line) or "(" not in line:
        raise RejectedInput(f"{where}: this is not a Suricata rule: {line[:60]!r}.")
    if not line.endswith(")"):
        raise RejectedInput(f"{where}: this rule is cut off: {line[-60:]!r}.", "Was the file copied completely?")
    sid = _SID.search(line)
    number = int(sid[1]) if sid else 0
    if not 0 < number < 1 << 32:
        return Refused(0, where, "no valid sid")
    if number in STEERING:
        return Refused(number, where, "this sid is the box's own")
    if len(line.encode()) > MAX_RULE_BYTES:
        return Refused(number, where, f"longer than {MAX_RULE_BYTES} bytes")
    if "\0" in line:
        return Refused(number, where, "holds a NUL byte")
    rev = _REV.search(line)
    return Rule(number, int(rev[1]) if rev else 0, where, line)
