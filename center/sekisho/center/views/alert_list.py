"""Reading alerts: lists by keyset, one with what happened to it, and the sums of the home page.

Every query takes a scope, uses an index and has a bound, so it takes as long with ten million rows as with ten
thousand: where filters beyond an index are asked for, the newest `WINDOW` rows are looked through, and the answer says
from where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.scope import Scope
from sekisho.center.views.alerts import ALERT, ALERT_HOUR, ALERT_NOTE, INSPECTION, searchable

WINDOW: Final = 10_000
PAGE: Final = 50
COUNT_CAP: Final = 100
"""Where counting ends: more is told as "99 and more"."""
OTHERS: Final = 10
NOTES_CAP: Final = 200


class Wanted(msgspec.Struct, frozen=True):
    """What a list shows; empty: everything."""

    stars: int = 0
    state: str = ""
    mac: str = ""
    function: str = ""
    since: str = ""
    """Received from then on, as stored times are written."""
    until: str = ""
    """Received before then."""
    text: str = ""
    before: int = 0
    """Ids below this one; 0: from the newest on."""


class Line(msgspec.Struct, frozen=True):
    """One alert in a list."""

    id: int
    tenant: str
    box: str
    at: str
    received_at: str
    stars: int
    type: str
    why: str
    mac: str
    device: str
    function: str
    sid: int
    done: str
    count: int
    state: str
    seen_at: str


class Listed(msgspec.Struct, frozen=True):
    """A page of a list."""

    lines: list[Line]
    next: int
    """Where the next page begins (`Wanted.before`); 0: there is none."""
    more_to_search: bool
    """The window ended before the page was full."""


class Whole(msgspec.Struct, frozen=True):
    """One alert with all that is kept of it."""

    line: Line
    epoch: str
    seq: int
    topic: str
    body: bytes
    handled_by: str
    handled_at: str


class Note(msgspec.Struct, frozen=True):
    """What somebody did or wrote."""

    at: str
    who: str
    kind: str
    text: str


class Sum(msgspec.Struct, frozen=True):
    """What one hour had."""

    hour: str
    detections: int
    blocked: int
    important: int


_LINE: Final = tuple(ALERT.c[name] for name in Line.__struct_fields__)
_NEWEST: Final = ALERT.c.id.desc()


def listed(db: sa.Connection, scope: Scope, wanted: Wanted, limit: int = PAGE, window: int = 0) -> Listed:
    """A page, newest first; `window` where fewer rows than WINDOW are worth looking through."""
    inside = [scope.of(ALERT.c.tenant), *_range(db, scope, wanted)]
    keys, rest = _conditions(wanted)
    floor = None
    if rest:
        edge = sa.select(ALERT.c.id).where(*inside, *keys).order_by(_NEWEST).offset((window or WINDOW) - 1).limit(1)
        floor = db.execute(edge).scalar()
        rest += [ALERT.c.id >= floor] if floor is not None else []
    query = sa.select(*_LINE).where(*inside, *keys, *rest).order_by(_NEWEST).limit(limit + 1)
    lines = [Line(*row) for row in db.execute(query)]
    if len(lines) > limit:
        return Listed(lines[:limit], lines[limit - 1].id, more_to_search=False)
    return Listed(lines, floor or 0, more_to_search=floor is not None)


def find(db: sa.Connection, scope: Scope, id_: int) -> Whole | None:
    """One alert of the scope's."""
    columns = (ALERT.c[name] for name in Whole.__struct_fields__[1:])
    row = db.execute(sa.select(*_LINE, *columns).where(scope.of(ALERT.c.tenant), ALERT.c.id == id_)).first()
    return Whole(Line(*row[: len(_LINE)]), *row[len(_LINE) :]) if row else None


def others(db: sa.Connection, scope: Scope, whole: Whole) -> list[Line]:
    """Other occurrences of the same thing, newest first."""
    same = (scope.of(ALERT.c.tenant), ALERT.c.topic == whole.topic)
    query = sa.select(*_LINE).where(*same).order_by(_NEWEST).limit(OTHERS + 1)
    return [Line(*row) for row in db.execute(query) if row.id != whole.line.id][:OTHERS]


