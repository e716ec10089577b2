"""What ingest refused, counted per box, kind and day; and the messages nobody foresaw, set aside.

Of a refused message its reason is kept, of one set aside also its topic, size, hash and error: never its content,
which nobody has judged. Both tables are bounded: days and kinds for each box, and the newest `ASIDE_KEPT`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.center.database import Database, metadata

Kind = Literal["topic", "tenant", "state", "batch", "rows", "aside"]
"""A topic that is none of ours; a box that is not this tenant's; a birth or will, a batch, rows that are not what they
should be; a message that was set aside."""

KEPT_DAYS: Final = 90
ASIDE_KEPT: Final = 1000
TEXT_CAP: Final = 200

REFUSED = sa.Table(
    "refused",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
    sa.Column("last_at", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, doc="of the last one"),
)
ASIDE = sa.Table(
    "poison",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_COUNT = sa.text(
    "INSERT INTO refused(day, box, kind, count, last_at, reason) VALUES (:day, :box, :kind, :count, :last_at, :reason)"
    " ON CONFLICT(day, box, kind) DO UPDATE SET count = refused.count + excluded.count, last_at = excluded.last_at,"
    " reason = excluded.reason"
)


@dataclass(frozen=True)
class Refusal:
    """One thing that was refused; `box` is empty where the topic did not say."""

    kind: Kind
    box: str
    reason: str
    count: int = 1


class Refused(msgspec.Struct, frozen=True):
    """What was refused of one box on one day, for one kind of reason."""

    day: str
    box: str
    kind: str
    count: int
    last_at: str
    reason: str


class Aside(msgspec.Struct, frozen=True):
    """A message that made ingest fail in a way nobody foresaw."""

    id: int
    at: str
    topic: str
    size: int
    sha256: str
    error: str


def count(db: sa.Connection, refusals: Iterable[Refusal], now: str) -> list[Refusal]:
    """Count them, in one order so that several workers cannot block each other; returns one for each box and kind."""
    sums: dict[tuple[str, str], Refusal] = {}
    for new in refusals:
        before = sums.get((new.box, new.kind))
        sums[new.box, new.kind] = Refusal(new.kind, new.box, new.reason, new.count + (before.count if before else 0))
    rows = [
        {"day": now[:10], "box": box, "kind": kind, "count": r.count, "last_at": now, "reason": _printable(r.reason)}
        for (box, kind), r in sorted(sums.items())
    ]
    if rows:
        db.execute(_COUNT, rows)
    return list(sums.values())


def set_aside(db: sa.Connection, topic: str, payload: bytes, error: BaseException, now: str) -> None:
    """Note a message that cannot be taken; the oldest of these notes go."""
    row = {
        "at": now,
        "topic": _printable(topic),
        "size": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "error": type(error).__name__,
    }
    made = db.execute(ASIDE.insert(), row).inserted_primary_key
    if made:
        db.execute(ASIDE.delete().where(ASIDE.c.id <= made[0] - ASIDE_KEPT))


def forget(db: sa.Connection, before_day: str) -> int:
    """Drop the counts of days before this one; returns how many."""
    return db.execute(REFUSED.delete().where(REFUSED.c.day < before_day)).rowcount


def shown(database: Database) -> tuple[list[Refused], list[Aside]]:
    """Everything counted and everything set aside, oldest first."""
    with database.reading() as db:
        refused = db.execute(sa.select(REFUSED).order_by(REFUSED.c.day, REFUSED.c.box, REFUSED.c.kind))
        return [Refused(*row) for row in refused], [Aside(*row) for row in db.execute(sa.select(ASIDE).order_by("id"))]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:TEXT_CAP])
