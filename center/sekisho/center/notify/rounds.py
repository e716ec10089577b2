"""Open rounds and what they hold: one heap per round, one row per topic, and their number. Inside one transaction.

A heap has at most `HEAP_CAP` topics; what is beyond is one "others" row. Made anew for each transaction: what is
remembered here of the database holds no longer than that.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center.notify.letter import Entry
from sekisho.center.notify.rules import Closing
from sekisho.center.notify.tables import gathering, heap, text
from sekisho.center.notify.told import Told

HEAP_CAP: Final = 500
OTHERS: Final = "others"
CLOSED_AT_ONCE: Final = 200
ASIDE: Final = "aside"
"""The kind of a round that could not be closed: kept with what it holds until it is swept, told to nobody."""
FAR: Final = "9999-12-31T23:59:59.999999Z"
"""When it is due."""

Round = sa.Row[Any]
"""A row of `tables.gathering`."""


@dataclass
class Rounds:
    """The rounds of every tenant, as one transaction sees and changes them."""

    db: sa.Connection
    now: dt.datetime
    _open: dict[tuple[str, str, str], Round | None] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _held: dict[tuple[str, str], tuple[Entry, int]] = field(default_factory=dict)
    """What `add` was given and `flush` has not written: (round, topic) -> (entry, most stars)."""

    def due(self) -> list[Round]:
        """Rounds whose time has come, the oldest first."""
        due = sa.select(gathering).where(gathering.c.until <= text(self.now)).order_by(gathering.c.until)
        return list(self.db.execute(due.limit(CLOSED_AT_ONCE)))

    def find(self, tenant: str, kind: str, topic: str) -> Round | None:
        """The open round of this kind and topic."""
        key = (tenant, kind, topic)
        if key not in self._open:
            which = (gathering.c.tenant == tenant, gathering.c.kind == kind, gathering.c.topic == topic)
            self._open[key] = self.db.execute(sa.select(gathering).where(*which)).one_or_none()
        return self._open[key]

    def begin(self, tenant: str, kind: str, topic: str, stars: int, until: dt.datetime, thread: str = "") -> str:
        """The identifier of the open round of this kind and topic, which is made when there is none."""
        row = self.find(tenant, kind, topic)
        if row is not None and stars <= row.stars:
            return str(row.id)
        id_ = hashlib.sha256("\0".join((tenant, kind, topic)).encode()).hexdigest()[:32]
        if row is not None:
            self.db.execute(sa.update(gathering).where(gathering.c.id == id_).values(stars=stars))
        else:
            values = {"id": id_, "tenant": tenant, "kind": kind, "topic": topic, "stars": stars, "rounds": 0}
            times = {"opened_at": text(self.now), "until": text(until)}
            self.db.execute(sa.insert(gathering).values(**values, **times, thread=thread))
        del self._open[tenant, kind, topic]
        return id_

    def change(self, row: Round, closing: Closing) -> None:
        """What a closing leaves of a round."""
        if closing.mail or closing.into_storm:
            self.db.execute(sa.delete(heap).where(heap.c.gathering == row.id))
            self._sizes.pop(row.id, None)
        which = gathering.c.id == row.id
        if closing.until is None:
            self.db.execute(sa.delete(gathering).where(which))
        else:
            rounds = row.rounds + int(closing.mail or closing.into_storm)
            self.db.execute(sa.update(gathering).where(which).values(until=text(closing.until), rounds=rounds))
        self._open.pop((row.tenant, row.kind, row.topic), None)

    def set_aside(self, row: Round) -> None:
        """Take a round that cannot be closed out of the way; what comes of its topic opens a new one."""
        aside = hashlib.sha256("\0".join((row.id, row.opened_at, text(self.now))).encode()).hexdigest()[:32]
        self.db.execute(sa.update(heap).where(heap.c.gathering == row.id).values(gathering=aside))
        change = {"id": aside, "kind": ASIDE, "topic": aside, "until": FAR}
        self.db.execute(sa.update(gathering).where(gathering.c.id == row.id).values(change))
        self._open.pop((row.tenant, row.kind, row.topic), None)

    def add(self, id_: str, entry: Entry) -> None:
        """Add an entry to a round, to the row of its topic when there is one; written by `flush`."""
        key = (id_, entry.told.topic)
        stars = entry.told.stars
        if key in self._held:
            held, most = self._held[key]
            first, last = min(held.first, entry.first), max(held.last, entry.last)
            entry = msgspec.structs.replace(held, count=held.count + entry.count, first=first, last=last)
            stars = max(most, stars)
        self._held[key] = entry, stars

    def flush(self) -> None:
        """Write what was added: repeats of one topic cost one write, however many they are."""
        held, self._held = self._held, {}
        for (id_, _), (entry, stars) in held.items():
            self._write(id_, entry, stars)

    def _write(self, id_: str, entry: Entry, stars: int) -> None:
        if self._add(id_, entry.told.topic, entry, stars):
            return
        if id_ not in self._sizes:
            size = sa.select(sa.func.count()).select_from(heap).where(heap.c.gathering == id_)
            self._sizes[id_] = self.db.execute(size).scalar_one()
        full = self._sizes[id_] >= HEAP_CAP
        if full and self._add(id_, OTHERS, entry, stars):
            return
        values: dict[str, object] = {"gathering": id_, "topic": OTHERS if full else entry.told.topic}
        values |= {"told": msgspec.json.encode(entry.told), "stars": stars, "number": entry.count}
        self.db.execute(sa.insert(heap).values(**values, first=entry.first, last=entry.last))
        self._sizes[id_] += 1

    def _add(self, id_: str, topic: str, entry: Entry, stars: int) -> bool:
        """Add to the row of a topic; False when there is none."""
        which = (heap.c.gathering == id_, heap.c.topic == topic)
        found = self.db.execute(sa.select(heap).where(*which)).one_or_none()
        if found is None:
            return False
        change = {
            "number": found.number + entry.count,
            "stars": max(found.stars, stars),
            "first": min(found.first, entry.first),
            "last": max(found.last, entry.last),
        }
        self.db.execute(sa.update(heap).where(*which).values(change))
        return True

    def weight(self, id_: str) -> tuple[int, int]:
        """(topics, their number in all) of what a round holds."""
        whole = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(heap.c.number), 0))
        topics, total = self.db.execute(whole.where(heap.c.gathering == id_)).one()
        return int(topics), int(total)

    def entries(self, id_: str, most: int) -> list[Entry]:
        """What a round holds, the most important and most frequent first; "others" last."""
        order = (heap.c.topic == OTHERS, heap.c.stars.desc(), heap.c.number.desc(), heap.c.first, heap.c.topic)
        rows = self.db.execute(sa.select(heap).where(heap.c.gathering == id_).order_by(*order).limit(most))
        return [
            Entry(msgspec.json.decode(row.told, type=Told), row.number, row.first, row.last, others=row.topic == OTHERS)
            for row in rows
        ]
