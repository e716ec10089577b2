"""How important an event is: 0 to 3 stars and the code of the line that says so.

The judgement is data, `stars.toml` (explained in docs/stars.md): a signature's kind is the first line that fits
its class, group and words, the stars are the first line that fits who called whom, the outcome, how sure the
signature is and the kind of device. Pure: same facts, same stars. Read strictly, once; a mistake in the table is
a mistake of the release and stops the start. Only this decides who is told (REQUIREMENTS C3).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from importlib import resources
from typing import Final, Literal, NamedTuple

import msgspec

Direction = Literal["out", "in", "internal", ""]
"""Who opened the connection, seen from the office; empty = no end of it is known to be the office's."""
Sure = Literal["poor", "low", "medium", "high"]


class Signature(msgspec.Struct, frozen=True):
    """What a rule says of itself, in its author's words."""

    text: str = ""
    """Its message: "ET MALWARE Something CnC Beacon"; the second word is its group."""
    category: str = ""
    """Its class as the engine spells it out: "A Network Trojan was detected"."""
    severities: tuple[str, ...] = ()
    confidences: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    """Groups it was in before (former_category)."""
    targets: tuple[str, ...] = ()


class Reading(NamedTuple):
    """What a signature is about."""

    kind: str
    sure: Sure
    classtype: str


class Case(msgspec.Struct, frozen=True):
    """One event as the rows see it. What an event does not have stays empty and fits only rows that do not ask."""

    event: Literal["alert", "policy", "file", "retro", "bypass", "health", "gap", "signatures", "firmware", "job"]
    flow: Direction = ""
    side: str = ""
    outcome: str = ""
    device: str = ""
    """The office device's kind as the inventory guesses it."""
    function: str = ""
    excepted: Literal["yes", "no"] = "no"
    malicious: Literal["yes", "no"] = "no"
    reached: Literal["yes", "no"] = "no"
    reason: str = ""
    part: str = ""
    state: str = ""
    seconds: float = 0.0
    rules: int = 0
    tier: str = ""


class Verdict(NamedTuple):
    stars: int
    why: str


class _Level(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    groups: frozenset[str] = frozenset()
    severities: frozenset[str] = frozenset()
    words: str = ""


class _Kind(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    classes: frozenset[str] = frozenset()
    classes_not: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    groups_not: frozenset[str] = frozenset()
    words: str = ""


class Row(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename={"class_is": "class"}):
    """One line of the rubric; an empty condition always holds."""

    event: str
    stars: int
    why: str = ""
    kind: tuple[str, ...] = ()
    class_is: tuple[str, ...] = ()
    class_not: tuple[str, ...] = ()
    sure: tuple[Sure, ...] = ()
    target: tuple[str, ...] = ()
    flow: tuple[Direction, ...] = ()
    side: tuple[str, ...] = ()
    outcome: tuple[str, ...] = ()
    device: tuple[str, ...] = ()
    function: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    malicious: tuple[str, ...] = ()
    reached: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    seconds_from: float = 0.0
    rules_upto: int | None = None
    tier: tuple[str, ...] = ()


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole of stars.toml."""

    sure: dict[Sure, _Level]
    kind: tuple[_Kind, ...]
    row: tuple[Row, ...]
    classes: dict[str, str]


_CONFIDENCE: Final[dict[str, Sure]] = {"low": "low", "medium": "medium", "high": "high", "certain": "high"}
NOTHING: Final = Verdict(0, "")
_OF_THE_CASE: Final = (
    "flow", "side", "outcome", "device", "function", "excepted", "malicious", "reached", "reason", "part", "state",
    "tier",
)  # fmt: skip


@cache
def table() -> Table:
    """The rubric that ships with the product."""
    text = resources.files("sekisho.telemetry").joinpath("stars.toml").read_text()
    return msgspec.toml.decode(text, type=Table)


@lru_cache(maxsize=4096)
def judge(case: Case, signature: Signature | None = None) -> Verdict:
    """The stars of one event; `signature` for an alert of a rule."""
    reading = read(signature) if signature else Reading("", "medium", "")
    for row in _rows(case.event):
        if _fits_signature(row, reading, signature) and _fits_case(row, case):
            return Verdict(row.stars, row.why)
    return NOTHING


@lru_cache(maxsize=4096)
def read(signature: Signature) -> Reading:
    """What the signature is about and how sure it is."""
    group = _group(signature.text)
    groups = {group, *signature.former}
    classtype = table().classes.get(signature.category, "other" if signature.category else "")
    for line in table().kind:
        if (
            (not line.classes or classtype in line.classes)
            and classtype not in line.classes_not
            and (not line.groups or groups & line.groups)
            and not groups & line.groups_not
            and (not line.words or _pattern(line.words).search(signature.text))
        ):
            return Reading(line.name, _sure(signature, group), classtype)
    return Reading("", _sure(signature, group), classtype)


def _sure(signature: Signature, group: str) -> Sure:
    for word in signature.confidences:
        if level := _CONFIDENCE.get(word.lower()):
            return level
    for level, line in table().sure.items():
        by_group = group in line.groups or signature.text.partition(" ")[0] in line.groups
        by_word = line.words and _pattern(line.words).search(signature.text)
        if by_group or by_word or line.severities & set(signature.severities):
            return level
    return "medium"


def _group(text: str) -> str:
    """The second word where it is all capitals, as in Emerging Threats' and Talos's GPL rules."""
    _, _, rest = text.partition(" ")
    word = rest.partition(" ")[0]
    return word if word.isupper() else ""


@cache
def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(words, re.IGNORECASE)


@cache
def _rows(event: str) -> tuple[Row, ...]:
    return tuple(row for row in table().row if row.event == event)


def _fits_signature(row: Row, reading: Reading, signature: Signature | None) -> bool:
    return (
        (not row.kind or reading.kind in row.kind)
        and (not row.class_is or reading.classtype in row.class_is)
        and reading.classtype not in row.class_not
        and (not row.sure or reading.sure in row.sure)
        and (not row.target or any(word in row.target for word in (signature.targets if signature else ())))
    )


def _fits_case(row: Row, case: Case) -> bool:
    for name in _OF_THE_CASE:
        wanted = getattr(row, name)
        if wanted and getattr(case, name) not in wanted:
            return False
    return case.seconds >= row.seconds_from and (row.rules_upto is None or case.rules <= row.rules_upto)
