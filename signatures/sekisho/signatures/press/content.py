"""What is in a set's archive, rule by rule."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sekisho.signatures import archive
from sekisho.signatures.model import Rule, Source
from sekisho.signatures.press.policy import DROPPING
from sekisho.signatures.press.ruletext import facts, matching
from sekisho.signatures.sources import parse_rules


class Content(msgspec.Struct, frozen=True):
    """A set, read from its archive."""

    files: dict[str, bytes]
    rules: dict[int, Rule]

    @property
    def dropping(self) -> set[int]:
        """The rules that let packets go no further."""
        return {sid for sid, rule in self.rules.items() if drops(rule.text)}

    def of(self, suffix: str) -> dict[str, bytes]:
        """The files whose name ends so."""
        return {name: data for name, data in self.files.items() if name.endswith(suffix)}


def read(data: bytes) -> Content:
    """The set in an archive.

    Raises:
        RejectedInput: it is none.

    """
    return of(archive.read(data))


def of(files: Mapping[str, bytes]) -> Content:
    """The set of these files. Raises as `read` does."""
    sources = [Source(name, data) for name, data in sorted(files.items()) if name.endswith(".rules")]
    rules = parse_rules(sources)[0] if sources else []
    return Content(dict(files), {rule.sid: rule for rule in rules})


def drops(text: str) -> bool:
    """Whether a rule of this text stops packets."""
    return facts(text).action in DROPPING


def new_drops(old: Content, new: Content) -> list[int]:
    """Dropping rules that the old set did not have, did not let drop, or that matched something else there."""
    before = old.dropping
    return sorted(
        sid
        for sid in new.dropping
        if sid not in before or matching(old.rules[sid].text) != matching(new.rules[sid].text)
    )
