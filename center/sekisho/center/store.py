"""Every event of every box, once.

The key is (box, epoch, seq); whether a number is new is decided by `streams`, in the transaction that stores the row,
so that an acknowledgement sent after the commit never says too much and a repeated row never comes back, not even
one that retention has taken away. What follows from a new row goes into the outbox in the same transaction.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.center import outbox, partitions, streams, views
from sekisho.center.database import Database, metadata
from sekisho.center.streams import GAP, RUN, STREAM
from sekisho.center.views.model import Row

REJECTED = "rejected"
"""Type of a row whose body was no valid event: the number is accounted for, the content is not kept."""
AHEAD = 64
"""Runs told to a box that asks what we have."""

EVENT = sa.Table(
    "event",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("box", sa.Text, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("lane", sa.SmallInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("at", sa.Text, nullable=False),
    sa.Column("received_at", sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("id").ddl_if(dialect="sqlite"),
    sa.UniqueConstraint("box", "epoch", "seq").ddl_if(dialect="sqlite"),
    sa.Index("event_by_id", "id").ddl_if(dialect="postgresql"),
    sa.Index("event_by_box", "box", "epoch", "seq").ddl_if(dialect="postgresql"),
    sqlite_autoincrement=True,
    postgresql_partition_by="LIST (lane)",
)


@sa.event.listens_for(EVENT, "after_create")
def _after_create(_table: sa.Table, db: sa.Connection, **_: object) -> None:
    if db.dialect.name == "postgresql":
        partitions.make_lanes(db)


BOX = sa.Table(
    "box",
    metadata,
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("birth", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.Text, nullable=False),
    sa.Column("next", sa.BigInteger, nullable=False),
    sa.Column("changed_at", sa.Text, nullable=False),
    sa.Index("box_by_tenant", "tenant", "box"),
)


STORE = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, doc="always 1"),
    sa.Column("generation", sa.BigInteger, nullable=False, server_default="0", doc="how often it was restored"),
    sa.Column("swept", sa.Text, nullable=False, server_default="", doc="the day retention last counted from"),
    sa.Column("swept_at", sa.Text, nullable=False, server_default="", doc="when it moved there, by the clock of then"),
)


class Stored(msgspec.Struct, frozen=True):
    """One stored event as people and programs see it; `event` is the box's own JSON."""

    id: int
    box: str
    epoch: str
    seq: int
    lane: int
    received_at: str
    event: msgspec.Raw


@dataclass(frozen=True)
class NewRow:
    """One row of a batch, decoded and judged."""

    seq: int
    lane: int
    type: str
    at: str
    body: bytes
    dropped: Sequence[tuple[int, int]] = ()
    """The runs a Gap event declares."""
    stars: int = 0
    """1..3, how important it is for people; 0: not for people."""
    again: bool = False
    """The box says that the centre had it before it was restored: people were told then."""


@dataclass(frozen=True)
class Arrival:
    """Rows of one box's epoch, as they came."""

    tenant: str
    box: str
    epoch: str
    rows: Sequence[NewRow]


class Stream(msgspec.Struct, frozen=True):
    """One epoch of one box."""

    box: str
    epoch: str
    tenant: str
    upto: int
    last_at: str
    repeated: int = 0
    """Rows that came again: what broken connections and restarts cost."""


class Missing(msgspec.Struct, frozen=True):
    """Numbers that were never stored and never declared."""

    box: str
    epoch: str
    first: int
    last: int


class Declared(msgspec.Struct, frozen=True):
    """What a box had to drop, and what did not come from another side either."""

    box: str
    epoch: str
    first: int
    last: int


class BoxState(msgspec.Struct, frozen=True):
    """A box's last birth or last will; `next` is the number its next event would have had then."""

    box: str
    tenant: str
    state: str
    birth: int
    epoch: str
    next: int
    changed_at: str