def notes(db: sa.Connection, scope: Scope, id_: int) -> list[Note]:
    """What people did about it, oldest first."""
    columns = (ALERT_NOTE.c[name] for name in Note.__struct_fields__)
    mine = (scope.of(ALERT_NOTE.c.tenant), ALERT_NOTE.c.alert == id_)
    query = sa.select(*columns).where(*mine).order_by(ALERT_NOTE.c.id).limit(NOTES_CAP)
    return [Note(*row) for row in db.execute(query)]


def waiting(db: sa.Connection, scope: Scope, stars: int = 3) -> int:
    """How many of these nobody has handled, up to COUNT_CAP."""
    which = (scope.of(ALERT.c.tenant), ALERT.c.state == "open", ALERT.c.stars == stars)
    some = sa.select(ALERT.c.id).where(*which).limit(COUNT_CAP).subquery()
    return int(db.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())


def newest(db: sa.Connection, scope: Scope) -> int:
    """The newest alert's id; 0: there is none."""
    query = sa.select(ALERT.c.id).where(scope.of(ALERT.c.tenant)).order_by(_NEWEST).limit(1)
    return int(db.execute(query).scalar() or 0)


def sums(db: sa.Connection, scope: Scope, since_hour: str) -> list[Sum]:
    """What the hours from this one on had."""
    columns = (ALERT_HOUR.c[name] for name in Sum.__struct_fields__)
    query = sa.select(*columns).where(scope.of(ALERT_HOUR.c.tenant), ALERT_HOUR.c.hour >= since_hour)
    return [Sum(*row) for row in db.execute(query)]


def uninspected(db: sa.Connection, scope: Scope) -> list[tuple[str, str]]:
    """(box, since when) of boxes that said last that some of them does not look at traffic."""
    query = sa.select(INSPECTION.c.box, INSPECTION.c.at, INSPECTION.c.state).where(scope.of(INSPECTION.c.tenant))
    return [(row.box, row.at) for row in db.execute(query) if row.state != "ended"]


def _conditions(wanted: Wanted) -> tuple[list[Any], list[Any]]:
    """(what an index finds, what the rows it finds are looked through for).

    The latter are written so that no index fits them: a database without statistics would take the wrong one.
    """
    stars = [ALERT.c.stars == wanted.stars] if wanted.stars else []
    state = [ALERT.c.state == wanted.state] if wanted.state else []
    rest = [ALERT.c.function == wanted.function] if wanted.function else []
    if wanted.text:
        rest.append(ALERT.c.names.contains(searchable(wanted.text), autoescape=True))
    among = [ALERT.c.state.concat("") == wanted.state] if wanted.state else []
    if wanted.mac:
        among += [ALERT.c.stars + 0 == wanted.stars] if wanted.stars else []
        return [ALERT.c.mac == wanted.mac], among + rest
    return (stars + state, rest) if stars else ([], among + rest)


def _range(db: sa.Connection, scope: Scope, wanted: Wanted) -> Sequence[sa.ColumnElement[bool]]:
    """The period as ids, which grow with the time of receipt."""
    found = [ALERT.c.id < wanted.before] if wanted.before else []
    if wanted.since:
        first = _first_from(db, scope, wanted.since)
        found.append(ALERT.c.id >= first if first else sa.false())
    if wanted.until and (end := _first_from(db, scope, wanted.until)):
        found.append(ALERT.c.id < end)
    return found


def _first_from(db: sa.Connection, scope: Scope, at: str) -> int:
    mine = (scope.of(ALERT.c.tenant), ALERT.c.received_at >= at)
    query = sa.select(ALERT.c.id).where(*mine).order_by(ALERT.c.received_at, ALERT.c.id).limit(1)
    return int(db.execute(query).scalar() or 0)
