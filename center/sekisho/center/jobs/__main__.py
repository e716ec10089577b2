"""The process that sends jobs to their boxes, until each has answered, until SIGTERM.

Level-triggered: what a box has not answered goes out again with back-off, and at once when it has come back. The
broker's word that it has a message ends nothing, nor is anything retained: a broker that forgets costs time, and one
that keeps what is old finds no use for it. Nothing is signed here.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from sekisho.appliance.core import jobs, program, sdnotify, utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.jobs import LIFE_S, TERMINAL
from sekisho.center import mqtt, settings
from sekisho.center.database import Database
from sekisho.center.jobs.book import TOLD
from sekisho.center.jobs.tables import JOB, JOB_BOX
from sekisho.center.settings import BrokerLink, CenterSettings
from sekisho.center.settings import Jobs as OwnSettings
from sekisho.center.store import BOX
from sekisho.center.views.jobs import JOB_STATE

POLL_S: Final = 0.5
RETRY_S: Final = 1.0
"""For all that went out together: the watchdog waits as well."""
WATCHDOG_S: Final = 2.0
PAGE: Final = 50
BACK_OFF_S: Final = (30, 3600)
SETTLE_S: Final = 30
SETTLED: Final = 1000
"""Rows in one transaction: others write as well."""
NEVER_AGAIN: Final = 1 << 62
"""`next_at` of what has ended or is long past its time: the look at what is due does not come upon it."""

log = logging.getLogger("sekisho.center.jobs")


class Sender:
    """One broker connection, one database."""

    def __init__(self, config: CenterSettings, own: OwnSettings) -> None:
        self._database = Database(config.store)
        self._stop = threading.Event()
        self._settles_at = 0
        link = config.broker
        self._link = BrokerLink(link.host, link.ca, own.cert, own.key, link.port, own.client)
        self._client = mqtt.make_client(self._link, on_connect=lambda: None)

    def run(self) -> None:
        """Work until `stop`."""
        self._client.connect_async(self._link.host, self._link.port, keepalive=30)
        self._client.loop_start()
        sdnotify.notify("READY=1")
        beat = 0.0
        while not self._stop.wait(POLL_S):
            moment = time.monotonic()
            if moment - beat >= WATCHDOG_S:
                beat = moment
                sdnotify.notify("WATCHDOG=1")
            try:
                if self._client.is_connected():
                    self._turn(int(time.time()))
            except DeviceFault as err:
                log.error("%s Trying again.", err)
                self._stop.wait(RETRY_S)
        self._client.disconnect()
        self._database.close()

    def stop(self) -> None:
        self._stop.set()

    def _turn(self, now: int) -> None:
        if now >= self._settles_at:
            with self._database.transaction() as db:
                full = settle(db, now) == SETTLED
            self._settles_at = now + (0 if full else SETTLE_S)
        with self._database.reading() as db:
            rows = db.execute(due(now)).all()
        given = [(row, self._client.publish(_topic(row), row.envelope, qos=1)) for row in rows]
        if not given:
            return
        confirmed = mqtt.wait_for([info for _, info in given])
        with self._database.transaction() as db:
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


def _make(path: Path) -> Sender:
    config = settings.load(path)
    if config.jobs is None:
        raise RejectedInput(f"{path}: the section [jobs] is missing.")
    return Sender(config, config.jobs)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.jobs", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
