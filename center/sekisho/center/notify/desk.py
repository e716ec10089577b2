"""The desk: every new notice takes its way, every round whose time has come is closed, inside one transaction.

`plan` is given what is new and the time, and writes mails and rounds; a kill before the commit leaves all as it was,
after it nothing is decided twice. Counts are never lost: what a notice stands for is in exactly one mail, in one open
round, or kept without a mail (`rules.Keep`).
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.center import devices, tenants
from sekisho.center.database import insert_new
from sekisho.center.notify import rules
from sekisho.center.notify.letter import Entry, Kind, Letter
from sekisho.center.notify.rounds import HEAP_CAP, Round, Rounds
from sekisho.center.notify.tables import mail, text
from sekisho.center.notify.told import Told
from sekisho.center.tenants import Tenant

ENTRIES_CAP: Final = 20
"""Topics a mail lists; it says how many more there are."""

log = logging.getLogger(__name__)

_URGENT: Final = ("alert", "again", "storm", "quiet")
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

    def __post_init__(self) -> None:
        self._rounds = Rounds(self.db, self.now)

    def plan(self, notices: Iterable[Notice], *, carefully: bool = False) -> list[Notice]:
        """Give every notice its way, then close what is due; a round that cannot be closed is set aside alone.

        `carefully`: a notice that cannot be placed is undone and returned, and hurts no other; without, it raises.
        """
        aside = []
        for notice in notices:
            if not carefully:
                self._place(notice)
            elif not self._alone(f"notice {notice.key}", functools.partial(self._place, notice)):
                aside.append(notice)
        self._rounds.flush()
        for row in self._rounds.due():
            what = f"{row.kind} {row.id} of tenant {row.tenant}"
            if not self._alone(what, functools.partial(self._close, row)):
                self._rounds.set_aside(row)
        return aside

    def _alone(self, what: str, work: Callable[[], None]) -> bool:
        """Do it all or not at all, whatever else this transaction does; False (and said) when it cannot be done.

        What is wrong with the database and not with the work is raised.
        """
        try:
            with self.db.begin_nested():
                work()
                self._rounds.flush()
        except Exception as err:
            if isinstance(err, sa.exc.DBAPIError) and not isinstance(err, sa.exc.DataError | sa.exc.IntegrityError):
                raise
            log.exception("%s could not be planned and is set aside", what)
            self._rounds, self._sent = Rounds(self.db, self.now), {}
            return False
        return True

    def _place(self, notice: Notice) -> None:
        tenant, told = self._tenant(notice.tenant), notice.told
        row = self._rounds.find(tenant.id, "again", told.topic)
        window = None if row is None else rules.Window(row.stars)
        way = rules.place(told.stars, tenant, self.now, window, self._mailed(tenant))
        match way:
            case rules.MailNow():
                self._post(tenant, "alert", notice.key, [_entry(told)])
                self._rounds.begin(tenant.id, "again", told.topic, told.stars, way.again_until, notice.key)
            case rules.Gather():
                topic = told.topic if way.kind == "again" else ""
                id_ = self._rounds.begin(tenant.id, way.kind, topic, told.stars, way.until)
                self._rounds.add(id_, _entry(told))
            case rules.Keep():
                pass

    def _close(self, row: Round) -> None:
        tenant = self._tenant(row.tenant)
        topics, total = self._rounds.weight(row.id)
        closing = rules.close(row.kind, total, row.rounds, tenant, self.now, self._mailed(tenant))
        if closing.into_storm:
            storm = self._rounds.begin(tenant.id, "storm", "", row.stars, self.now + rules.storm(0))
            for entry in self._rounds.entries(row.id, HEAP_CAP + 1):
                self._rounds.add(storm, entry)
        if closing.mail:
            entries = self._rounds.entries(row.id, ENTRIES_CAP)
            about = f"{row.id}/{row.opened_at}/{row.rounds}"
            self._post(tenant, row.kind, about, entries, topics - len(entries), total, row.thread)
        self._rounds.change(row, closing)

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


def planner_lock(db: sa.Connection) -> None:
    """One planner at a time, because a round must not be opened twice; SQLite has one writer anyway."""
    if db.dialect.name == "postgresql":
        db.execute(sa.text("SELECT pg_advisory_xact_lock(7355609)"))


def _entry(told: Told) -> Entry:
    return Entry(told, told.count, told.at, told.until or told.at)


def mail_id(tenant: str, about: str, recipient: str) -> str:
    """A mail's identifier: the same notice to the same recipient has the same one, also after a restore."""
    return hashlib.sha256("\0".join((tenant, about, recipient)).encode()).hexdigest()[:32]


def _in(box: str, entries: list[Entry]) -> bool:
    return any(entry.told.box == box for entry in entries)
