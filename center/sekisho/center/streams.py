"""Which numbers of a box's epoch are accounted for: the tables that make "stored exactly once" hold.

`upto`: nothing to here is missing. `run`: what is accounted for beyond, as runs. `gap`: what a box declared dropped
and never came, exactly: a number that comes after all leaves it. A number is new when neither has it; that does not
depend on the event rows, which retention takes away and PostgreSQL keeps by day.

The stream's row is locked from `lock` to the end of the transaction, so several workers may take one box's batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import runs
from sekisho.center.database import insert_new, metadata
from sekisho.center.runs import Run

EPOCHS_CAP: Final = 1000
"""Epochs of one box; an honest one begins a new one when its disk has damaged its spool."""

RUNS_CAP: Final = 100_000
"""Runs beyond `upto` of all of a box's epochs: what a transaction may have to read and write anew, about a second's
work. An honest box has one for each row of a higher lane that waits among rows of a lower one."""
_FEW: Final = 2048
"""Numbers so few that the runs among them are not worth counting."""

Key = tuple[str, str]
"""Box and epoch."""

STREAM = sa.Table(
    "stream",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("upto", sa.BigInteger, nullable=False),
    sa.Column("reach", sa.BigInteger, nullable=False, doc="highest number accounted for"),
    sa.Column("last_at", sa.Text, nullable=False),
    sa.Column("repeated", sa.BigInteger, nullable=False, server_default="0", doc="rows that came again"),
    sa.Index("stream_by_tenant", "tenant"),
)


def _runs_table(name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("box", sa.Text, primary_key=True),
        sa.Column("epoch", sa.Text, primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
    )


RUN = _runs_table("run")
GAP = _runs_table("gap")


@dataclass
class Locked:
    """One stream while its row is locked."""

    key: Key
    upto: int
    reach: int
    repeated: int = 0
    """Rows that came again, in this transaction."""


_LOCK = (
    sa.select(STREAM.c.box, STREAM.c.epoch, STREAM.c.upto, STREAM.c.reach)
    .where(sa.tuple_(STREAM.c.box, STREAM.c.epoch).in_(sa.bindparam("keys", expanding=True)))
    .order_by(STREAM.c.box, STREAM.c.epoch)
    .with_for_update()
)
_UPTO = sa.select(STREAM.c.box, STREAM.c.epoch, STREAM.c.upto).where(
    sa.tuple_(STREAM.c.box, STREAM.c.epoch).in_(sa.bindparam("keys", expanding=True))
)
_SAVE = (
    STREAM.update()
    .where(STREAM.c.box == sa.bindparam("b"), STREAM.c.epoch == sa.bindparam("e"))
    .values(
        upto=sa.bindparam("u"),
        reach=sa.bindparam("r"),
        last_at=sa.bindparam("at"),
        repeated=STREAM.c.repeated + sa.bindparam("again"),
    )
)


def lock(db: sa.Connection, tenants: dict[Key, str], now: str) -> dict[Key, Locked]:
    """Lock these streams, making those that are new; always in the same order, so that workers cannot deadlock.

    Raises:
        RejectedInput: a box with more epochs than any honest one comes to.

    """
    found = _select(db, tenants)
    if absent := sorted(set(tenants) - set(found)):
        _refuse_too_many(db, {box for box, _ in absent})
        db.execute(
            insert_new(db, STREAM),
            [
                {"box": box, "epoch": epoch, "tenant": tenants[box, epoch], "upto": 0, "reach": 0, "last_at": now}
                for box, epoch in absent
            ],
        )
        found = _select(db, tenants)
    return found


def ahead(db: sa.Connection, keys: Iterable[Key], most: int) -> dict[Key, list[Run]]:
    """Of each stream the newest runs beyond `upto`, at most so many; a stream without holes is left out."""
    newest = sa.func.row_number().over(partition_by=(RUN.c.box, RUN.c.epoch), order_by=RUN.c.first.desc())
    mine = sa.tuple_(RUN.c.box, RUN.c.epoch).in_(sorted(keys))
    ranked = sa.select(RUN, newest.label("place")).where(mine).subquery()
    found: dict[Key, list[Run]] = {}
    for box, epoch, first, last, _ in db.execute(sa.select(ranked).where(ranked.c.place <= most)):
        found.setdefault((box, epoch), []).append((first, last))
    return found


def uptos(db: sa.Connection, keys: Iterable[Key]) -> dict[Key, int]:
    """To which number nothing is missing, of those streams that are known."""
    return {(box, epoch): upto for box, epoch, upto in db.execute(_UPTO, {"keys": sorted(keys)})}


def take(db: sa.Connection, stream: Locked, seqs: Iterable[int]) -> set[int]:
    """Account for these numbers; returns those that were not stored before.

    Raises:
        RejectedInput: more runs than `RUNS_CAP`; `declare` as well.

    """
    wanted = sorted(set(seqs))
    if stream.reach == stream.upto == wanted[0] - 1 == wanted[-1] - len(wanted):  # nothing missing, as nearly always
        stream.upto = stream.reach = wanted[-1]
        return set(wanted)
    have = _accounted(db, stream, wanted[0], wanted[-1])
    fresh = {seq for seq in wanted if not runs.holds(have, seq)}
    late = _late(db, stream, [seq for seq in wanted if seq not in fresh]) if len(fresh) < len(wanted) else set()
    _account(db, stream, have, runs.of(fresh))
    stream.repeated += len(wanted) - len(fresh | late)
    return fresh | late


def declare(db: sa.Connection, stream: Locked, dropped: Iterable[Run]) -> None:
    """Account for runs a box had to drop: what of them never came is a declared gap."""
    if not (declared := runs.union(dropped)):
        return
    have = _accounted(db, stream, declared[0][0], declared[-1][1])
    if lost := runs.minus(declared, have):
        _put(db, GAP, stream.key, lost)
        _account(db, stream, have, lost)


def save(db: sa.Connection, streams: Iterable[Locked], now: str) -> None:
    """Write where the streams are now; ends the work on them in this transaction."""
    values = [(*s.key, s.upto, s.reach, now, s.repeated) for s in streams]
    db.execute(_SAVE, [dict(zip(("b", "e", "u", "r", "at", "again"), row, strict=True)) for row in values])


def _select(db: sa.Connection, keys: Iterable[Key]) -> dict[Key, Locked]:
    rows = db.execute(_LOCK, {"keys": sorted(keys)})
    return {(box, epoch): Locked((box, epoch), upto, reach) for box, epoch, upto, reach in rows}


def _refuse_too_many(db: sa.Connection, boxes: set[str]) -> None:
    number = sa.func.count()
    query = sa.select(STREAM.c.box).where(STREAM.c.box.in_(sorted(boxes))).group_by(STREAM.c.box)
    if crowded := db.scalars(query.having(number >= EPOCHS_CAP)).first():
        raise RejectedInput(f"{crowded} has begun {EPOCHS_CAP} epochs.", "Its spool or its certificate needs a look.")


def _refuse_too_scattered(db: sa.Connection, box: str, more: int) -> None:
    if (db.scalar(sa.select(sa.func.count()).where(RUN.c.box == box)) or 0) + more > RUNS_CAP:
        raise RejectedInput(f"{box} leaves out more than {RUNS_CAP} runs of numbers.", "Its certificate needs a look.")


def _accounted(db: sa.Connection, stream: Locked, low: int, high: int) -> list[Run]:
    """The runs that touch low..high, with everything to `upto` as the first."""
    done = [(0, stream.upto)]
    return done if stream.reach == stream.upto else [*done, *_touching(db, RUN, stream.key, low - 1, high + 1)]


def _account(db: sa.Connection, stream: Locked, have: list[Run], new: list[Run]) -> None:
    """Add runs that are in none of `have`, which is what `_accounted` said of them."""
    if not new:
        return
    stream.reach = max(stream.reach, new[-1][1])
    (_, stream.upto), *ahead = runs.union([*have, *new])
    if len(ahead) >= len(have) and stream.reach - stream.upto > _FEW:
        _refuse_too_scattered(db, stream.key[0], len(ahead) - len(have) + 1)
    _drop(db, RUN, stream.key, have[1:])
    _put(db, RUN, stream.key, ahead)


def _late(db: sa.Connection, stream: Locked, seqs: Sequence[int]) -> set[int]:
    """Those of these numbers that were declared dropped and come after all; they are no gap any more."""
    late: set[int] = set()
    for part in _neighbours(seqs):  # what a box declared in years lies between two numbers far apart
        gaps = _touching(db, GAP, stream.key, part[0], part[-1])
        if found := {seq for seq in part if runs.holds(gaps, seq)}:
            _drop(db, GAP, stream.key, gaps)
            _put(db, GAP, stream.key, runs.minus(gaps, runs.of(found)))
            late |= found
    return late


def _neighbours(seqs: Sequence[int]) -> Iterator[list[int]]:
    """Sorted numbers in parts without a hole of more than `_FEW`."""
    part: list[int] = []
    for seq in seqs:
        if part and seq - part[-1] > _FEW:
            yield part
            part = []
        part.append(seq)
    yield part


def _touching(db: sa.Connection, table: sa.Table, key: Key, low: int, high: int) -> list[Run]:
    """The runs of a table that have a number in low..high."""
    mine = sa.and_(table.c.box == key[0], table.c.epoch == key[1])
    before = sa.select(sa.func.max(table.c.first)).where(mine, table.c.first <= low).scalar_subquery()
    query = sa.select(table.c.first, table.c.last).where(
        mine, table.c.first >= sa.func.coalesce(before, low), table.c.first <= high, table.c.last >= low
    )
    return [(first, last) for first, last in db.execute(query.order_by(table.c.first))]


def _drop(db: sa.Connection, table: sa.Table, key: Key, found: Sequence[Run]) -> None:
    """Delete neighbouring runs of a table."""
    if found:
        mine = (table.c.box == key[0], table.c.epoch == key[1])
        db.execute(table.delete().where(*mine, table.c.first.between(found[0][0], found[-1][0])))


def _put(db: sa.Connection, table: sa.Table, key: Key, new: Sequence[Run]) -> None:
    if new:
        db.execute(table.insert(), [{"box": key[0], "epoch": key[1], "first": f, "last": z} for f, z in new])
