"""Our own sentences in Japanese and English: TOML files of `[section]` with `key.ja` and `key.en`.

A key without both languages, an unknown one, or a section in two files is an error when it is read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.resources.abc import Traversable

import msgspec

from sekisho.center.tenants import Locale


class Sentence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence in every language there is."""

    ja: str
    en: str


class Catalogue:
    """Sentences by section and key."""

    def __init__(self, files: Iterable[Traversable]) -> None:
        """Read the files.

        Raises:
            ValueError: a language is missing, or a section is in two files.

        """
        self.sentences: dict[str, dict[str, Sentence]] = {}
        for file in files:
            try:
                read = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), dict[str, dict[str, Sentence]])
            except msgspec.ValidationError as err:
                raise ValueError(f"{file.name}: {err}") from err
            if twice := self.sentences.keys() & read.keys():
                raise ValueError(f"{file.name}: {', '.join(sorted(twice))} is in another file as well")
            self.sentences |= read

    def say(self, locale: Locale, section: str, key: str, **values: object) -> str:
        """The sentence, with its places filled in."""
        sentence = self.sentences[section][key]
        return (sentence.ja if locale == "ja" else sentence.en).format_map(values)

    def has(self, section: str, key: str) -> bool:
        return key in self.sentences.get(section, {})
