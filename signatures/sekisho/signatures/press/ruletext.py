"""What a Suricata rule's text says, read as the engine's own parser splits it (detect-parse.c, SigParseOptions)."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

_OPTION_END = re.compile(r"(?<!\\);")
"""The engine ends an option at the first ";" that has no backslash before it; quotes do not count."""
_STATE = re.compile(r"(flowbits|xbits|hostbits|flowint)\Z")
_WRITES = {"set", "unset", "toggle", "+", "-", "="}
_MEDDLES = {
    "nfq_set_mark",
    "replace",
    "config",
    "lua",
    "luajit",
    "luaxform",
    "filemd5",
    "filesha1",
    "filesha256",
}
_OVERSTEPS = {"bypass", *_MEDDLES}
_IN_FILES = {"load", "save", "state"}
_NOTHING_MATCHES = {"msg", "reference", "metadata", "rev", "gid", "priority", "classtype", "target"}

Action = Literal["alert", "drop"]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, as far as policy needs to know it."""

    action: str
    msg: str = ""
    classtype: str = ""
    silent: bool = False
    """Raises no alert of its own: it exists to mark a flow for another rule."""
    oversteps: bool = False
    """Does more than judge a packet: takes a flow out of inspection, changes packets or their marks, runs a program,
    or reads or writes a file."""
    writes: frozenset[str] = frozenset()
    """Marks it changes ("flowbits:name")."""
    needs: tuple[frozenset[str], ...] = ()
    """Of every one of these, one mark at least must be set."""

    @property
    def reads(self) -> frozenset[str]:
        """All marks in `needs`."""
        return frozenset().union(*self.needs)


def facts(text: str) -> Facts:
    """What the rule on one line says. Never fails: what is not there is empty."""
    msg = classtype = ""
    silent = oversteps = False
    writes: set[str] = set()
    needs: list[frozenset[str]] = []
    for name, value in options(text):
        oversteps = oversteps or name in _OVERSTEPS or _uses_file(name, value)
        if name == "msg" and not msg:
            msg = value.strip('"')
        elif name == "classtype" and not classtype:
            classtype = value
        elif name == "noalert":
            silent = True
        elif _STATE.match(name):
            words = [word.strip() for word in value.split(",")]
            silent = silent or words[0].lower() == "noalert"
            verb, marks = _mark(name, words)
            if verb in _WRITES:
                writes |= marks
            elif verb == "isset":
                needs.append(frozenset(marks))
    return Facts(
        action=text.split(None, 1)[0],
        msg=msg,
        classtype=classtype,
        silent=silent,
        oversteps=oversteps,
        writes=frozenset(writes),
        needs=tuple(needs),
    )


def options(text: str) -> list[tuple[str, str]]:
    """The options in a rule's brackets, as (name in lower case, value)."""
    body = text[text.find("(") + 1 : text.rfind(")")]
    found = []
    for option in _OPTION_END.split(body):
        name, _, value = option.partition(":")
        if name.strip():
            found.append((name.strip().lower(), value.strip()))
    return found


def acting(text: str, action: Action) -> str:
    """The rule with another action; only its first word changes."""
    return action + text[len(text.split(None, 1)[0]) :]


def silenced(text: str) -> str:
    """The rule as one that only marks flows: no alert, no drop."""
    marking = acting(text, "alert")
    return f"{marking[: marking.rfind(')')].rstrip()} noalert;)"


def matching(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """All of the rule that decides what it matches, without its action and what is only said about it."""
    head = text[: text.find("(")].split(None, 1)[-1].strip()
    return head, tuple(option for option in options(text) if option[0] not in _NOTHING_MATCHES)


def meddles(text: str) -> bool:
    """Whether it changes packets or their marks, switches records off, runs a program, or reads or writes a file.

    A box takes no published set with such a rule, whoever signed it: the marks lead flows around its own inspection.
    """
    return any(name in _MEDDLES or _uses_file(name, value) for name, value in options(text))


def _uses_file(name: str, value: str) -> bool:
    return name in ("dataset", "datarep") and _in_file(value)


def _in_file(value: str) -> bool:
    return any(word.split()[:1] and word.split()[0].lower() in _IN_FILES for word in value.split(","))


def _mark(kind: str, words: list[str]) -> tuple[str, set[str]]:
    if kind == "flowint":  # flowint: name, verb, value
        verb = words[1].lower() if len(words) > 1 else ""
        return verb, {f"{kind}:{words[0]}"}
    names = words[1].split("|") if len(words) > 1 else []
    return words[0].lower(), {f"{kind}:{name.strip()}" for name in names}
