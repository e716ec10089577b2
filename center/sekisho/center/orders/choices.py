"""What a page offers to decide about a box, between a form's fields and the overlay. Pure.

A page shows part of an overlay: what it does not show stays as it is. Names it makes are its own (`PAGE_NAMES`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import lists, source
from sekisho.policy.applications import table
from sekisho.policy.categories import titles
from sekisho.policy.model import (
    Application,
    Group,
    Isolation,
    Keyword,
    Schedule,
    Signatures,
    UrlCategory,
    WebGuard,
)
from sekisho.policy.overlay import Overlay, Restart
from sekisho.policy.schedules import DAYS

CHOSEN, HOURS, WORDS, SITES, ISOLATED = "page-devices", "page-hours", "page-words", "page-sites", "page-isolated"
PAGE_NAMES: Final = frozenset({CHOSEN, HOURS, WORDS, SITES, ISOLATED})
ACTIONS: Final = ("off", "log", "block")
LINES: Final = 500
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


class BadField(RejectedInput):
    """A field of the form cannot be used."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"{field}: {value[:80]!r} cannot be used.")
        self.field = field
        self.value = value


class Choices(msgspec.Struct, frozen=True):
    """Everything the page shows, as a form has it: lines of text, one word for an action."""

    categories: dict[str, str] = {}
    """Shipped category -> off, log or block."""
    applications: dict[str, str] = {}
    words: str = ""
    words_action: str = "block"
    sites: str = ""
    sites_action: str = "block"
    signatures: str = "shipped"
    """shipped: as delivered; log: only tell."""
    whom: str = "all"
    """all, or chosen: the devices named below."""
    devices: str = ""
    hours: str = "always"
    """always, or hours: on the days and at the times below."""
    days: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri")
    start: str = "09:00"
    end: str = "18:00"
    isolated: str = ""
    restart_days: tuple[str, ...] = ()
    """Empty: nothing was chosen."""
    restart_start: str = "03:00"
    restart_hours: str = "3"


def shown(overlay: Overlay) -> Choices:
    """What the page shows of it."""
    groups = {one.name: one for one in overlay.group}
    hours = next((one for one in overlay.schedule if one.name == HOURS), None)
    words = next((one for one in overlay.keyword if one.name == WORDS), None)
    sites = next((one for one in overlay.web_guard if one.name == SITES), None)
    cell = next((one for one in overlay.isolation if one.name == ISOLATED), None)
    made: dict[str, object] = {
        "categories": {name: one.action for one in overlay.url_category for name in one.categories},
        "applications": {name: one.action for one in overlay.application for name in one.applications},
        "signatures": "log" if any(one.severity and one.action == "log" for one in overlay.signatures) else "shipped",
    }
    if words:
        made |= {"words": "\n".join(words.words), "words_action": words.action}
    if sites:
        made |= {"sites": "\n".join((*sites.domains, *sites.urls, *sites.addresses)), "sites_action": sites.action}
    if CHOSEN in groups:
        made |= {"whom": "chosen", "devices": "\n".join(groups[CHOSEN].devices)}
    if hours:
        made |= {"hours": "hours", **_times(hours)}
    if cell:
        made["isolated"] = "\n".join(cell.devices)
    if overlay.restart:
        one = overlay.restart
        made |= {"restart_days": one.days, "restart_start": one.start, "restart_hours": str(one.hours)}
    return msgspec.convert(made, Choices)


def _times(hours: Schedule) -> dict[str, object]:
    days, _, span = hours.times[0].partition(" ")
    start, _, end = span.partition("-")
    return {"days": tuple(days.split(",")), "start": start, "end": end}


def read(form: Mapping[str, str]) -> Choices:
    """What a form says; every field of the page is there or has its first value."""

    def word(field: str, known: tuple[str, ...]) -> str:
        value = form.get(field, known[0])
        if value not in known:
            raise BadField(field, value)
        return value

    def several(prefix: str) -> tuple[str, ...]:
        return tuple(day for day in DAYS if form.get(f"{prefix}.{day}"))

    def devices(field: str) -> str:
        """Those that are ticked, then those that are written."""
        prefix = f"{field}."
        ticked = [key.removeprefix(prefix) for key, value in form.items() if key.startswith(prefix) and value]
        return "\n".join((*ticked, form.get(field, "")))

    return Choices(
        categories={name: found for name in titles() if (found := word(f"category.{name}", ACTIONS)) != "off"},
        applications={name: found for name in table() if (found := word(f"application.{name}", ACTIONS)) != "off"},
        words=form.get("words", ""),
        words_action=word("words_action", ("block", "log")),
        sites=form.get("sites", ""),
        sites_action=word("sites_action", ("block", "log")),
        signatures=word("signatures", ("shipped", "log")),
        whom=word("whom", ("all", "chosen")),
        devices=devices("devices"),
        hours=word("hours", ("always", "hours")),
        days=several("day"),
        start=form.get("start", "09:00"),
        end=form.get("end", "18:00"),
        isolated=devices("isolated"),
        restart_days=several("restart"),
        restart_start=form.get("restart_start", "03:00"),
        restart_hours=form.get("restart_hours", "3"),
    )


