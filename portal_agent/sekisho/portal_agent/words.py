"""The page's sentences in Japanese and English, read once from `words.toml`; a key without both is an error."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Final, Literal

import msgspec

Locale = Literal["ja", "en"]
LOCALES: Final[tuple[Locale, ...]] = ("ja", "en")


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence in every language there is."""

    ja: str
    en: str


@cache
def sentences() -> dict[str, dict[str, Sentence]]:
    """Section -> key -> sentence."""
    source = resources.files(__package__).joinpath("words.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(source), dict[str, dict[str, Sentence]])


def say(locale: Locale, section: str, key: str, **values: object) -> str:
    """The sentence, with its places filled in."""
    sentence = sentences()[section][key]
    return (sentence.ja if locale == "ja" else sentence.en).format_map(values)


def say_or(locale: Locale, section: str, key: str, otherwise: str) -> str:
    """The sentence for a code from elsewhere; `otherwise` for one that has none."""
    return say(locale, section, key) if key in sentences().get(section, {}) else otherwise


def preferred(accept_language: str) -> Locale:
    """The language a browser asks for (RFC 9110 12.5.4), by order alone; Japanese for every other wish."""
    for wish in accept_language[:200].lower().split(","):
        if wish.strip()[:2] in LOCALES:
            return "en" if wish.strip().startswith("en") else "ja"
    return "ja"
