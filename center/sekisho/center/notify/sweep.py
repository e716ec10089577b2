"""What was told long ago is forgotten: mails that are done, notices that were planned, answers that were seen to.

So is what boxes found, once it was judged, and what devices were called. No copy of an event outlives the event.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Iterator
from typing import Final, get_args

import sqlalchemy as sa

from sekisho.center.database import Database
from sekisho.center.devices import DEVICE
from sekisho.center.immunity.tables import SIGHTING
from sekisho.center.notify.rounds import ASIDE
from sekisho.center.notify.tables import gathering, heap, mail, request, text
from sekisho.center.outbox import BAD_FILE, NEW, NOTICE
from sekisho.center.settings import Days, Retention
from sekisho.telemetry.events import LANES, Event, FileVerdict

KEPT_DAYS: Final = 90
"""Longer than a link of a mail is good; a customer may ask what was sent to whom."""
EVERY_S: Final = 3600.0
STEP_ROWS: Final = 2000
"""Taken away at a time, so that nobody waits for it; other work comes between two steps."""

_TYPES: Final = {
    lane: [str(kind.__struct_config__.tag) for kind in get_args(Event) if kind.lane == lane] for lane in range(LANES)
}
_VERDICTS: Final = FileVerdict.lane


def sweep(database: Database, now: dt.datetime, policy: Retention) -> Generator[int]:
    """Take away what is too old, one short transaction per step; yields how many rows went.

    What is still to be sent, judged or seen to stays, however old.

    Raises:
        DeviceFault: the database refused a step; the next sweep begins again.

    """
    for table, which in _old(now, policy):
        keys = list(table.primary_key.columns)
        key = keys[0] if len(keys) == 1 else sa.tuple_(*keys)
        step = sa.delete(table).where(key.in_(sa.select(*keys).where(which).limit(STEP_ROWS)))
        gone = STEP_ROWS
        while gone >= STEP_ROWS:
            with database.transaction() as db:
                gone = db.execute(step).rowcount
            if gone:
                yield gone


def _old(now: dt.datetime, policy: Retention) -> Iterator[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Table by table, what has to go."""
    before = text(now - dt.timedelta(days=KEPT_DAYS))
    yield mail, sa.and_(mail.c.state.in_(("sent", "failed")), mail.c.created_at < before)
    yield request, sa.and_(request.c.done_at != "", request.c.done_at < before)
    aside = sa.and_(gathering.c.kind == ASIDE, gathering.c.opened_at < before)
    yield heap, heap.c.gathering.in_(sa.select(gathering.c.id).where(aside))
    yield gathering, aside
    yield NOTICE, sa.and_(NOTICE.c.state != NEW, NOTICE.c.received_at < before)
    everyone = policy.everyone
    for tenant, days in (("", everyone), *policy.tenants.items()):
        for lane, types in _TYPES.items():
            old = NOTICE.c.received_at < _cut(now, everyone, days, lane)
            yield NOTICE, sa.and_(NOTICE.c.state != NEW, NOTICE.c.type.in_(types), old, _of(NOTICE, tenant))
        cut = _cut(now, everyone, days, _VERDICTS)
        yield BAD_FILE, sa.and_(BAD_FILE.c.state != NEW, BAD_FILE.c.received_at < cut, _of(BAD_FILE, tenant))
        yield SIGHTING, sa.and_(SIGHTING.c.day < cut[:10], _of(SIGHTING, tenant))
        longest = text(now - dt.timedelta(days=max(_lanes(days))))
        yield DEVICE, sa.and_(DEVICE.c.at < longest, _of(DEVICE, tenant))


def _cut(now: dt.datetime, everyone: Days, days: Days, lane: int) -> str:
    """What is older than this goes: a tenant may want less than everybody has, more is not kept."""
    return text(now - dt.timedelta(days=min(KEPT_DAYS, _lanes(everyone)[lane], _lanes(days)[lane])))


def _lanes(days: Days) -> tuple[int, int, int]:
    return days.verdicts, days.alerts, days.metadata


def _of(table: sa.Table, tenant: str) -> sa.ColumnElement[bool]:
    """Of this tenant; of everybody where it is empty."""
    return table.c.tenant == tenant if tenant else sa.true()
