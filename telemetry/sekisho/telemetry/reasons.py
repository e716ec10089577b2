"""What people are told about each of the rubric's codes, in Japanese and English (`reasons.toml`).

Used where people read: mails, portal, the box's own list. Nothing of an event is put into these words.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Literal

import msgspec

Locale = Literal["ja", "en"]


class Reason(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One code, in one language."""

    what: str
    """What happened, a heading without full stop."""
    matters: str
    todo: str
    """What to do now."""


@cache
def _shipped() -> dict[str, dict[Locale, Reason]]:
    text = resources.files("sekisho.telemetry").joinpath("reasons.toml").read_text()
    return msgspec.toml.decode(text, type=dict[str, dict[Locale, Reason]])


def codes() -> frozenset[str]:
    """Every code that has words."""
    return frozenset(_shipped())


def of(code: str, locale: Locale) -> Reason:
    """The words of a code; those of a weak sign where a newer box sends a code this release does not know."""
    known = _shipped()
    return known.get(code, known["weak_sign"])[locale]
