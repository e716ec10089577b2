"""Our own sentences in Japanese and English, read once from `words.toml`."""

from __future__ import annotations

from functools import cache
from importlib import resources

from sekisho.center.tenants import Locale
from sekisho.center.words import Catalogue, Sentence


@cache
def _catalogue() -> Catalogue:
    return Catalogue([resources.files(__package__).joinpath("words.toml")])


def sentences() -> dict[str, dict[str, Sentence]]:
    """Section -> key -> sentence."""
    return _catalogue().sentences


def say(locale: Locale, section: str, key: str, **values: object) -> str:
    """The sentence, with its places filled in."""
    return _catalogue().say(locale, section, key, **values)


def has(section: str, key: str) -> bool:
    return _catalogue().has(section, key)
