"""How each box's rules are: which set it works with, how fresh, what it refused, which boxes are behind or without.

A box says how fresh its rules are; what it said long ago is not repeated as if it were so now.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import fleet
from sekisho.center.fleet import Placed
from sekisho.center.rules.tables import RULE_WORD
from sekisho.center.scope import Scope
from sekisho.center.views.noise import NOISE_RULE
from sekisho.center.views.rulesets import MUTED, RULES

SPOKEN: Final = dt.timedelta(hours=13)
"""A box speaks of its rules every six hours: after twice that nothing is known of them."""
LONG: Final = dt.timedelta(days=14)
"""Rules that were not compared with the newest for so long are the centre's staff's business."""
BOXES_CAP: Final = 500
MUTED_CAP: Final = 100
NUMBERS_CAP: Final = 100

Grade = Literal["fresh", "aging", "stale", "unknown", "own"]
"""`own`: the box has never taken rules from the centre's channel."""
Trouble = Literal["silent", "refused", "stale", "unheard", "behind"]
TROUBLES: Final[tuple[Trouble, ...]] = ("silent", "refused", "stale", "unheard", "behind")
"""The gravest first."""


class Ruleset(msgspec.Struct, frozen=True):
    """What one box said last of its rules; times are UTC, empty where it said none."""

    box: str
    at: str
    number: int
    set: str
    since: str
    soaking: int
    rules: int
    yara: int
    failed: int
    freshness: str
    built: str
    checked: str
    refused: int
    refused_at: str
    refused_how: str
    refused_why: str
    silent: str
    silent_why: str
    muted: list[int] = []

    def grade(self, now: dt.datetime) -> Grade:
        """How fresh the set is, as far as can be told now."""
        if self.freshness == "stale" and self.at:
            return "stale"
        if not self.at or now - _moment(self.at) > SPOKEN:
            return "unknown"
        if not self.number and not self.checked:
            return "own"
        return self.freshness if self.freshness in ("fresh", "aging") else "unknown"  # type: ignore[return-value]


class Troubled(msgspec.Struct, frozen=True):
    """A box whose rules somebody should look at."""

    placed: Placed
    trouble: Trouble
    number: int
    refused: int
    at: str
    """Since when, or when it spoke last of them."""
    why: str


class Running(msgspec.Struct, frozen=True):
    """How many boxes work with a set; 0: not of the channel, -1: they have not said."""

    number: int
    boxes: int


class Mute(msgspec.Struct, frozen=True):
    """A rule that boxes left out by themselves."""

    sid: int
    boxes: int
    name: str
    """Of its alerts, where there were any lately."""


def of_boxes(db: sa.Connection, scope: Scope, box: str = "") -> dict[str, Ruleset]:
    """By box; a box that never spoke of its rules is not in it."""
    which = [scope.of(RULES.c.tenant), *([RULES.c.box == box] if box else [])]
    columns = [RULES.c[name] for name in Ruleset.__struct_fields__[:-1]]
    rows = db.execute(sa.select(*columns).where(*which).order_by(RULES.c.box).limit(BOXES_CAP)).all()
    if not rows:
        return {}
    muted: dict[str, list[int]] = {}
    some = sa.select(MUTED.c.box, MUTED.c.sid).where(scope.of(MUTED.c.tenant))
    some = some.where(MUTED.c.box.in_([row.box for row in rows])).order_by(MUTED.c.box, MUTED.c.sid)
    for name, sid in db.execute(some):
        muted.setdefault(name, []).append(sid)
    return {row.box: Ruleset(**row._mapping, muted=muted.get(row.box, [])) for row in rows}


def newest(db: sa.Connection) -> int:
    """The number announced last; until one is, the highest that any box works with. 0: there is none."""
    announced = db.scalar(sa.select(RULE_WORD.c.newest))
    return int(announced or db.scalar(sa.select(sa.func.max(RULES.c.number))) or 0)


