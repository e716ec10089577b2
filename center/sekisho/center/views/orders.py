"""What boxes said of the settings made at the centre, and how often each exception was used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.center.scope import Scope
from sekisho.telemetry.events import Alert, Applied

if TYPE_CHECKING:
    from sekisho.center.views.model import Row

APPLIED: Final = sa.Table(
    "applied",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("n", sa.BigInteger, nullable=False, doc="the newest document the box spoke of"),
    sa.Column("state", sa.Text, nullable=False, doc="in_force or refused"),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("overruled", sa.BigInteger, nullable=False),
    sa.Column("force_n", sa.BigInteger, nullable=False, doc="the document it said last is in force; 0: none"),
    sa.Column("force_at", sa.Text, nullable=False),
)
USE: Final = sa.Table(
    "exception_use",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("exception", sa.Text, primary_key=True),
    sa.Column("hits", sa.BigInteger, nullable=False),
    sa.Column("last", sa.Text, nullable=False),
)
TABLES: Final = (APPLIED, USE)
HITS_CAP: Final = 1 << 53
NAME_CAP: Final = 48
"""Characters of an exception's identifier; a longer one is none."""
USES_CAP: Final = 2000
"""Exceptions of one box whose uses are counted."""

_Key = tuple[str, str, str]


def take(db: sa.Connection, rows: Sequence[Row]) -> None:
    """Keep what these events say."""
    used: dict[tuple[str, str, str], tuple[int, str]] = {}
    for row in rows:
        event = row.event
        if isinstance(event, Applied) and event.number:
            _applied(db, row, event)
        elif isinstance(event, Alert) and 0 < len(event.exception) <= NAME_CAP and event.exception.isprintable():
            key = (row.tenant, row.box, event.exception)
            hits, last = used.get(key, (0, ""))
            until = event.until if len(event.until) <= NAME_CAP and event.until.isprintable() else ""
            used[key] = (min(hits + event.count, HITS_CAP), max(last, until or event.at))
    for key in _with_room(db, used):
        _used(db, key, *used[key])


def _with_room(db: sa.Connection, used: dict[_Key, tuple[int, str]]) -> list[_Key]:
    """Without what is beyond a box's `USES_CAP`: names are the box's word, and are never forgotten."""
    if not used:
        return []
    places = sorted({key[:2] for key in used})
    columns = (USE.c.tenant, USE.c.box, USE.c.exception)
    rows = db.execute(sa.select(*columns).where(sa.tuple_(USE.c.tenant, USE.c.box).in_(places)))
    known = {(row.tenant, row.box, row.exception) for row in rows}
    full = Counter(key[:2] for key in known)
    kept = []
    for key in sorted(used):
        if key not in known:
            if full[key[:2]] >= USES_CAP:
                continue
            full[key[:2]] += 1
        kept.append(key)
    return kept


def _used(db: sa.Connection, key: _Key, hits: int, last: str) -> None:
    where = dict(zip(("tenant", "box", "exception"), key, strict=True))
    db.execute(insert_new(db, USE), {**where, "hits": 0, "last": ""})
    newer = sa.case((USE.c.last < last, last), else_=USE.c.last)
    sum_ = sa.case((USE.c.hits < HITS_CAP - hits, USE.c.hits + hits), else_=HITS_CAP)
    which = sa.and_(*(USE.c[name] == value for name, value in where.items()))
    db.execute(USE.update().where(which).values(hits=sum_, last=newer))


def _applied(db: sa.Connection, row: Row, event: Applied) -> None:
    """A later word about a document replaces an earlier one; what is in force is what was said last to be."""
    where = {"box": row.box, "tenant": row.tenant}
    fresh = {"n": 0, "state": "", "why": "", "at": "", "overruled": 0, "force_n": 0, "force_at": ""}
    db.execute(insert_new(db, APPLIED), {**where, **fresh})
    which = sa.and_(APPLIED.c.box == row.box, APPLIED.c.tenant == row.tenant)
    said: dict[str, Any] = {"n": event.number, "state": event.state, "why": event.why, "at": row.at}
    newer = sa.or_(APPLIED.c.n < event.number, sa.and_(APPLIED.c.n == event.number, APPLIED.c.at <= row.at))
    db.execute(APPLIED.update().where(which, newer).values(overruled=event.overruled, **said))
    if event.state == "in_force":
        later = APPLIED.c.force_at <= row.at
        db.execute(APPLIED.update().where(which, later).values(force_n=event.number, force_at=row.at))


def uses(db: sa.Connection, scope: Scope, limit: int = 2000) -> dict[tuple[str, str], tuple[int, str]]:
    """(Box, exception) -> hits and the time of the last."""
    what = sa.select(USE.c.box, USE.c.exception, USE.c.hits, USE.c.last)
    rows = db.execute(what.where(scope.of(USE.c.tenant)).limit(limit))
    return {(row.box, row.exception): (row.hits, row.last) for row in rows}
