"""A letter in the words of its reader: every string in a view may be shown as it stands. Pure.

Ours are the sentences of `words` and of the rubric; what others chose is defanged here and nowhere else, and never
gets into the subject. Plain text and HTML are two faces of one view, so they say the same.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Final

import msgspec

from sekisho.center.notify import words
from sekisho.center.notify.harmless import address, defang
from sekisho.center.notify.letter import Entry, Letter
from sekisho.center.notify.rules import IMPORTANT
from sekisho.center.tenants import Locale
from sekisho.telemetry import reasons

_ACCOUNTS: Final = ("invite", "password", "account")
"""Kinds about somebody's account at the portal."""
_OUR_OWN: Final = (
    *(
        "offline",
        "back",
        "flapping",
        "steady",
        "outage",
        "over",
        "deaf",
        "hears",
        "silent",
        "stale",
        "halted",
        "failed",
    ),
    *_ACCOUNTS,
)
"""Kinds that tell of no entries."""
_ONE: Final = ("alert", "again")
"""Kinds that tell of one thing."""
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Row(msgspec.Struct, frozen=True):
    label: str
    value: str


class Block(msgspec.Struct, frozen=True):
    """One thing that happened."""

    stars: str
    title: str
    rows: list[Row]
    todo: str
    details: list[Row]


class Button(msgspec.Struct, frozen=True):
    text: str
    url: str


class View(msgspec.Struct, frozen=True):
    """A whole mail, ready to be laid out."""

    locale: Locale
    subject: str
    important: bool
    stars: str
    badge: str
    title: str
    greeting: str
    intro: str
    rows: list[Row]
    todo: str
    blocks: list[Block]
    more: str
    buttons: list[Button]
    foot: list[str]
    todo_label: str
    detail_label: str


def view(letter: Letter, help_desk: str = "", links: dict[str, str] | None = None) -> View:
    """The letter as its reader sees it; `links` are action -> address of the buttons."""
    say = _Say(letter.locale)
    stars = max((entry.told.stars for entry in letter.entries), default=0)
    important = stars >= IMPORTANT
    section = "important" if important else "ordinary"
    title = _title(letter)
    shown = "" if letter.kind == "digest" else "★" * stars
    own = letter.kind in _OUR_OWN
    blocks = [_block(letter, entry, short=letter.kind not in _ONE) for entry in letter.entries]
    buttons = [Button(say("frame", action), url) for action, url in (links or {}).items()]
    return View(
        locale=letter.locale,
        subject=_subject(letter, say(section, "tag"), shown, title),
        important=important,
        stars=shown,
        badge=say(section, "badge"),
        title=title,
        greeting=say("frame", "hello", name=letter.tenant_name) if letter.tenant_name else "",
        intro=_intro(letter),
        rows=_own_rows(letter) if own else [],
        todo=say(f"kind_{letter.kind}", "do") if own else "",
        blocks=blocks,
        more=say("frame", "more", more=letter.more) if letter.more else "",
        buttons=buttons,
        foot=_foot(letter, help_desk),
        todo_label=say("label", "todo"),
        detail_label=say("label", "detail"),
    )


class _Say:
    """`words.say` in one language."""

    def __init__(self, locale: Locale) -> None:
        self._locale: Locale = locale

    def __call__(self, section: str, key: str, **values: object) -> str:
        return words.say(self._locale, section, key, **values)


def _title(letter: Letter) -> str:
    inner = _what(letter, letter.entries[0])[0] if letter.entries else ""
    values = {"title": inner, "count": letter.total, "number": letter.number}
    return words.say(letter.locale, f"kind_{letter.kind}", "subject", **values)


def _subject(letter: Letter, tag: str, stars: str, title: str) -> str:
    """One line of our own words; the device and the place are the only names in it."""
    first = letter.entries[0].told if letter.entries else None
    device = address(first.device) if first and first.device and letter.kind in _ONE else ""
    box = letter.box or (first.box if first and letter.kind in _ONE else "")
    place = _place(letter, box)
    parts = [part for part in (stars, title + (f" ({device})" if device else "")) if part]
    return " ".join((tag + " ".join(parts) + (f" - {place}" if place else "")).split())[:200]


def _intro(letter: Letter) -> str:
    if letter.kind == "alert":
        return ""
    first = min((entry.first for entry in letter.entries), default="")
    last = max((entry.last for entry in letter.entries), default="")
    values = {"count": letter.total, "number": letter.number, "tenant": letter.tenant}
    return words.say(
        letter.locale,
        f"kind_{letter.kind}",
        "intro",
        first=when(first, letter.time_zone, letter.locale),
        last=when(last, letter.time_zone, letter.locale),
        **values,
    )


