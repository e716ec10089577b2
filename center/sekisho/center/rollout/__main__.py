"""The process that looks at rollouts that are not over, until SIGTERM. What it lets go `sekisho.center.jobs` sends.

After a kill it goes on where the last decision was written; the time in which nobody looked counts for no soak and
against no box.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Final

from sekisho.appliance.core import program, sdnotify
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import settings
from sekisho.center.database import Database
from sekisho.center.rollout import turn
from sekisho.center.rollout.sending import JOBS
from sekisho.center.settings import CenterSettings

EVERY_S: Final = 5.0
RETRY_S: Final = 10.0

log = logging.getLogger("sekisho.center.rollout")


class Looker:
    """One database."""

    def __init__(self, config: CenterSettings) -> None:
        self._database = Database(config.store)
        self._stop = threading.Event()

    def run(self) -> None:
        """Work until `stop`."""
        sdnotify.notify("READY=1")
        wait = 0.0
        while not self._stop.wait(wait):
            sdnotify.notify("WATCHDOG=1")
            try:
                turn.step(self._database, JOBS)
                wait = EVERY_S
            except DeviceFault as err:
                log.error("%s Nothing was decided; trying again.", err)
                wait = RETRY_S
        self._database.close()

    def stop(self) -> None:
        self._stop.set()


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.rollout", lambda path: Looker(settings.load(path)), argv)


if __name__ == "__main__":
    sys.exit(main())
