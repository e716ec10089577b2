"""Alerts as people read them: the rubric's words, what the box did, which device and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.devices import DEVICE, Known
from sekisho.center.notify import words
from sekisho.center.notify.told import tell
from sekisho.center.tenants import Locale
from sekisho.center.views.alert_list import Line, Whole
from sekisho.telemetry import events, reasons

_EXCEPTABLE: Final = ("alert", "policy")
"""Types of what a rule decided: an exception can be made from it."""


class Entry(msgspec.Struct, frozen=True):
    """One alert in a list; `name`, `address` and `place` are strangers' or customers' words."""

    id: int
    stars: int
    title: str
    at: str
    count: int
    kind: str
    """What kind of device; empty: not known."""
    name: str
    vendor: str
    address: str
    mac: str
    place: str
    done: str
    state: str
    seen: bool
    function: str


class Detail(msgspec.Struct, frozen=True):
    """The same with everything a person may want to know."""

    entry: Entry
    matters: str
    todo: str
    until: str
    facts: list[tuple[str, str]]
    """(label in our words, value in anybody's)."""
    box: str
    received_at: str
    exceptable: bool


def entries(db: sa.Connection, lines: Sequence[Line], locale: Locale) -> list[Entry]:
    """The lines with their words; they are one tenant's."""
    if not lines:
        return []
    tenant = lines[0].tenant
    known = _known(db, tenant, {(line.box, line.mac) for line in lines if line.mac})
    sites = tenants.sites(db, tenant)
    return [_entry(line, known.get((line.box, line.mac), Known()), sites, locale) for line in lines]


def detail(db: sa.Connection, whole: Whole, locale: Locale) -> Detail:
    """One alert's page."""
    line = whole.line
    (entry,) = entries(db, [line], locale)
    told = tell(line.box, events.decode(whole.body))
    facts = told.facts if told else []
    reason = reasons.of(line.why, locale) if line.why in reasons.codes() else None
    return Detail(
        entry=entry,
        matters=reason.matters if reason else "",
        todo=reason.todo if reason else words.say(locale, "unknown", "todo"),
        until=told.until if told else "",
        facts=[(words.say(locale, "fact", label), value) for label, value in facts],
        box=line.box,
        received_at=line.received_at,
        exceptable=line.type in _EXCEPTABLE and (line.sid > 0 or line.function != "signature"),
    )


def _entry(line: Line, known: Known, sites: dict[str, str], locale: Locale) -> Entry:
    return Entry(
        id=line.id,
        stars=line.stars,
        title=_title(line.why, locale),
        at=line.at or line.received_at,
        count=line.count,
        kind=words.say(locale, "device", known.kind) if words.has("device", known.kind) else "",
        name=known.name,
        vendor=known.vendor,
        address=line.device,
        mac=line.mac,
        place=sites.get(line.box, ""),
        done=words.say(locale, "done", line.done) if words.has("done", line.done) else "",
        state=line.state,
        seen=bool(line.seen_at),
        function=line.function,
    )


def _title(why: str, locale: Locale) -> str:
    return reasons.of(why, locale).what if why in reasons.codes() else words.say(locale, "unknown", "title")


def _known(db: sa.Connection, tenant: str, which: set[tuple[str, str]]) -> dict[tuple[str, str], Known]:
    if not which:
        return {}
    boxes, macs = {box for box, _ in which}, {mac for _, mac in which}
    mine = (DEVICE.c.tenant == tenant, DEVICE.c.box.in_(sorted(boxes)), DEVICE.c.mac.in_(sorted(macs)))
    columns = (DEVICE.c.box, DEVICE.c.mac, DEVICE.c.name, DEVICE.c.kind, DEVICE.c.vendor)
    return {
        (row.box, row.mac): Known(row.name, row.kind, row.vendor)
        for row in db.execute(sa.select(*columns).where(*mine))
    }
