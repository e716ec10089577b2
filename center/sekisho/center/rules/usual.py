"""What is usual in the fleet: how often each rule speaks per box and day, from the counts of the noise view.

Whole days (UTC) only. A box counts when it is connected or was within these days, whether or not a rule spoke on it.
The form is that of a published set's `baseline.json`.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center.store import BOX
from sekisho.center.views.noise import KEPT_DAYS, NOISE, NOISE_RULE, YARA

DAYS: Final = 14
MAX_DAYS: Final = KEPT_DAYS - 1
_MAX_SID: Final = (1 << 32) - 1


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """`baseline.json`."""

    boxes: int
    sids: dict[int, float]
    """Alerts per box and day."""
    yara: dict[str, float]
    """File verdicts per box and day."""


def count(db: sa.Connection, today: dt.date, days: int = DAYS) -> Usual:
    """Over the `days` before today, or as many as there are counts of; without any, of no box."""
    first = str(today - dt.timedelta(days=min(days, MAX_DAYS)))
    within = (NOISE_RULE.c.day >= first, NOISE_RULE.c.day < str(today))
    begun = db.scalar(sa.select(sa.func.min(NOISE_RULE.c.day)).where(*within))
    boxes = _boxes(db, first, str(today)) if begun else 0
    if not begun or not boxes:
        return Usual(boxes=0, sids={}, yara={})
    share = 1.0 / (boxes * (today - dt.date.fromisoformat(begun)).days)
    total = sa.func.sum(NOISE_RULE.c.count)
    query = sa.select(NOISE_RULE.c.function, NOISE_RULE.c.sid, total).where(*within)
    rows = db.execute(query.group_by(NOISE_RULE.c.function, NOISE_RULE.c.sid))
    sids, yara = {}, {}
    for function, sid, number in rows:
        if function == "signature" and 0 < sid <= _MAX_SID:
            sids[sid] = _rounded(int(number) * share)
        elif function.startswith(YARA):
            yara[function.removeprefix(YARA)] = _rounded(int(number) * share)
    return Usual(boxes=boxes, sids=dict(sorted(sids.items())), yara=dict(sorted(yara.items())))


def _boxes(db: sa.Connection, first: str, today: str) -> int:
    there = sa.select(BOX.c.box).where(sa.or_(BOX.c.state == "on", BOX.c.changed_at >= first))
    spoke = sa.select(NOISE.c.box).where(NOISE.c.day >= first, NOISE.c.day < today)
    return int(db.scalar(sa.select(sa.func.count()).select_from(sa.union(there, spoke).subquery())) or 0)


def _rounded(rate: float) -> float:
    return float(f"{rate:.4g}")
