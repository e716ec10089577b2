"""Guesses what a device is from its clues and its vendor. The table is data: `kinds.toml`, next to this module."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import msgspec


class Guess(NamedTuple):
    """A kind and how much the best clue for it is worth, 1-100; 0 with "" for no guess."""

    kind: str = ""
    worth: int = 0


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    has: list[str]
    kind: str
    worth: int


class Kinds:
    """The table: source of a clue -> what its value holds -> guess."""

    def __init__(self, text: str | None = None) -> None:
        """Read the table, by default the one that ships."""
        if text is None:
            text = files(__package__).joinpath("kinds.toml").read_text()
        table = msgspec.convert(tomllib.loads(text), dict[str, list[_Row]])
        self._exact = {
            f"{source}:{value}": Guess(row.kind, row.worth)
            for source, rows in table.items()
            for row in rows
            for value in row.has
            if source in ("mdns", "dhcp", "netbios")
        }
        self._within = {
            source: [(value, Guess(row.kind, row.worth)) for row in rows for value in row.has]
            for source, rows in table.items()
            if source not in ("mdns", "dhcp", "netbios")
        }
        self._one = lru_cache(1024)(self._look_up)

    def guess(self, clues: Iterable[str]) -> Guess:
        """The most telling clue's guess."""
        return max((self._one(clue) for clue in clues), key=lambda guess: guess.worth, default=Guess())

    def _look_up(self, clue: str) -> Guess:
        if exact := self._exact.get(clue):
            return exact
        source, _, value = clue.partition(":")
        rows = self._within.get(source, ())
        return max((guess for held, guess in rows if held in value), key=lambda guess: guess.worth, default=Guess())


@cache
def shipped() -> Kinds:
    """The table that ships, read once."""
    return Kinds()
