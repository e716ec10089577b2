"""Our own sentences in Japanese and English, read once from `words.toml`; a key without both languages is an error."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import msgspec

from sekisho.center.tenants import Locale


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


def has(section: str, key: str) -> bool:
    return key in sentences().get(section, {})
