"""Whether a signature blocks or only reports, as the policy has it; and exceptions from signatures. Pure.

A rule is changed by its first word and by options added at its end, never otherwise. Not touched: disabled rules,
`pass` and `config`, helpers that report nothing (`noalert`: making one drop would cut what it only remembers), and the
product's own rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sekisho.policy.model import Signatures

OURS: Final = range(9000000, 9000100)
POLICY: Final = range(9100000, 9200000)
_RULE = re.compile(
    r"(?P<action>alert|drop|reject|rejectsrc|rejectdst|rejectboth)(?P<head>[ \t][^(]*)\((?P<body>.*)\)\s*", re.DOTALL
)
_OPTION = re.compile(r'\s*((?:[^;"\\]|\\.|"(?:[^"\\]|\\.)*")+);', re.DOTALL)
_CLASS = re.compile(r"\s*config\s+classification\s*:\s*([^,]+),[^,]*,\s*(\d+)")
DEFAULT_PRIORITY: Final = 3


@dataclass(frozen=True)
class Facts:
    """What a choice may depend on."""

    sid: int
    classtype: str
    severity: int
    helper: bool


def priorities(classification: str) -> dict[str, int]:
    """Priority by classtype, from the text of the engine's classification.config."""
    found = (_CLASS.match(line) for line in classification.splitlines())
    return {match[1].strip(): int(match[2]) for match in found if match}


def options(body: str) -> list[tuple[str, str]]:
    """A rule's options in order, (keyword, value); quotes and escapes are respected."""
    return [(key.strip(), value.strip()) for key, _, value in (text.partition(":") for text in _OPTION.findall(body))]


def facts(rule: str, by_class: Mapping[str, int]) -> Facts | None:
    """The facts of a rule that may be changed; None for anything else."""
    match = _RULE.fullmatch(rule)
    if match is None:
        return None
    found = options(match["body"])
    last = dict(found)
    sid = int(last.get("sid", "0"))
    if sid in OURS or sid in POLICY:
        return None
    classtype = last.get("classtype", "")
    severity = int(last.get("priority") or by_class.get(classtype, DEFAULT_PRIORITY))
    helper = ("noalert", "") in found or any(key == "flowbits" and value == "noalert" for key, value in found)
    return Facts(sid, classtype, severity, helper)


def wanted(known: Facts, choices: Iterable[Signatures]) -> str:
    """The action of the first choice that fits, or nothing; the conditions of one choice are alternatives."""
    for choice in choices:
        if known.sid in choice.sids or known.classtype in choice.classtypes or known.severity in choice.severity:
            return choice.action
    return ""


def rewrite(
    rules: Iterable[str],
    choices: tuple[Signatures, ...],
    exceptions: Mapping[int, list[tuple[str, str]]],
    by_class: Mapping[str, int],
    number: Callable[[str], int],
) -> list[str]:
    """The rules under a policy: as many as before, in order, each followed by its twins.

    `exceptions` maps a signature to (bit, exception); a twin only reports, when the bit is set. `number` gives twins
    their identifiers.
    """
    made: list[str] = []
    for rule in rules:
        known = facts(rule, by_class)
        if known is None or known.helper:
            made.append(rule)
            continue
        changed = _with_action(rule, wanted(known, choices))
        passes = exceptions.get(known.sid, [])
        made.append(_with_options(changed, "".join(f" flowbits:isnotset,{bit};" for bit, _ in passes)))
        made += [_twin(rule, bit, exemption, number(f"twin {known.sid} {bit}")) for bit, exemption in passes]
    return made


def _with_action(rule: str, action: str) -> str:
    word, rest = re.split(r"(?=[ \t])", rule, maxsplit=1)
    if action == "block":
        return f"drop{rest}" if word == "alert" else rule
    return f"alert{rest}" if action == "log" else rule


def _with_options(rule: str, more: str) -> str:
    return f"{rule.rstrip()[:-1]}{more})" if more else rule


def _twin(rule: str, bit: str, exemption: str, sid: int) -> str:
    match = _RULE.fullmatch(rule)
    assert match is not None  # noqa: S101 - `facts` has matched it
    kept = [
        f"{key}:{value};" if value else f"{key};"
        for key, value in options(match["body"])
        if key not in ("sid", "metadata")
        and not (key == "flowbits" and value.startswith(("set,", "unset,", "toggle,")))
    ]
    about = f"metadata:sekisho_action log, sekisho_exception {exemption}; sid:{sid};"
    return f"alert{match['head']}({' '.join(kept)} flowbits:isset,{bit}; {about})"