def running(db: sa.Connection, scope: Scope) -> list[Running]:
    """How many connected boxes work with which set, newest first, those that have not said last."""
    of = fleet.connected(scope).subquery()
    number = sa.func.coalesce(RULES.c.number, -1)
    joined = sa.outerjoin(of, RULES, sa.and_(RULES.c.tenant == of.c.tenant, RULES.c.box == of.c.box))
    query = sa.select(number.label("number"), sa.func.count()).select_from(joined).group_by(number)
    rows = db.execute(query.order_by(number.desc()).limit(NUMBERS_CAP))
    return [Running(*row) for row in rows]


def counted(db: sa.Connection, scope: Scope, now: dt.datetime) -> dict[Trouble, int]:
    """How many connected boxes have which trouble; one box has the gravest only."""
    of = _troubled(scope, newest(db), now).subquery()
    rows = {row[0]: int(row[1]) for row in db.execute(sa.select(of.c.trouble, sa.func.count()).group_by(of.c.trouble))}
    return {trouble: rows.get(place, 0) for place, trouble in enumerate(TROUBLES)}


def troubled(db: sa.Connection, scope: Scope, now: dt.datetime, after: str = "") -> list[Troubled]:
    """Connected boxes that somebody should look at, the gravest first; one more than `fleet.PAGE` where there are more.

    `after`: `mark` of the last one seen.
    """
    of = _troubled(scope, newest(db), now).subquery()
    rank, _, box = after.partition(".")
    query = sa.select(of)
    if rank.isascii() and rank.isdigit() and len(rank) == 1:
        query = query.where(sa.or_(of.c.trouble > int(rank), sa.and_(of.c.trouble == int(rank), of.c.box > box)))
    rows = db.execute(query.order_by(of.c.trouble, of.c.box).limit(fleet.PAGE + 1)).all()
    return [_trouble(placed, row) for placed, row in zip(fleet.named(db, scope, rows), rows, strict=True)]


def mark(one: Troubled) -> str:
    """Where the page after this one begins."""
    return f"{TROUBLES.index(one.trouble)}.{one.placed.box}"


def muted(db: sa.Connection, scope: Scope) -> list[Mute]:
    """Rules that boxes left out by themselves, those of most boxes first."""
    boxes = sa.func.count()
    query = sa.select(MUTED.c.sid, boxes).where(scope.of(MUTED.c.tenant)).group_by(MUTED.c.sid)
    rows = db.execute(query.order_by(boxes.desc(), MUTED.c.sid).limit(MUTED_CAP)).all()
    said = sa.select(NOISE_RULE.c.sid, sa.func.max(NOISE_RULE.c.name)).group_by(NOISE_RULE.c.sid)
    names = {row[0]: row[1] for row in db.execute(said.where(NOISE_RULE.c.sid.in_([row.sid for row in rows])))}
    return [Mute(sid, int(number), names.get(sid, "")) for sid, number in rows]


def _troubled(scope: Scope, newest: int, now: dt.datetime) -> sa.Select[Any]:
    """Connected boxes with the place of their trouble among `TROUBLES`."""
    of = fleet.connected(scope).subquery()
    unheard, long = utc.text(now - SPOKEN), utc.text(now - LONG)
    place = sa.case(
        (RULES.c.silent != "", 0),
        (RULES.c.refused > 0, 1),
        (sa.or_(RULES.c.freshness == "stale", sa.and_(RULES.c.checked != "", RULES.c.checked < long)), 2),
        (RULES.c.at < unheard, 3),
        (sa.and_(RULES.c.number > 0, RULES.c.number < newest), 4),
    )
    said = ("number", "refused", "at", "refused_at", "refused_why", "silent", "silent_why", "checked")
    columns = [RULES.c[name].label(f"said_{name}" if name == "at" else name) for name in said]
    joined = of.join(RULES, sa.and_(RULES.c.tenant == of.c.tenant, RULES.c.box == of.c.box))
    return sa.select(of, *columns, place.label("trouble")).select_from(joined).where(place.is_not(None))


def _trouble(placed: Placed, row: sa.Row[Any]) -> Troubled:
    trouble = TROUBLES[row.trouble]
    at = {"silent": row.silent, "refused": row.refused_at, "stale": row.checked}.get(trouble, row.said_at)
    why = {"silent": row.silent_why, "refused": row.refused_why}.get(trouble, "")
    return Troubled(placed, trouble, row.number, row.refused, at, why)


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
