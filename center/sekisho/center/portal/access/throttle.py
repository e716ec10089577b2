"""Brakes on guessing: after a few attempts every further one costs a longer wait, and nothing is locked for good.

An attempt is counted before it is looked at, so that many at once gain nothing; one that comes while it must wait is
refused unseen and not counted. What is counted under is a digest: of a login whether it exists or not, of a source
address. Success takes back what it counted.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center.database import insert_new, metadata

ATTEMPT: Final = sa.Table(
    "attempt",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("last_at", sa.Text, nullable=False, index=True),
    sa.Column("until", sa.Text, nullable=False, doc="before this nothing is tried"),
)

FORGET: Final = dt.timedelta(days=1)
"""Without an attempt for so long, the count begins anew."""


class Limit(msgspec.Struct, frozen=True):
    """How often something may be tried freely, and how long one waits after that at the most."""

    free: int
    longest_s: float = 900.0


OF_ACCOUNT: Final = Limit(5)
OF_SOURCE: Final = Limit(30)
"""An office has one address for many people."""
OF_SECOND: Final = Limit(4, 3600.0)
"""Six digits are few: at one attempt an hour guessing them takes a hundred years."""
OF_MAIL: Final = Limit(3, 3600.0)
OF_INVITER: Final = Limit(20, 3600.0)
"""Links that one customer's administrators have mailed to whomever."""

Key = tuple[str, Limit]


def key(kind: str, value: str, limit: Limit) -> Key:
    """What attempts are counted under."""
    return f"{kind}:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()[:40]}", limit


def take(db: sa.Connection, now: dt.datetime, *keys: Key) -> float:
    """Count an attempt under every key and return 0; where one must wait, count nothing and return the seconds."""
    db.execute(ATTEMPT.delete().where(ATTEMPT.c.last_at < utc.text(now - FORGET)))
    at = utc.text(now)
    numbers = {}
    waits = [0.0]
    for name, _ in sorted(keys):  # in one order, so that no two wait for each other
        db.execute(insert_new(db, ATTEMPT), {"key": name, "number": 0, "last_at": at, "until": ""})
        row = db.execute(sa.select(ATTEMPT).where(ATTEMPT.c.key == name).with_for_update()).one()
        numbers[name] = row.number
        if row.until > at:
            waits.append((dt.datetime.fromisoformat(row.until) - now).total_seconds())
    if max(waits) > 0:
        return max(waits)
    for name, limit in keys:
        number = numbers[name] + 1
        over = number - limit.free
        wait_s = 0.0 if over <= 0 else min(2.0 ** min(over, 20), limit.longest_s)
        values = {"number": number, "last_at": at, "until": utc.text(now + dt.timedelta(seconds=wait_s))}
        db.execute(ATTEMPT.update().where(ATTEMPT.c.key == name).values(**values))
    return 0.0


def forgive(db: sa.Connection, clear: tuple[Key, ...], give_back: tuple[Key, ...] = ()) -> None:
    """After a success: `clear` begin anew, `give_back` lose the one attempt that was none."""
    for name, _ in clear:
        db.execute(ATTEMPT.delete().where(ATTEMPT.c.key == name))
    for name, _ in give_back:
        change = {"number": ATTEMPT.c.number - 1, "until": ""}
        db.execute(ATTEMPT.update().where(ATTEMPT.c.key == name, ATTEMPT.c.number > 0).values(change))
