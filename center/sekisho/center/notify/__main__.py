"""The notifier's process: plans what is new, watches the boxes, sends mails, until SIGTERM.

Planning and watching are one thread; senders are others, so that a mail server that hangs delays no decision. The
watchdog is fed only while every one of them goes on.
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
import threading
import time
from collections.abc import Generator
from typing import Final

from sekisho.appliance.core import program, sdnotify
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import settings
from sekisho.center.database import Database
from sekisho.center.notify import notices, sweep, watch
from sekisho.center.notify.sender import Sender
from sekisho.center.notify.smtp import ATTEMPT_S
from sekisho.center.settings import CenterSettings

POLL_S: Final = 0.1
YIELD_S: Final = 0.02
"""Between two pages, so that other writers of one SQLite file get their turn."""
RETRY_S: Final = 1.0
SENDERS: Final = 2
STUCK_S: Final = ATTEMPT_S + 60

log = logging.getLogger("sekisho.center.notify")


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Notifier:
    """The threads and what they share: a stop, a wake-up, their last signs of life."""

    def __init__(self, config: CenterSettings) -> None:
        self._config, self._retention = config.notify, config.retention
        self._database = Database(config.store)
        self._reading = Database(config.store, read_only=True)
        count = SENDERS if self._config.smtp_host else 0
        self._senders = [Sender(self._config, config.store, now) for _ in range(count)]
        self._alive: dict[str, float] = {}
        self._turn = notices.Turn()
        self.failed = False
        """Whether a sender ended by a fault; the service manager starts everything anew."""
        self._stop, self._wake = threading.Event(), threading.Event()

    def run(self) -> int:
        """Work until `stop`; 1 when a part of it failed."""
        if not self._senders:
            log.warning("no mail server is set ([notify] smtp_host): what is due waits")
        threads = [
            threading.Thread(target=self._send, args=(f"sender-{number}", sender), name=f"sender-{number}", daemon=True)
            for number, sender in enumerate(self._senders)
        ]
        for thread in threads:
            thread.start()
        sdnotify.notify("READY=1")
        looked = swept = beat = 0.0
        sweeping: Generator[int] | None = None
        while not self._stop.is_set():
            moment = time.monotonic()
            try:
                busy = self._plan()
                if moment - looked >= watch.EVERY_S:
                    looked = moment
                    watch.step(self._database, self._reading, self._config, now())
                if sweeping is None and moment - swept >= sweep.EVERY_S:
                    swept = moment
                    sweeping = sweep.sweep(self._database, now(), self._retention)
                if sweeping is not None and next(sweeping, None) is None:
                    sweeping = None
            except DeviceFault as err:
                sweeping = None
                log.error("%s Nothing was planned; trying again.", err)
                self._stop.wait(RETRY_S)
                continue
            if moment - beat >= 1.0 and self._all_alive(moment):
                beat = moment
                sdnotify.notify("WATCHDOG=1")
            self._stop.wait(YIELD_S if busy else POLL_S)
        for thread in threads:
            thread.join(5.0)
        return 1 if self.failed else 0

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def _plan(self) -> bool:
        with self._reading.reading() as db:
            if not notices.waiting(db, now()):
                return False
        taken = notices.plan(self._database, now(), self._config.operator, self._turn)
        self._wake.set()
        return taken > 0

    def _send(self, name: str, sender: Sender) -> None:
        def beat() -> None:
            self._alive[name] = time.monotonic()

        beat()
        try:
            sender.run(self._stop, self._wake, beat)
        except Exception:
            log.exception("%s ended", name)
            self.failed = True
            self.stop()

    def _all_alive(self, moment: float) -> bool:
        return all(moment - last < STUCK_S for last in self._alive.values())


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.notify", lambda path: Notifier(settings.load(path)), argv)


if __name__ == "__main__":
    sys.exit(main())
