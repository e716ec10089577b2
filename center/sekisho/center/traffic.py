"""The communication log: who asked for what and when, a page at a time, from the events themselves.

A page reads at most `LOOK_CAP` events, however much is stored. A search that has found too little by then says how far
it has looked and goes on from there when asked.
"""

from __future__ import annotations

import datetime as dt
import heapq
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.scope import Scope
from sekisho.center.store import EVENT
from sekisho.center.views import passages
from sekisho.center.views.passages import ACTIVE, DAY_US, HOUR_US, KINDS, PASSAGE, WEEK_US
from sekisho.telemetry import events
from sekisho.telemetry.events import Event

PAGE: Final = 50
LOOK_CAP: Final = 4000
_CHUNK: Final = 500
_ASK_COST: Final = 20
"""What asking for the places of one box and kind costs, in events read."""
DAYS_CAP: Final = 400
_PLAIN: Final = re.compile(r"[a-z0-9.:_-]+")
"""A site that stands in JSON as it is."""

Place = tuple[int, int]
"""(time in microseconds, event): what is older comes next."""


class Wanted(msgspec.Struct, frozen=True):
    """What is looked for; empty means any."""

    boxes: tuple[str, ...]
    kinds: tuple[str, ...] = KINDS
    mac: str = ""
    site: str = ""
    """A name, lower case, or an address; a registered domain stands for all names under it."""
    since_us: int = 0
    until_us: int = 1 << 60


class Entry(msgspec.Struct, frozen=True):
    """One line of the log."""

    place: Place
    box: str
    kind: str
    event: Event


class Found(msgspec.Struct, frozen=True):
    """A page. `place` is where the next one begins; None when there is none."""

    entries: list[Entry]
    place: Place | None = None
    looked: bool = True
    """False when the search stopped at its cap: there may be more further back."""


def search(db: sa.Connection, scope: Scope, wanted: Wanted, place: Place | None = None, *, page: int = PAGE) -> Found:
    """The newest entries that fit and are older than `place`."""
    found: list[Entry] = []
    read = 0
    last: Place = place or (wanted.until_us, 0)
    chunk = _CHUNK if wanted.mac or wanted.site else page + 1
    for since, until in _windows(db, scope, wanted, last):
        at: Place = last if since <= last[0] < until else (until, 0)
        read += _ASK_COST * len(wanted.boxes) * len(wanted.kinds)
        merged = _places(db, scope, wanted, since, at)
        while places := list(islice(merged, chunk)):
            for entry in _entries(db, scope, wanted, places):
                if len(found) == page:
                    return Found(found, found[-1].place)
                found.append(entry)
            read += len(places)
            if read >= LOOK_CAP:
                return Found(found, places[-1], looked=False)
        if read >= LOOK_CAP:
            return Found(found, (since, 0), looked=False)
    return Found(found)


def _windows(db: sa.Connection, scope: Scope, wanted: Wanted, place: Place) -> Iterator[tuple[int, int]]:
    """Spans of time worth reading, the newest first, none over the end of a week."""
    until = min(place[0] + 1, wanted.until_us)
    if wanted.mac or wanted.site:
        yield from _by_week(_active(db, scope, wanted, until))
        return
    newest, oldest = _ends(db, scope)
    since = max(wanted.since_us, oldest)
    yield from _by_week([(since, min(until, newest))])


def _ends(db: sa.Connection, scope: Scope) -> tuple[int, int]:
    """End of the newest week that has anything, and beginning of the oldest."""
    mine = scope.of(PASSAGE.c.tenant)
    newest, oldest = (db.scalar(sa.select(end(PASSAGE.c.week)).where(mine)) for end in (sa.func.max, sa.func.min))
    return ((newest + 1) * WEEK_US, oldest * WEEK_US) if newest is not None else (0, 0)