class Store:
    """The centre's events in its database; any number of processes read, and on PostgreSQL any number write."""

    def __init__(self, url: str | Path, *, read_only: bool = False) -> None:
        """Open the store: a path, or `postgresql://...`.

        Raises:
            DeviceFault: absent (when reading), damaged, unreachable, or the disk refuses.

        """
        self.database = Database(str(url), read_only=read_only)
        self._writing: sa.Connection | None = None
        self._day: dt.date | None = None
        self._reached: dict[streams.Key, int] = {}
        """`upto` of the streams this transaction has written, so that it need not be asked for again."""

    @cached_property
    def generation(self) -> int:
        """How often this store was restored: 0 for one that never was."""
        return int(next(iter(self._rows(sa.select(STORE.c.generation))), (0,))[0])

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """All or nothing, durable on exit; `add` and `set_state` belong inside.

        Raises:
            DeviceFault: the database refused; nothing of it was stored.

        """
        with self.database.transaction() as db:
            if not self.database.embedded:
                db.execute(_WRITING)
            self._writing = db
            try:
                yield db
            finally:
                self._writing = None
                self._reached = {}

    def add(self, tenant: str, box: str, epoch: str, rows: Sequence[NewRow], received_at: str) -> list[NewRow]:
        """Store rows inside a `transaction`; returns those that were new."""
        return self.add_all([Arrival(tenant, box, epoch, rows)], received_at)

    def add_all(self, arrivals: Sequence[Arrival], received_at: str) -> list[NewRow]:
        """Store the rows of many boxes inside a `transaction`, one arrival per stream; returns those that were new."""
        db = self._db
        self._make_room_for(received_at)
        locked = streams.lock(db, {(a.box, a.epoch): a.tenant for a in arrivals}, received_at)
        new: list[tuple[Arrival, list[NewRow]]] = []
        for arrival in arrivals:
            fresh = _take(db, locked[arrival.box, arrival.epoch], arrival.rows)
            outbox.write(db, arrival.tenant, arrival.box, arrival.epoch, fresh, received_at)
            new.append((arrival, fresh))
        ids = iter(_ids(db, sum(len(fresh) for _, fresh in new)))
        values: list[tuple[object, ...]] = []
        viewed: list[Row] = []
        for arrival, fresh in new:
            who = (arrival.tenant, arrival.box, arrival.epoch)
            numbered = [(next(ids), row) for row in fresh]
            values += [(i, *who, r.seq, r.lane, r.type, r.at, received_at, r.body) for i, r in numbered]
            viewed += views.decoded(*who, numbered, received_at)
        _insert_events(db, values)
        streams.save(db, locked.values(), received_at)
        views.project(db, viewed)
        self._reached |= {key: stream.upto for key, stream in locked.items()}
        return [row for _, fresh in new for row in fresh]

    def upto(self, box: str, epoch: str) -> int:
        """To which number nothing is missing; 0 for a stream that is not known."""
        if self._writing is not None:
            return self.uptos([(box, epoch)])[box, epoch]
        with self.database.reading() as db:
            return streams.uptos(db, [(box, epoch)]).get((box, epoch), 0)

    def uptos(self, keys: Collection[streams.Key]) -> dict[streams.Key, int]:
        """The same of many streams inside a `transaction`, as it leaves them; what was just written is known."""
        asked = [key for key in keys if key not in self._reached]
        found = self._reached | (streams.uptos(self._db, asked) if asked else {})
        return {key: found.get(key, 0) for key in keys}

    def ahead(self, keys: Collection[streams.Key]) -> dict[streams.Key, list[tuple[int, int]]]:
        """Of many streams the newest runs beyond `upto` that are accounted for, inside a `transaction`."""
        return streams.ahead(self._db, keys, AHEAD) if keys else {}

    def set_state(self, state: BoxState) -> None:
        """Keep a birth, or a last will that belongs to the last birth, inside a `transaction`."""
        self.set_states([state])

    def set_states(self, states: Sequence[BoxState]) -> None:
        """The same for many, in this order."""
        if states:
            self._db.execute(_SET_STATE, [msgspec.structs.asdict(state) for state in states])

    def streams(self) -> list[Stream]:
        columns = (STREAM.c[name] for name in Stream.__struct_fields__)
        return [Stream(*row) for row in self._rows(sa.select(*columns).order_by(STREAM.c.box, STREAM.c.last_at))]

    def boxes(self) -> list[BoxState]:
        columns = (BOX.c[name] for name in BoxState.__struct_fields__)
        return [BoxState(*row) for row in self._rows(sa.select(*columns).order_by(BOX.c.box))]

    def declared(self) -> list[Declared]:
        """What the boxes had to drop and never sent."""
        rows = self._rows(sa.select(GAP).order_by(GAP.c.box, GAP.c.epoch, GAP.c.first))
        return [Declared(*row) for row in rows]

    def last_id(self) -> int:
        """The newest stored event's id, 0 in an empty store."""
        return int(self._rows(sa.select(sa.func.coalesce(sa.func.max(EVENT.c.id), 0)))[0][0])

    def counts(self) -> list[tuple[str, str, int]]:
        """(box, event type, number) of everything stored."""
        key = (EVENT.c.box, EVENT.c.type)
        return [tuple(row) for row in self._rows(sa.select(*key, sa.func.count()).group_by(*key).order_by(*key))]

    def missing(self) -> list[Missing]:
        """Numbers below the highest one accounted for that are neither stored nor declared."""
        key = (STREAM.c.box, STREAM.c.epoch)
        ahead = sa.select(*key, STREAM.c.upto, RUN.c.first, RUN.c.last).join(
            RUN, sa.and_(RUN.c.box == STREAM.c.box, RUN.c.epoch == STREAM.c.epoch)
        )
        found: list[Missing] = []
        at: tuple[str, str] | None = None
        reached = 0
        for box, epoch, upto, first, last in self._rows(ahead.order_by(*key, RUN.c.first)):
            if at != (box, epoch):
                at, reached = (box, epoch), upto
            found.append(Missing(box, epoch, reached + 1, first - 1))
            reached = last
        return found

    def events(self, *, since_id: int = 0, box: str = "", limit: int = 1000) -> list[Stored]:
        """Stored events in the order of their arrival, after `since_id`."""
        columns = (EVENT.c.id, EVENT.c.box, EVENT.c.epoch, EVENT.c.seq, EVENT.c.lane, EVENT.c.received_at, EVENT.c.body)
        query = sa.select(*columns).where(EVENT.c.id > since_id, EVENT.c.type != REJECTED)
        if box:
            query = query.where(EVENT.c.box == box)
        rows = self._rows(query.order_by(EVENT.c.id).limit(limit))
        if rows and not self.database.embedded:
            # A lower number may still be on its way into a commit: wait for that, then nothing can come in between.
            with self.database.transaction() as db:
                db.execute(_SETTLED)
            rows = self._rows(query.where(EVENT.c.id <= rows[-1][0]).order_by(EVENT.c.id).limit(limit))
        return [Stored(i, b, e, s, lane, at, msgspec.Raw(body)) for i, b, e, s, lane, at, body in rows]

    def close(self) -> None:
        self.database.close()

    def _make_room_for(self, received_at: str) -> None:
        """On PostgreSQL make the day's partitions, and the next days'; on their own, so that a rollback keeps them."""
        day = partitions.day_of(received_at)
        if not self.database.embedded and day != self._day:
            with self.database.transaction() as db:
                partitions.make(db, partitions.ahead(day))
            self._day = day

    @property
    def _db(self) -> sa.Connection:
        if self._writing is None:
            raise RuntimeError("outside of a transaction")
        return self._writing

    def _rows(self, query: sa.Select[Any]) -> Sequence[Any]:
        with self.database.reading() as db:
            return db.execute(query).all()


