"""What is kept for research when customers are gone: counts by day and function that point to nobody.

A count is kept only where many customers share in it and none of them is most of it; it is rounded. It is made of the
hourly counts while they are there and never changed later, so what a deletion takes away cannot be worked out from it.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center.contracts.tables import RESEARCH
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import Database
from sekisho.center.views.counts import TALLY

CUSTOMERS: Final = 10
"""So many must share in a count (k-anonymity)."""
LARGEST: Final = 0.5
"""Of one customer's part: beyond it the count would say more of that one than of all."""
ROUND: Final = 10
LATE_DAYS: Final = 3
"""A day is counted when this long is over: boxes that were out of reach have sent by then."""
CATCH_UP: Final = 30
_DONE: Final = "-"
"""Stands for a function where a day was looked at, whether or not anything of it could be kept."""


class Count(msgspec.Struct, frozen=True):
    """One function's count of one UTC day; both numbers are rounded down to tens."""

    day: str
    function: str
    outcome: str
    customers: int
    count: int


def step(database: Database, reading: Database, now: dt.datetime) -> bool:
    """Keep the oldest day that is due and not kept; whether there was one."""
    last = (now - dt.timedelta(days=LATE_DAYS)).date()
    with reading.reading() as db:
        newest = db.scalar(sa.select(sa.func.max(RESEARCH.c.day)))
        first = last - dt.timedelta(days=CATCH_UP)
        day = max(first, dt.date.fromisoformat(newest) + dt.timedelta(days=1)) if newest else last
        if day > last:
            return False
        found = list(_counts(db, day))
    with database.transaction() as db:
        marker = Count(str(day), _DONE, "", 0, 0)
        db.execute(RESEARCH.insert(), [msgspec.structs.asdict(one) for one in (marker, *found)])
    return True


def kept(db: sa.Connection, since: dt.date) -> list[Count]:
    """What may be given to anybody."""
    query = sa.select(RESEARCH).where(RESEARCH.c.day >= str(since), RESEARCH.c.function != _DONE)
    return [Count(*row) for row in db.execute(query.order_by(RESEARCH.c.day, RESEARCH.c.function, RESEARCH.c.outcome))]


def _counts(db: sa.Connection, day: dt.date) -> Iterator[Count]:
    """One small question for each customer: the hours of a customer lie together."""
    shares: dict[tuple[str, str], list[int]] = defaultdict(list)
    hours = (TALLY.c.hour >= f"{day}T00", TALLY.c.hour <= f"{day}T23")
    of_one = sa.select(TALLY.c.function, TALLY.c.outcome, sa.func.sum(TALLY.c.count)).where(
        TALLY.c.tenant == sa.bindparam("whose"), *hours
    )
    of_one = of_one.group_by(TALLY.c.function, TALLY.c.outcome)
    for tenant in db.scalars(sa.select(CUSTOMER.c.tenant)).all():
        for function, outcome, count in db.execute(of_one, {"whose": tenant}):
            shares[function, outcome].append(int(count))
    for (function, outcome), counts in sorted(shares.items()):
        if numbers := shared(counts):
            yield Count(str(day), function, outcome, *numbers)


def shared(counts: Sequence[int]) -> tuple[int, int] | None:
    """Customers and sum as they may be kept, of each customer's part; None where somebody could be told from it."""
    total = sum(counts)
    if len(counts) < CUSTOMERS or max(counts) > LARGEST * total:
        return None
    return len(counts) // ROUND * ROUND, total // ROUND * ROUND
