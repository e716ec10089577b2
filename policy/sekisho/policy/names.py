"""Host names in the one spelling that everything is compared in: lower case, punycode, no dot at either end.

An internationalised name is encoded by IDNA 2008 with the UTS 46 mapping, as browsers do it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import idna

MAX_NAME: Final = 253
_ASCII = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


def canonical(text: str) -> str:
    """The name in its one spelling.

    Raises:
        ValueError: no host name (too long, an empty label, a character that no name has).

    """
    name = text.strip().rstrip(".").lower()
    if not name.isascii():
        if len(name) > MAX_NAME:
            raise ValueError(f"{text[:40]!r}... is too long for a name")
        try:
            name = idna.encode(name, uts46=True, transitional=False).decode().rstrip(".")
        except idna.IDNAError as err:
            raise ValueError(f"{text!r} is not a host name") from err
    if not _ASCII.fullmatch(name):
        raise ValueError(f"{text[:80]!r} is not a host name")
    return name


def is_address(text: str) -> bool:
    """Whether a host is named by its number."""
    if ":" not in text and not text[-1:].isdigit():
        return False  # no address ends otherwise, and lists are long
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def labels(name: str) -> int:
    """How many labels a name has."""
    return name.count(".") + 1


def pruned(names: Iterable[str]) -> set[str]:
    """The names without those that another one covers as its sub-domain."""
    every = set(names)
    return {name for name in every if not any(parent in every for parent in parents(name))}


def parents(name: str) -> Iterable[str]:
    """Every name above this one, the nearest first. A number has none."""
    if is_address(name):
        return
    at = name.find(".")
    while at >= 0:
        yield name[at + 1 :]
        at = name.find(".", at + 1)


def by_depth(names: Iterable[str]) -> dict[int, list[str]]:
    """Sorted names by their number of labels."""
    found: dict[int, list[str]] = {}
    for name in sorted(names):
        found.setdefault(labels(name), []).append(name)
    return dict(sorted(found.items()))
