"""When the centre's staff is told of boxes that work without rules, or with very old ones: all of them in one mail.

A bad set can do it to every box at once, and one box can lose its rules every minute: a mail goes when the first box
is seen, when there are twice as many, and once a day while it lasts; what is well for six hours begins anew.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.notify.tables import moment, text
from sekisho.center.rulesets import LONG
from sekisho.center.store import BOX
from sekisho.center.views.rulesets import RULES

What = Literal["silent", "stale"]

AGAIN: Final = dt.timedelta(hours=24)
CALM: Final = dt.timedelta(hours=6)


class Told(msgspec.Struct, frozen=True):
    """What the staff was last told of one of these."""

    number: int = 0
    """Boxes; 0: nothing."""
    at: str = ""
    since: str = ""
    """Since when there was at least one."""
    calm: str = ""
    """Since when there is none any more."""


class Upkeep(msgspec.Struct, frozen=True):
    """Of both."""

    silent: Told = Told()
    stale: Told = Told()


def count(db: sa.Connection, now: dt.datetime) -> dict[What, int]:
    """How many connected boxes there are of each kind."""
    on = sa.join(RULES, BOX, sa.and_(BOX.c.box == RULES.c.box, BOX.c.tenant == RULES.c.tenant, BOX.c.state == "on"))
    old = sa.and_(RULES.c.checked != "", RULES.c.checked < text(now - LONG))
    which: dict[What, sa.ColumnElement[bool]] = {"silent": RULES.c.silent != "", "stale": old}
    number = sa.select(sa.func.count()).select_from(on)
    return {what: int(db.scalar(number.where(condition)) or 0) for what, condition in which.items()}


def judge(was: Told, number: int, now: dt.datetime) -> tuple[Told, bool]:
    """What is remembered from now on, and whether the staff is told."""
    if not number:
        if not was.number:
            return was, False
        if was.calm and now - moment(was.calm) >= CALM:
            return Told(), False
        return msgspec.structs.replace(was, calm=was.calm or text(now)), False
    known = msgspec.structs.replace(was, calm="", since=was.since or text(now))
    if not was.number or number >= 2 * was.number or now - moment(was.at) >= AGAIN:
        return msgspec.structs.replace(known, number=number, at=text(now)), True
    return known, False