def _active(db: sa.Connection, scope: Scope, wanted: Wanted, until: int) -> list[tuple[int, int]]:
    """Hours in which the device and the site both were active, neighbours joined."""
    terms = [passages.by_device(wanted.mac)] if wanted.mac else []
    terms += [passages.by_site(passages.domain_of(wanted.site))] if wanted.site else []
    newest, oldest = _ends(db, scope)
    first, last = max(wanted.since_us, oldest) // DAY_US, (min(until, newest) - 1) // DAY_US
    days = range(max(first, last - DAYS_CAP), last + 1)
    which = (scope.of(ACTIVE.c.tenant), ACTIVE.c.day.in_(days), ACTIVE.c.term.in_(terms))
    masks: dict[int, list[int]] = {}
    for day, hours in db.execute(sa.select(ACTIVE.c.day, ACTIVE.c.hours).where(*which)):
        masks.setdefault(day, []).append(hours)
    spans: list[tuple[int, int]] = []
    for day in sorted(masks, reverse=True):
        bits = masks[day][0] & masks[day][-1] if len(masks[day]) == len(terms) else 0
        for hour in reversed(range(24)):
            if bits >> hour & 1:
                begin = day * DAY_US + hour * HOUR_US
                if spans and spans[-1][0] == begin + HOUR_US:
                    spans[-1] = (begin, spans[-1][1])
                else:
                    spans.append((begin, begin + HOUR_US))
    return [(max(a, wanted.since_us), min(b, until)) for a, b in spans if b > wanted.since_us and a < until]


def _by_week(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for since, until in spans:
        end = until
        while end > since:
            begin = max(since, (end - 1) // WEEK_US * WEEK_US)
            yield begin, end
            end = begin


def _places(db: sa.Connection, scope: Scope, wanted: Wanted, since: int, at: Place) -> Iterator[Place]:
    """What is older than `at` in a window, the newest first, of all boxes and kinds wanted; read as it is taken."""
    key = (PASSAGE.c.at, PASSAGE.c.event)
    week = (at[0] - 1 if at[1] == 0 else at[0]) // WEEK_US
    older = sa.tuple_(*key) < sa.tuple_(*map(sa.literal, at))
    query = sa.select(*key).where(scope.of(PASSAGE.c.tenant), PASSAGE.c.week == week, PASSAGE.c.at >= since, older)
    newest = query.order_by(PASSAGE.c.at.desc(), PASSAGE.c.event.desc()).limit(LOOK_CAP + 1)
    streamed = newest.execution_options(stream_results=True)
    parts = [
        db.execute(streamed.where(PASSAGE.c.term == passages.by_kind(box, kind)))
        for box in wanted.boxes
        for kind in wanted.kinds
    ]
    return heapq.merge(*map(_run, parts), reverse=True)


def _run(rows: sa.CursorResult[Any]) -> Iterator[Place]:
    for row in rows:
        yield row.at, row.event


def _entries(db: sa.Connection, scope: Scope, wanted: Wanted, places: Sequence[Place]) -> list[Entry]:
    """The events at these places that are what is wanted; one that retention has taken is passed over."""
    ids = [event for _, event in places]
    query = sa.select(EVENT.c.id, EVENT.c.box, EVENT.c.type, EVENT.c.body)
    rows = db.execute(query.where(EVENT.c.id.in_(ids), scope.of(EVENT.c.tenant))) if ids else ()
    stored = {row.id: row for row in rows}
    hint = wanted.site.encode() if _PLAIN.fullmatch(wanted.site) else b""
    found = []
    for place in places:
        row = stored.get(place[1])
        if row is None or row.box not in wanted.boxes or row.type not in wanted.kinds:
            continue
        if wanted.mac.encode() not in row.body or hint not in row.body.lower():  # spares the decoding
            continue
        event = events.decode(row.body)
        if _fits(event, wanted):
            found.append(Entry(place, row.box, row.type, event))
    return found


def _fits(event: Any, wanted: Wanted) -> bool:
    if wanted.mac and event.flow.mac != wanted.mac:
        return False
    site = passages.site_of(event)
    return not wanted.site or site == wanted.site or site.endswith("." + wanted.site)


def micros(at: dt.datetime) -> int:
    return passages.micros(at)