def _own_rows(letter: Letter) -> list[Row]:
    say = _Say(letter.locale)
    place = _place(letter, letter.box)
    box = f"{place} ({letter.box})" if place != letter.box else place
    rows = [(say("label", "box"), box if letter.box else "")]
    rows.append((say("label", "since"), when(letter.since, letter.time_zone, letter.locale)))
    rows.append((say("label", "reason"), defang(letter.detail)))
    return [Row(label, value) for label, value in rows if value]


def _block(letter: Letter, entry: Entry, *, short: bool) -> Block:
    told, say = entry.told, _Say(letter.locale)
    title, why, todo = _what(letter, entry)
    device = address(told.device) if told.device else ""
    if told.mac and told.mac != told.device and not short:
        device += f" (MAC {address(told.mac)})"
    device = " ".join(filter(None, (_device(letter, entry), device)))
    done = say("done", told.done) if told.done and not entry.others else ""
    facts = [] if entry.others else told.facts
    rows = [("device", device), ("site", _place(letter, told.box)), ("time", _span(letter, entry))]
    if short:
        names = " / ".join(_fact(label, value) for label, value in facts[:2])
        rows += [("done", done), ("what", names)]
        facts = []
    else:
        rows += [("count", str(entry.count) if entry.count > 1 else ""), ("done", done), ("why", why)]
    return Block(
        stars="★" * told.stars,
        title=title + (say("frame", "times", count=entry.count) if short and entry.count > 1 else ""),
        rows=[Row(say("label", label), value) for label, value in rows if value],
        todo="" if short else todo,
        details=[Row(say("fact", label), _fact(label, value)) for label, value in facts],
    )


def _device(letter: Letter, entry: Entry) -> str:
    """What kind of device it is and what it calls itself: パソコン「DESKTOP-01」."""
    say = _Say(letter.locale)
    kind = say("device", entry.device_kind) if words.has("device", entry.device_kind) else ""
    name = say("device", "named", name=defang(entry.device_name, 40)) if entry.device_name else ""
    return " ".join(filter(None, (kind, name))) if letter.locale == "en" else kind + name


def _span(letter: Letter, entry: Entry) -> str:
    """From when to when; on one day the day is said once."""
    first, last = (when(at, letter.time_zone, letter.locale) for at in (entry.first, entry.last))
    if first == last:
        return first
    day, _, clock = last.rpartition(" ")
    return f"{first} – {clock if first.startswith(day) else last}"


def _what(letter: Letter, entry: Entry) -> tuple[str, str, str]:
    """(what happened, why it matters, what to do now), in the rubric's words."""
    told, say = entry.told, _Say(letter.locale)
    if entry.others:
        return say("others", "title"), "", ""
    if told.why in reasons.codes():
        reason = reasons.of(told.why, letter.locale)
        return reason.what, reason.matters, reason.todo
    return say("unknown", "title"), "", say("unknown", "todo")


def _fact(label: str, value: str) -> str:
    return value if label in ("rule", "number") and value.isdecimal() else defang(value)


def _foot(letter: Letter, help_desk: str) -> list[str]:
    say = _Say(letter.locale)
    lines = [say("frame", "unaddressed", tenant=letter.tenant)] if letter.unaddressed else []
    if help_desk:
        lines.append(say("frame", "help", help=help_desk))
    if letter.locale != "ja" or letter.time_zone != "Asia/Tokyo":
        lines.append(say("frame", "zone", zone=letter.time_zone))
    if letter.entries:
        lines.append(say("frame", "defanged"))
    return [*lines, say("frame", "footer")]


def _place(letter: Letter, box: str) -> str:
    return letter.sites.get(box, box)


def when(at: str, zone: str, locale: Locale) -> str:
    """A time of day as its reader's clock shows it; what is no time is shown as it came, harmless."""
    try:
        local = dt.datetime.fromisoformat(at).astimezone(zoneinfo.ZoneInfo(zone))
    except (ValueError, OverflowError, zoneinfo.ZoneInfoNotFoundError):
        return defang(at, 40)
    if locale == "ja":
        return f"{local.year}年{local.month}月{local.day}日 {local:%H:%M}"
    return f"{local.day} {_MONTHS[local.month - 1]} {local.year} {local:%H:%M}"
