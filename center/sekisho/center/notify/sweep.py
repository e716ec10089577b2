"""What was told long ago is forgotten: mails that are done, notices that were planned, answers that were seen to."""

from __future__ import annotations

import datetime as dt
from typing import Final

import sqlalchemy as sa

from sekisho.center.database import Database
from sekisho.center.notify.tables import mail, request, text
from sekisho.center.outbox import NEW, NOTICE

KEPT_DAYS: Final = 90
"""Longer than a link of a mail is good; a customer may ask what was sent to whom."""
EVERY_S: Final = 3600.0
STEP_ROWS: Final = 2000
"""Taken away at a time, so that nobody waits for it; what is left goes with the next sweep."""


def sweep(database: Database, now: dt.datetime) -> None:
    """Take away what is too old. What is still to be sent or seen to stays, however old.

    Raises:
        DeviceFault: the database refused; it is tried again with the next sweep.

    """
    before = text(now - dt.timedelta(days=KEPT_DAYS))
    old = (
        (mail, sa.and_(mail.c.state.in_(("sent", "failed")), mail.c.created_at < before)),
        (NOTICE, sa.and_(NOTICE.c.state != NEW, NOTICE.c.received_at < before)),
        (request, sa.and_(request.c.done_at != "", request.c.done_at < before)),
    )
    for table, which in old:
        with database.transaction() as db:
            rows = sa.select(table.c.id).where(which).limit(STEP_ROWS).scalar_subquery()
            db.execute(sa.delete(table).where(table.c.id.in_(rows)))
