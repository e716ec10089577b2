"""What two sets differ in, rule by rule."""

from __future__ import annotations

from pathlib import Path

import msgspec

from sekisho.signatures import delta
from sekisho.signatures.model import Source
from sekisho.signatures.press import yarafiles
from sekisho.signatures.press.content import Content, new_drops, read

_SHOWN = 12


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """From an old set to a new one."""

    added: list[int]
    removed: list[int]
    changed: list[int]
    """The text differs in anything, the action too."""
    now_dropping: list[int]
    """Let pass before, or matched something else, or was not there; now drops."""
    no_longer_dropping: list[int]
    yara_added: list[str]
    yara_removed: list[str]
    yara_changed: list[str]
    """Names of files whose text differs."""
    hashes_added: int
    hashes_removed: int
    baseline_changed: bool
    rules: tuple[int, int]
    """How many there are in the old and in the new set; likewise below."""
    yara: tuple[int, int]
    hashes: tuple[int, int]
    length: tuple[int, int]
    """Bytes of the archive."""
    delta: int
    """Bytes of the way from old to new."""


def difference(old_archive: bytes, new_archive: bytes, work: Path) -> Difference:
    """Everything. `work` is an empty directory. Takes some seconds.

    Raises:
        RejectedInput: one of them is not a set, or its YARA rules cannot be read.

    """
    old, new = read(old_archive), read(new_archive)
    common = old.rules.keys() & new.rules.keys()
    was, will = _hashes(old), _hashes(new)
    old_names, new_names = _yara_names(old, new, work)
    return Difference(
        added=sorted(new.rules.keys() - common),
        removed=sorted(old.rules.keys() - common),
        changed=sorted(sid for sid in common if old.rules[sid].text != new.rules[sid].text),
        now_dropping=new_drops(old, new),
        no_longer_dropping=sorted(old.dropping - new.dropping),
        yara_added=sorted(new_names - old_names),
        yara_removed=sorted(old_names - new_names),
        yara_changed=[name for name, data in sorted(new.of(".yar").items()) if old.files.get(name, data) != data],
        hashes_added=len(will - was),
        hashes_removed=len(was - will),
        baseline_changed=old.files.get("baseline.json") != new.files.get("baseline.json"),
        rules=(len(old.rules), len(new.rules)),
        yara=(len(old_names), len(new_names)),
        hashes=(len(was), len(will)),
        length=(len(old_archive), len(new_archive)),
        delta=len(delta.make(old_archive, new_archive)),
    )


def table(found: Difference) -> str:
    """For people."""
    rows = [
        ("Suricata rules", f"{found.rules[0]} -> {found.rules[1]}"),
        ("  added", _few(found.added)),
        ("  removed", _few(found.removed)),
        ("  changed", _few(found.changed)),
        ("  now dropping", _few(found.now_dropping)),
        ("  dropping no longer", _few(found.no_longer_dropping)),
        ("YARA rules", f"{found.yara[0]} -> {found.yara[1]}"),
        ("  added", _few(found.yara_added)),
        ("  removed", _few(found.yara_removed)),
        ("  files changed", _few(found.yara_changed)),
        ("known files", f"{found.hashes[0]} -> {found.hashes[1]} (+{found.hashes_added} -{found.hashes_removed})"),
        ("baseline", "changed" if found.baseline_changed else "the same"),
        ("archive", f"{found.length[0]} -> {found.length[1]} bytes"),
        ("delta", f"{found.delta} bytes"),
    ]
    return "".join(f"{name:<22}{value}\n" for name, value in rows)


def _few(items: list[int] | list[str]) -> str:
    shown = " ".join(str(item) for item in items[:_SHOWN])
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{len(items)}  {shown}{more}".rstrip()


def _hashes(found: Content) -> set[bytes]:
    return {line for data in found.of(".sha256").values() for line in data.splitlines()}


def _yara_names(old: Content, new: Content, work: Path) -> tuple[set[str], set[str]]:
    """The rules as FILE:RULE; a file that is the same in both is compiled once."""
    was, will = old.of(".yar"), new.of(".yar")
    changed = {name: data for name, data in was.items() if will.get(name) != data}
    names = [_names(files, work / place) for place, files in (("new", will), ("old", changed))]
    same = {rule for rule in names[0] if rule.partition(":")[0] in was.keys() - changed.keys()}
    return same | names[1], names[0]


def _names(files: dict[str, bytes], work: Path) -> set[str]:
    if not files:
        return set()
    sources = [Source(name.removeprefix("yara/"), data) for name, data in files.items()]
    return {f"yara/{item.file}:{name}" for item in yarafiles.named(sources, work) for name in item.names}
