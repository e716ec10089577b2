"""What a set has that the one before had not: which rules are new, changed, dropping. Read from the two sets' texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.signatures.archive import BASELINE
from sekisho.signatures.published import Baseline
from sekisho.signatures.soak import News

MAX_BYTES: Final = 8 << 20
_SID: Final = re.compile(r"[;(]\s*sid\s*:\s*(\d{1,10})\s*;")
_DROPS: Final = re.compile(r"(drop|reject|rejectsrc|rejectdst|rejectboth)\s")
_YARA: Final = re.compile(r"^[ \t]*(?:(?:private|global)[ \t]+)*rule[ \t]+([A-Za-z_]\w{0,127})", re.MULTILINE)


class Heading(msgspec.Struct, frozen=True, kw_only=True):
    """`channel/news.json`: what to listen for while set `id` is young."""

    id: str
    news: News = News()
    baseline: Baseline = Baseline()


def compare(rules: Path, before: Path | None, yara: Path, yara_before: Path | None) -> News:
    """`rules` and `before` are the files of two built sets, the others the directories of their YARA sources."""
    now, then = _rules(rules), _rules(before) if before is not None else {}
    new = now.keys() - then.keys()
    changed = {sid for sid in now.keys() & then.keys() if now[sid] != then[sid]}
    drops = {sid for sid in new | changed if _DROPS.match(now[sid])}
    files, earlier = _names(yara), _names(yara_before) if yara_before is not None else {}
    return News(
        new=frozenset(new),
        changed=frozenset(changed),
        dropping=frozenset(drops),
        yara=frozenset(name for name, text in files.items() if earlier.get(name) != text),
    )


def on_trial(rules: Path, before: Path | None, announced: set[int], urgent: set[int]) -> tuple[int, ...]:
    """Dropping rules that did not drop before, here or by the centre's account; not those that drop at once."""
    now, then = _rules(rules), _rules(before) if before is not None else {}
    drops = {sid for sid, text in now.items() if _DROPS.match(text)}
    did = {sid for sid, text in then.items() if _DROPS.match(text)}
    return tuple(sorted(((drops - did) | (drops & announced)) - urgent))


def baseline(sources: Path) -> Baseline:
    """The fleet's usual counts that came with a set; nothing is known where it is missing or damaged."""
    try:
        with (sources / BASELINE).open("rb") as source:
            return msgspec.json.decode(source.read(MAX_BYTES), type=Baseline)
    except (OSError, msgspec.MsgspecError):
        return Baseline()


def save(path: Path, heading: Heading) -> None:
    """Durable at return.

    Raises:
        OSError: disk full or read-only.

    """
    write_atomic(path, msgspec.json.encode(heading))


def load(path: Path, wanted: str) -> Heading:
    """What belongs to the set `wanted`; nothing to listen for where that is not known."""
    try:
        with path.open("rb") as source:
            found = msgspec.json.decode(source.read(MAX_BYTES), type=Heading)
    except (OSError, msgspec.MsgspecError):
        return Heading(id=wanted)
    return found if found.id == wanted else Heading(id=wanted)


def _rules(path: Path) -> Mapping[int, str]:
    found = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as source:
            for line in source:
                if sid := _SID.search(line):
                    found[int(sid[1])] = line.strip()
    except OSError:
        return {}
    return found


def _names(folder: Path) -> Mapping[str, str]:
    """Each YARA rule by name with its text, up to where the next one begins."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.yar")):
        text = path.read_text(encoding="utf-8", errors="replace")
        starts = [*_YARA.finditer(text)]
        ends = [one.start() for one in starts][1:] + [len(text)] * bool(starts)  # a file may hold comments alone
        for match, after in zip(starts, ends, strict=True):
            found[match[1]] = found.get(match[1], "") + text[match.start() : after].strip()
    return found
