"""The process behind contracts: ends them on their day, makes exports, deletes what is due; until SIGTERM.

One at a time: whoever starts a second one waits for the first. After a kill the next goes on where this one committed.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import logging
import sys
import threading
from pathlib import Path
from typing import Final

from sekisho.appliance.core import program, sdnotify
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center import settings
from sekisho.center.contracts import applying, book, deleting, exporting, plan, research
from sekisho.center.database import Database
from sekisho.center.settings import CenterSettings

POLL_S: Final = 1.0
RETRY_S: Final = 10.0
DAYS_EVERY: Final = dt.timedelta(minutes=1)
"""How often it looks whether a day is over."""
YIELD_S: Final = 0.02
"""Between two steps, so that other writers of one SQLite file get their turn."""

log = logging.getLogger("sekisho.center.contracts")


class Keeper:
    """What is done about contracts without anybody asking."""

    def __init__(self, config: CenterSettings) -> None:
        plan.know_every_room()  # before the database is opened, which makes the tables of the rooms that are known
        self._database = Database(config.store)
        self._reading = Database(config.store, read_only=True)
        self._files = Path(config.exports)
        self._daily_at = dt.datetime.min.replace(tzinfo=dt.UTC)
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until `stop`."""
        self._files.mkdir(parents=True, exist_ok=True, mode=0o770)
        with (self._files / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            exporting.recover(self._database, self._files)
            sdnotify.notify("READY=1")
            while not self._stop.is_set():
                try:
                    busy = self.step(dt.datetime.now(dt.UTC))
                except (DeviceFault, OSError) as err:
                    log.error("%s Trying again.", err)
                    self._stop.wait(RETRY_S)
                    continue
                self._stop.wait(YIELD_S if busy else POLL_S)

    def step(self, now: dt.datetime) -> bool:
        """Do the next thing; whether there may be more to do at once."""
        self._beat()
        with self._reading.reading() as db:
            waiting = deleting.due(db, now), deleting.under_way(db)
        if now >= self._daily_at:
            self._daily_at = now + DAYS_EVERY
            with self._database.transaction() as db:
                for contract in book.end_due(db, now):
                    log.info("the contract of %s ended", contract.tenant)
                applying.forget(db, now)
            research.step(self._database, self._reading, now)
            exporting.expire(self._database, self._files, now)
        if exporting.run_next(self._database, self._reading, self._files, now, self._beat):
            return True
        for tenant in waiting[0]:
            try:
                with self._database.transaction() as db:
                    deleting.begin(db, tenant, "sekisho", now)
                log.info("the data of %s is being deleted", tenant)
            except RejectedInput as err:
                log.info("%s", err)
        return any([deleting.step(self._database, self._files, tenant, now) for tenant in waiting[1]])

    def stop(self) -> None:
        self._stop.set()

    def _beat(self) -> None:
        sdnotify.notify("WATCHDOG=1")


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.contracts", lambda path: Keeper(settings.load(path)), argv)


if __name__ == "__main__":
    sys.exit(main())