def put(overlay: Overlay, made: Choices, zone: str) -> Overlay:
    """The overlay with what the page decides in place of what it decided before.

    Raises:
        BadField: a line or a time means nothing.

    """
    devices = _devices("devices", made.devices) if made.whom == "chosen" else ()
    if made.whom == "chosen" and not devices:
        raise BadField("devices", "")
    if made.hours == "hours" and not made.days:
        raise BadField("days", "")
    groups = (CHOSEN,) if devices else ()
    schedule = HOURS if made.hours == "hours" else ""
    where: dict[str, object] = {"groups": groups, "schedule": schedule}
    isolated = _devices("isolated", made.isolated)
    kept = {
        kind: tuple(one for one in getattr(overlay, kind) if one.name not in PAGE_NAMES)
        for kind in ("group", "schedule", "keyword", "web_guard", "isolation")
    }
    return msgspec.structs.replace(
        overlay,
        zone=zone,
        group=kept["group"] + ((Group(name=CHOSEN, devices=devices),) if devices else ()),
        schedule=kept["schedule"] + ((_schedule(made),) if schedule else ()),
        url_category=tuple(
            UrlCategory(categories=names, action=action, dns="log", **where)  # type: ignore[arg-type]
            for action, names in _by_action(made.categories)
        ),
        application=tuple(
            Application(applications=names, action=action, **where)  # type: ignore[arg-type]
            for action, names in _by_action(made.applications)
        ),
        keyword=kept["keyword"] + _keyword(made, where),
        web_guard=kept["web_guard"] + _sites(made),
        isolation=kept["isolation"] + ((Isolation(name=ISOLATED, devices=isolated),) if isolated else ()),
        signatures=(Signatures(action="log", severity=tuple(range(1, 256))),) if made.signatures == "log" else (),
        restart=_restart(made),
    )


def _by_action(chosen: dict[str, str]) -> list[tuple[str, tuple[str, ...]]]:
    found = [(action, tuple(name for name, one in chosen.items() if one == action)) for action in ("block", "log")]
    return [(action, names) for action, names in found if names]


def _lines(field: str, text: str) -> tuple[str, ...]:
    lines = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if len(lines) > LINES:
        raise BadField(field, lines[LINES])
    return lines


def _devices(field: str, text: str) -> tuple[str, ...]:
    found = []
    for line in _lines(field, text):
        if not source.is_mac(line):
            raise BadField(field, line)
        found.append(source.mac(line))
    return tuple(found)


def _keyword(made: Choices, where: dict[str, object]) -> tuple[Keyword, ...]:
    words = _lines("words", made.words)
    for word in words:
        if not 2 <= len(word) <= 64 or not word.isprintable():
            raise BadField("words", word)
    return (Keyword(name=WORDS, words=words, action=made.words_action, **where),) if words else ()  # type: ignore[arg-type]


def _sites(made: Choices) -> tuple[WebGuard, ...]:
    """One list: what each line is (a name, a page, an address) the box finds out by itself."""
    lines = _lines("sites", made.sites)
    for line in lines:
        try:
            lists.from_words(line.split(None, 1))
        except ValueError as err:
            raise BadField("sites", line) from err
        if " " in line or not line.isprintable():
            raise BadField("sites", line)
    addresses = tuple(line for line in lines if _is_network(line))
    urls = tuple(line for line in lines if "/" in line and line not in addresses)
    names = tuple(line for line in lines if line not in addresses and line not in urls)
    one = WebGuard(name=SITES, domains=names, urls=urls, addresses=addresses, action=made.sites_action, dns="log")  # type: ignore[arg-type]
    return (one,) if lines else ()


def _is_network(line: str) -> bool:
    try:
        source.network(line)
    except ValueError:
        return False
    return True


def _schedule(made: Choices) -> Schedule:
    for field, value in (("start", made.start), ("end", made.end)):
        if not _CLOCK.fullmatch(value):
            raise BadField(field, value)
    if made.start == made.end:
        raise BadField("end", made.end)
    return Schedule(name=HOURS, times=(f"{','.join(made.days)} {made.start}-{made.end}",))


def _restart(made: Choices) -> Restart | None:
    if not made.restart_days:
        return None
    if not _CLOCK.fullmatch(made.restart_start):
        raise BadField("restart_start", made.restart_start)
    if not re.fullmatch(r"[1-9]|1[0-2]", made.restart_hours):
        raise BadField("restart_hours", made.restart_hours)
    return Restart(days=made.restart_days, start=made.restart_start, hours=int(made.restart_hours))  # type: ignore[arg-type]
