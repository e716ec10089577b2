"""The categories a policy can name: the shipped ones, more names for them, and the owner's own."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import lists
from sekisho.policy.lists import Names
from sekisho.policy.model import Category, Policy

SHIPPED: Final = Path(str(resources.files("sekisho.policy"))) / "shipped"


class Title(msgspec.Struct, frozen=True):
    """What people read."""

    ja: str
    en: str


@cache
def titles() -> dict[str, Title]:
    """The shipped categories by name."""
    text = (SHIPPED / "categories.toml").read_text()
    return msgspec.convert(tomllib.loads(text), dict[str, Title])


def collect(policy: Policy, base: Path) -> dict[str, Names]:
    """The names of every category that the policy uses; list files are relative to `base`.

    Raises:
        RejectedInput: a category nobody defined, or one of its lists was refused.

    """
    own = {category.name: category for category in policy.category}
    used = {name for entry in policy.url_category for name in entry.categories}
    if unknown := sorted(used - own.keys() - titles().keys()):
        raise RejectedInput(f"url_category: there is no category {unknown[0]!r}.", f"Known: {', '.join(titles())}.")
    return {name: _names(name, own.get(name), base) for name in sorted(used)}


def _names(name: str, own: Category | None, base: Path) -> Names:
    found = lists.read(f"categories/{name}.txt", SHIPPED) if name in titles() else Names()
    if own is not None:
        found.add(gather(own.files, own.domains, base, name))
    return found


def gather(files: tuple[str, ...], words: tuple[str, ...], base: Path, name: str) -> Names:
    """What an entry lists, in files and in its own words.

    Raises:
        RejectedInput: a list was refused, or a word means nothing.

    """
    found = Names()
    for file in files:
        found.add(lists.read(file, base, name))
    try:
        found.add(lists.from_words(words))
    except ValueError as err:
        raise RejectedInput(f"{name}: {err}.") from err
    return found
