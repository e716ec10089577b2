"""How the API writes what several resources have: texts in both languages, times."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec

from sekisho.center.notify import words
from sekisho.center.tenants import Locale
from sekisho.telemetry import reasons

_EARLIEST: Final = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


class Texts(msgspec.Struct, frozen=True):
    """One sentence in both languages."""

    ja: str
    en: str


def title(why: str) -> Texts:
    """What happened, by the rubric's code."""
    return Texts(_title(why, "ja"), _title(why, "en"))


def matters(why: str) -> Texts:
    """Why it matters; empty where a newer UTM has a code that this release does not know."""
    known = why in reasons.codes()
    return Texts(*((reasons.of(why, "ja").matters, reasons.of(why, "en").matters) if known else ("", "")))


def advice(why: str) -> Texts:
    """What to do."""
    if why in reasons.codes():
        return Texts(reasons.of(why, "ja").todo, reasons.of(why, "en").todo)
    return Texts(words.say("ja", "unknown", "todo"), words.say("en", "unknown", "todo"))


def moment(text: str) -> dt.datetime | None:
    """A stored time in UTC; None where there is none or a box wrote what is no time."""
    try:
        at = dt.datetime.fromisoformat(text)
        return at.astimezone(dt.UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def stored(at: dt.datetime | None) -> str:
    """A time as stored times are compared; empty: none."""
    if at is None:
        return ""
    try:
        utc = at.astimezone(dt.UTC)
    except OverflowError:
        utc = _EARLIEST if at.year == 1 else dt.datetime.max.replace(tzinfo=dt.UTC)
    return f"{utc.year:04}-{utc:%m-%dT%H:%M:%S.%f}Z"


def _title(why: str, locale: Locale) -> str:
    return reasons.of(why, locale).what if why in reasons.codes() else words.say(locale, "unknown", "title")
