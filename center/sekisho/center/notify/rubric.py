"""The rubric's own words for why something is important, by its code; none where it has none."""

from __future__ import annotations

from typing import NamedTuple

from sekisho.center.tenants import Locale


class Texts(NamedTuple):
    title: str
    why: str
    do: str


def texts(why: str, locale: Locale) -> Texts | None:
    """What happened, why it matters, what to do now."""
    return None
