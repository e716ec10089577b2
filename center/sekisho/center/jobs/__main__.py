"""The process that sends jobs to their boxes, until each has answered, until SIGTERM.

Level-triggered: what a box has not answered goes out again with back-off, and at once when it has come back. The
broker's word that it has a message ends nothing, nor is anything retained: a broker that forgets costs time, and one
that keeps what is old finds no use for it. Nothing is signed here.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core import jobs, program, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import LIFE_S, TERMINAL
from sekisho.center import mqtt, settings
from sekisho.center.jobs.book import TOLD
from sekisho.center.jobs.tables import JOB, JOB_BOX
from sekisho.center.sender import Sender
from sekisho.center.settings import CenterSettings
from sekisho.center.settings import Jobs as OwnSettings
from sekisho.center.store import BOX
from sekisho.center.views.jobs import JOB_STATE

POLL_S: Final = 0.5
PAGE: Final = 50
BACK_OFF_S: Final = (30, 3600)
SETTLE_S: Final = 30
SETTLED: Final = 1000
"""Rows in one transaction: others write as well."""
NEVER_AGAIN: Final = 1 << 62
"""`next_at` of what has ended or is long past its time: the look at what is due does not come upon it."""


class JobsSender(Sender):
    """Puts aside what is over, sends what is due."""

    def __init__(self, config: CenterSettings, own: OwnSettings) -> None:
        super().__init__(config, own, poll_s=POLL_S)
        self._settles_at = 0

    def turn(self, *, connected: bool, anew: bool) -> None:
        if not connected:
            return
        now = int(time.time())
        if now >= self._settles_at:
            with self.database.transaction() as db:
                full = settle(db, now) == SETTLED
            self._settles_at = now + (0 if full else SETTLE_S)
        with self.database.reading() as db:
            rows = db.execute(due(now)).all()
        given = [(row, self.client.publish(_topic(row), row.envelope, qos=1)) for row in rows]
        if not given:
            return
        confirmed = mqtt.wait_for([info for _, info in given])
        with self.database.transaction() as db:
            for (row, _), there in zip(given, confirmed, strict=True):
                pause = min(BACK_OFF_S[0] << min(row.tries, 10), BACK_OFF_S[1]) if there else BACK_OFF_S[0]
                values: dict[str, Any] = {"next_at": now + pause, "tries": row.tries + int(there)}
                if there:
                    values |= {"sent_at": utc.now(), "birth": row.birth or 0}
                db.execute(JOB_BOX.update().where(JOB_BOX.c.job == row.id, JOB_BOX.c.box == row.box).values(**values))


def settle(db: sa.Connection, now: int) -> int:
    """Put aside what will not be due any more, at most `SETTLED` rows; how many.

    What is past its time has to be so by far: the centre's clock may be wrong for a while.
    """
    ended = sa.exists().where(TOLD, JOB_STATE.c.state.in_(sorted(TERMINAL)))
    late = JOB_BOX.c.job.in_(sa.select(JOB.c.id).where(JOB.c.exp <= now - LIFE_S))
    key = (JOB_BOX.c.job, JOB_BOX.c.box)
    some = sa.select(*key).where(JOB_BOX.c.held == 0, JOB_BOX.c.next_at < NEVER_AGAIN, sa.or_(ended, late))
    which = sa.tuple_(*key).in_(some.limit(SETTLED))
    return db.execute(JOB_BOX.update().where(which).values(next_at=NEVER_AGAIN)).rowcount


def due(now: int, limit: int = PAGE) -> sa.Select[Any]:
    """What is to be sent now: not held, not over, and not answered; or answered before the box came back.

    A box that lost its disk, or was replaced, gets what is not over again that way; the others answer where they are.
    """
    back = sa.and_(BOX.c.box == JOB_BOX.c.box, BOX.c.tenant == JOB_BOX.c.tenant)
    came_back = sa.and_(BOX.c.state == "on", BOX.c.birth > JOB_BOX.c.birth)
    return (
        sa.select(JOB.c.id, JOB.c.envelope, JOB_BOX.c.box, JOB_BOX.c.tenant, JOB_BOX.c.tries, BOX.c.birth)
        .join(JOB, JOB.c.id == JOB_BOX.c.job)
        .outerjoin(JOB_STATE, TOLD)
        .outerjoin(BOX, back)
        .where(
            JOB_BOX.c.held == 0,
            JOB_BOX.c.next_at < NEVER_AGAIN,
            JOB.c.exp > now,
            sa.func.coalesce(JOB_STATE.c.state, "").not_in(sorted(TERMINAL)),
            sa.or_(sa.and_(sa.func.coalesce(JOB_STATE.c.ver, 0) == 0, JOB_BOX.c.next_at <= now), came_back),
        )
        .order_by(JOB_BOX.c.next_at, JOB.c.id, JOB_BOX.c.box)
        .limit(limit)
    )


def _topic(row: Any) -> str:
    return f"sk/1/{row.tenant}/{row.box}/{jobs.LEVEL}/{row.id}"


def _make(path: Path) -> JobsSender:
    config = settings.load(path)
    if config.jobs is None:
        raise RejectedInput(f"{path}: the section [jobs] is missing.")
    return JobsSender(config, config.jobs)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.jobs", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
