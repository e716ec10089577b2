"""The desk: every new notice takes its way, every round whose time has come is closed, inside one transaction.

`plan` is given what is new and the time, and writes mails, rounds and heaps; a kill before the commit leaves all as it
was, after it nothing is decided twice. Counts are never lost: what a notice stands for is in exactly one mail, one
heap, or kept without a mail (`rules.Keep`). A heap has at most `HEAP_CAP` topics; what is beyond is one "others" row.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import sqlalchemy as sa

from sekisho.center import devices, tenants
from sekisho.center.database import insert_new
from sekisho.center.notify import rules
from sekisho.center.notify.letter import Entry, Kind, Letter
from sekisho.center.notify.tables import gathering, heap, mail, text
from sekisho.center.notify.told import Told
from sekisho.center.tenants import Tenant

HEAP_CAP = 500
ENTRIES_CAP = 20
"""Topics a mail lists; it says how many more there are."""
OTHERS = "others"

_Row = sa.Row[Any]
_URGENT = ("alert", "again", "storm", "quiet")
"""Kinds that count against the hourly number."""


@dataclass(frozen=True)
class Notice:
    """One stored event people may be told of."""

    key: str
    """box/epoch/seq."""
    tenant: str
    told: Told


@dataclass
class Desk:
    """One transaction's work; made anew for each."""

    db: sa.Connection
    now: dt.datetime
    operator: Sequence[str] = ()
    """Who is told where a tenant has named nobody."""
    _tenants: dict[str, Tenant] = field(default_factory=dict)
    _sent: dict[str, int] = field(default_factory=dict)
    _rounds: dict[tuple[str, str, str], _Row | None] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def plan(self, notices: Iterable[Notice]) -> None:
        """Give every notice its way, then close what is due."""
        for notice in notices:
            self._place(notice)
        due = sa.select(gathering).where(gathering.c.until <= text(self.now)).order_by(gathering.c.until)
        for row in self.db.execute(due.limit(200)).all():
            self._close(row)

    def _place(self, notice: Notice) -> None:
        tenant, told = self._tenant(notice.tenant), notice.told
        row = self._open(tenant.id, "again", told.topic)
        window = None if row is None else rules.Window(row.stars)
        way = rules.place(told.stars, tenant, self.now, window, self._mailed(tenant))
        match way:
            case rules.MailNow():
                self._post(tenant, "alert", notice.key, [_entry(told)])
                self._open_round(tenant.id, "again", told.topic, told.stars, way.again_until, notice.key)
            case rules.Gather():
                topic = told.topic if way.kind == "again" else ""
                id_ = self._open_round(tenant.id, way.kind, topic, told.stars, way.until)
                self._heap(id_, _entry(told))
            case rules.Keep():
                pass

    def _close(self, row: _Row) -> None:
        tenant = self._tenant(row.tenant)
        whole = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(heap.c.number), 0))
        topics, total = self.db.execute(whole.where(heap.c.gathering == row.id)).one()
        closing = rules.close(row.kind, int(total), row.rounds, tenant, self.now, self._mailed(tenant))
        if closing.into_storm:
            storm = self._open_round(tenant.id, "storm", "", row.stars, self.now + rules.storm(0))
            for entry in self._entries(row.id, HEAP_CAP + 1):
                self._heap(storm, entry)
        if closing.mail:
            entries = self._entries(row.id, ENTRIES_CAP)
            about = f"{row.id}/{row.opened_at}/{row.rounds}"
            self._post(tenant, row.kind, about, entries, int(topics) - len(entries), int(total), row.thread)
        self._change_round(row, closing)

    def post(self, letter: Letter, about: str, recipients: Sequence[str]) -> None:
        """Put one mail per recipient into the queue; one that is there already stays as it is."""
        made = {
            "tenant": letter.tenant,
            "kind": letter.kind,
            "about": about,
            "stars": max((entry.told.stars for entry in letter.entries), default=0),
            "letter": msgspec.json.encode(letter),
            "created_at": text(self.now),
            "due_at": text(self.now),
            "state": "due",
            "attempts": 0,
            "reply": "",
            "done_at": "",
        }
        rows = [{"id": mail_id(letter.tenant, about, to), "recipient": to, **made} for to in dict.fromkeys(recipients)]
        if rows:
            self.db.execute(insert_new(self.db, mail), rows)

    def _post(
        self,
        tenant: Tenant,
        kind: Kind,
        about: str,
        entries: list[Entry],
        more: int = 0,
        total: int | None = None,
        thread: str = "",
    ) -> None:
        recipients: Sequence[str] = tenant.recipients
        unaddressed = not recipients and max(entry.told.stars for entry in entries) >= rules.IMPORTANT
        entries = [self._named(tenant, entry) for entry in entries]
        letter = Letter(
            kind=kind,
            tenant=tenant.id,
            tenant_name=tenant.name,
            locale=tenant.locale,
            time_zone=tenant.time_zone,
            at=text(self.now),
            entries=entries,
            total=sum(entry.count for entry in entries) if total is None else total,
            more=more,
            sites={box: name for box, name in tenants.sites(self.db, tenant.id).items() if _in(box, entries)},
            unaddressed=unaddressed,
            thread=thread,
        )
        if kind in _URGENT:
            self._sent[tenant.id] = self._mailed(tenant) + 1
        self.post(letter, about, self.operator if unaddressed else recipients)

    def _named(self, tenant: Tenant, entry: Entry) -> Entry:
        """With what the device is called by now."""
        told = entry.told
        if entry.others or not told.mac:
            return entry
        found = devices.known(self.db, tenant.id, told.box, told.mac)
        return msgspec.structs.replace(entry, device_name=found.name, device_kind=found.kind)

    def _tenant(self, name: str) -> Tenant:
        if name not in self._tenants:
            self._tenants[name] = tenants.load(self.db, name)
        return self._tenants[name]

    def _mailed(self, tenant: Tenant) -> int:
        """How many things were mailed about in the last hour."""
        if tenant.id in self._sent:
            return self._sent[tenant.id]
        since = text(self.now - dt.timedelta(hours=1))
        query = sa.select(sa.func.count(sa.distinct(mail.c.about))).where(
            mail.c.tenant == tenant.id, mail.c.created_at > since, mail.c.kind.in_(_URGENT)
        )
        self._sent[tenant.id] = found = int(self.db.execute(query).scalar_one())
        return found

    def _open(self, tenant: str, kind: str, topic: str) -> _Row | None:
        key = (tenant, kind, topic)
        if key not in self._rounds:
            which = (gathering.c.tenant == tenant, gathering.c.kind == kind, gathering.c.topic == topic)
            self._rounds[key] = self.db.execute(sa.select(gathering).where(*which)).one_or_none()
        return self._rounds[key]

    def _open_round(self, tenant: str, kind: str, topic: str, stars: int, until: dt.datetime, thread: str = "") -> str:
        """The identifier of the open round of this kind and topic, which is made when there is none."""
        row = self._open(tenant, kind, topic)
        if row is not None and stars <= row.stars:
            return str(row.id)
        id_ = _id(tenant, kind, topic)
        if row is not None:
            self.db.execute(sa.update(gathering).where(gathering.c.id == id_).values(stars=stars))
        else:
            values = {"id": id_, "tenant": tenant, "kind": kind, "topic": topic, "stars": stars, "rounds": 0}
            times = {"opened_at": text(self.now), "until": text(until)}
            self.db.execute(sa.insert(gathering).values(**values, **times, thread=thread))
        del self._rounds[tenant, kind, topic]
        return id_

    def _change_round(self, row: _Row, closing: rules.Closing) -> None:
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
        self._rounds.pop((row.tenant, row.kind, row.topic), None)

    def _heap(self, id_: str, entry: Entry) -> None:
        """Add an entry to a round, to the row of its topic when there is one."""
        if self._add(id_, entry.told.topic, entry):
            return
        if id_ not in self._sizes:
            size = sa.select(sa.func.count()).select_from(heap).where(heap.c.gathering == id_)
            self._sizes[id_] = self.db.execute(size).scalar_one()
        full = self._sizes[id_] >= HEAP_CAP
        if full and self._add(id_, OTHERS, entry):
            return
        values: dict[str, object] = {"gathering": id_, "topic": OTHERS if full else entry.told.topic}
        values |= {"told": msgspec.json.encode(entry.told), "stars": entry.told.stars, "number": entry.count}
        self.db.execute(sa.insert(heap).values(**values, first=entry.first, last=entry.last))
        self._sizes[id_] += 1

    def _add(self, id_: str, topic: str, entry: Entry) -> bool:
        """Add to the row of a topic; False when there is none."""
        which = (heap.c.gathering == id_, heap.c.topic == topic)
        found = self.db.execute(sa.select(heap).where(*which)).one_or_none()
        if found is None:
            return False
        change = {
            "number": found.number + entry.count,
            "stars": max(found.stars, entry.told.stars),
            "first": min(found.first, entry.first),
            "last": max(found.last, entry.last),
        }
        self.db.execute(sa.update(heap).where(*which).values(change))
        return True

    def _entries(self, id_: str, most: int) -> list[Entry]:
        """What a round holds, the most important and most frequent first; "others" last."""
        order = (heap.c.topic == OTHERS, heap.c.stars.desc(), heap.c.number.desc(), heap.c.first, heap.c.topic)
        rows = self.db.execute(sa.select(heap).where(heap.c.gathering == id_).order_by(*order).limit(most))
        return [
            Entry(msgspec.json.decode(row.told, type=Told), row.number, row.first, row.last, others=row.topic == OTHERS)
            for row in rows
        ]


def planner_lock(db: sa.Connection) -> None:
    """One planner at a time, because a round must not be opened twice; SQLite has one writer anyway."""
    if db.dialect.name == "postgresql":
        db.execute(sa.text("SELECT pg_advisory_xact_lock(7355609)"))


def _entry(told: Told) -> Entry:
    return Entry(told, told.count, told.at, told.until or told.at)


def mail_id(tenant: str, about: str, recipient: str) -> str:
    """A mail's identifier: the same notice to the same recipient has the same one, also after a restore."""
    return _id(tenant, about, recipient)


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _in(box: str, entries: list[Entry]) -> bool:
    return any(entry.told.box == box for entry in entries)
