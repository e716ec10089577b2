"""How long events are kept: per lane for everybody, less for a tenant that asked for it.

Whole days: the day an event was received counts. PostgreSQL drops a day's partition; SQLite deletes a bounded number of
rows at a time, so that ingest never waits long for either. What is gone does not come back (`streams` remembers its
number).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Generator, Iterator, Mapping
from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import partitions, refused, views
from sekisho.center.database import insert_new
from sekisho.center.settings import Days, Retention
from sekisho.center.store import EVENT, STORE, Store
from sekisho.center.streams import STREAM
from sekisho.telemetry.events import LANES

STEP_ROWS: Final = 2000
DROP_WAIT_S: Final = 1.0
EVERY_S: Final = 86400.0
AGAIN_S: Final = 3600.0
LEAP_DAYS: Final = 2

log = logging.getLogger(__name__)


class Sweeper:
    """Sweeps once a day, a step at a time, for a daemon that has other things to do."""

    def __init__(self, store: Store, policy: Retention) -> None:
        self._store, self._policy = store, policy
        self._sweep: Generator[int] | None = None
        self._next_at = 0.0

    def step(self, now: dt.datetime) -> bool:
        """Do a short step if there is one to do; returns whether there may be more."""
        if self._sweep is None:
            if now.timestamp() < self._next_at:
                return False
            self._next_at = now.timestamp() + EVERY_S
        try:
            if self._sweep is None:
                self._sweep = sweep(self._store, self._policy, _reference(self._store, now))
            if next(self._sweep, None) is None:
                self._sweep = None
        except DeviceFault as err:
            log.warning("%s Old events stay for now.", err)
            self._sweep, self._next_at = None, now.timestamp() + AGAIN_S
        return self._sweep is not None


def sweep(store: Store, policy: Retention, today: dt.date) -> Generator[int]:
    """Take away what is too old, one short transaction per step; yields how many rows (or partitions) went.

    Raises:
        DeviceFault: the database refused a step; the next sweep begins again.

    """
    with store.database.transaction() as db:
        refused.forget(db, str(today - dt.timedelta(days=refused.KEPT_DAYS)))
    yield from _sweep_rows(store, policy, today) if store.database.embedded else _sweep_days(store, policy, today)
    yield from _sweep_views(store, policy, today)


def days_of(policy: Retention, tenant: str) -> Days:
    """How long this customer's events are kept."""
    less, most = policy.tenants.get(tenant, policy.everyone), policy.everyone
    return Days(*(min(getattr(less, lane), getattr(most, lane)) for lane in Days.__struct_fields__))


def _sweep_views(store: Store, policy: Retention, today: dt.date) -> Iterator[int]:
    """What views keep of events that are past their time goes as well."""
    with store.database.reading() as db:
        tenants = db.scalars(sa.select(STREAM.c.tenant).distinct()).all()
    for tenant in tenants:
        for slice_ in views.SLICES:
            gone = 1
            while gone:
                with store.database.transaction() as db:
                    gone = slice_.forget(db, tenant, days_of(policy, tenant), today, STEP_ROWS)
                if gone:
                    yield gone


def _reference(store: Store, now: dt.datetime) -> dt.date:
    """The day to count from. It moves once a day and never far, lest a wrong clock takes everything away."""
    with store.database.transaction() as db:
        db.execute(insert_new(db, STORE), {"id": 1})
        day, moved_at = db.execute(sa.select(STORE.c.swept, STORE.c.swept_at)).one()
        if moved_at and abs(now - dt.datetime.fromisoformat(moved_at)) < dt.timedelta(seconds=EVERY_S * 0.8):
            return dt.date.fromisoformat(day)
        new = min(now.date(), dt.date.fromisoformat(day) + dt.timedelta(days=LEAP_DAYS)) if day else now.date()
        db.execute(STORE.update().values(swept=str(new), swept_at=now.isoformat()))
    return new


def _sweep_days(store: Store, policy: Retention, today: dt.date) -> Iterator[int]:
    with store.database.reading() as db:
        there = partitions.existing(db)
    for lane, day in there:
        if day < _first_kept(policy.everyone, lane, today):
            with store.database.transaction() as db:
                partitions.drop(db, lane, day, DROP_WAIT_S)
            yield 1
            continue
        late = [name for name, days in policy.tenants.items() if day < _first_kept(days, lane, today)]
        if late:
            mine = (EVENT.c.lane == lane, EVENT.c.tenant.in_(late))
            of_day = (EVENT.c.received_at >= str(day), EVENT.c.received_at < str(day + dt.timedelta(days=1)))
            with store.database.transaction() as db:
                gone = db.execute(EVENT.delete().where(*mine, *of_day)).rowcount
            if gone:
                yield gone


def _sweep_rows(store: Store, policy: Retention, today: dt.date) -> Iterator[int]:
    """By id, which grows with the time of receipt: no index over times is needed, and each step is bounded.

    The end is where rows are young; rows of a day to come, from when the centre's clock was wrong, are passed over.
    """
    with store.database.reading() as db:
        at, end = db.execute(sa.select(sa.func.min(EVENT.c.id), sa.func.max(EVENT.c.id))).one()
    everyone = {lane: str(_first_kept(policy.everyone, lane, today)) for lane in range(LANES)}
    newest = max([*everyone.values(), *_cuts(policy.tenants, today)])
    tomorrow = str(today + dt.timedelta(days=1))
    old = sa.or_(*(_older(lane, cut) for lane, cut in everyone.items()), *_tenants_old(policy.tenants, today))
    while at is not None and at <= end:
        window = EVENT.c.id.between(at, at + STEP_ROWS - 1)
        with store.database.transaction() as db:
            oldest = db.scalar(sa.select(sa.func.min(EVENT.c.received_at)).where(window))
            if oldest is not None and newest <= oldest < tomorrow:
                return
            gone = db.execute(EVENT.delete().where(window, old)).rowcount
            at = db.scalar(sa.select(sa.func.min(EVENT.c.id)).where(EVENT.c.id >= at + STEP_ROWS))
        yield gone


def _tenants_old(tenants: Mapping[str, Days], today: dt.date) -> Iterator[sa.ColumnElement[bool]]:
    for name, days in tenants.items():
        for lane in range(LANES):
            yield sa.and_(EVENT.c.tenant == name, _older(lane, str(_first_kept(days, lane, today))))


def _cuts(tenants: Mapping[str, Days], today: dt.date) -> Iterator[str]:
    return (str(_first_kept(days, lane, today)) for days in tenants.values() for lane in range(LANES))


def _older(lane: int, cut: str) -> sa.ColumnElement[bool]:
    return sa.and_(EVENT.c.lane == lane, EVENT.c.received_at < cut)


def _first_kept(days: Days, lane: int, today: dt.date) -> dt.date:
    return today - dt.timedelta(days=(days.verdicts, days.alerts, days.metadata)[lane])