_WRITING = sa.text("SELECT pg_advisory_xact_lock_shared(7355610)")
_SETTLED = sa.text("SELECT pg_advisory_xact_lock(7355610)")
_NEXT_IDS = sa.text("SELECT nextval(pg_get_serial_sequence('event', 'id')) FROM generate_series(1, :number)")


def hold_writers(db: sa.Connection) -> None:
    """Keep every ingest worker out to the transaction's end; on SQLite whoever writes has the file alone."""
    if db.dialect.name == "postgresql":
        db.execute(_SETTLED)


def _take(db: sa.Connection, stream: streams.Locked, rows: Sequence[NewRow]) -> list[NewRow]:
    if not rows:
        return []
    fresh = streams.take(db, stream, (row.seq for row in rows))
    new = {row.seq: row for row in rows if row.seq in fresh}
    streams.declare(db, stream, (run for row in new.values() for run in row.dropped))
    return list(new.values())


def _ids(db: sa.Connection, number: int) -> Sequence[int]:
    """Ids for so many new events; views name events by them. On SQLite nobody else writes meanwhile."""
    if not number:
        return ()
    if db.dialect.name == "sqlite":
        last = db.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'event'").scalar() or 0
        return range(last + 1, last + 1 + number)
    return db.scalars(_NEXT_IDS, {"number": number}).all()


def _insert_events(db: sa.Connection, values: list[tuple[object, ...]]) -> None:
    """The hot path: the driver's own way, a multiple faster than statements built per row."""
    if not values:
        return
    columns = "id, tenant, box, epoch, seq, lane, type, at, received_at, body"
    if db.dialect.name == "sqlite":
        db.exec_driver_sql(f"INSERT INTO event({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608 - constant text
        return
    driver: Any = db.connection.cursor()
    with driver as cursor, cursor.copy(f"COPY event({columns}) FROM STDIN") as copy:
        for row in values:
            copy.write_row(row)


def _set_state() -> sa.TextClause:
    kept = ", ".join(f"{c} = CASE excluded.epoch WHEN '' THEN box.{c} ELSE excluded.{c} END" for c in ("epoch", "next"))
    return sa.text(
        "INSERT INTO box(box, tenant, state, birth, epoch, next, changed_at)"  # noqa: S608 - constant text
        " VALUES (:box, :tenant, :state, :birth, :epoch, :next, :changed_at)"
        " ON CONFLICT(box) DO UPDATE SET tenant = excluded.tenant, state = excluded.state, birth = excluded.birth,"
        f" changed_at = excluded.changed_at, {kept} WHERE excluded.birth >= box.birth"
    )


_SET_STATE = _set_state()
