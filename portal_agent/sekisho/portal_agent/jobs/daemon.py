"""The jobs daemon: a look a second at what came and at what is under way. SIGTERM ends it at any instant."""

from __future__ import annotations

import logging
import sys
import threading
from typing import Final

from sekisho.appliance.core import program, settings
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.desks import Desks
from sekisho.portal_agent.jobs.runner import Jobs

LOOK_S: Final = 0.5
FAULT_S: Final = 5.0

log = logging.getLogger(__name__)


class Daemon:
    """Runs until `stop`."""

    def __init__(self, config: Settings) -> None:
        self._jobs = Jobs(config, Desks(config))
        self._ends = threading.Event()
        self._fault = ""

    def run(self) -> None:
        """Until stopped."""
        notify("READY=1")
        while not self._ends.wait(self._turn()):
            notify("WATCHDOG=1")
        notify("STOPPING=1")
        self._jobs.close()

    def stop(self) -> None:
        self._ends.set()

    def _turn(self) -> float:
        try:
            self._jobs.turn()
            self._fault = ""
            return LOOK_S
        except DeviceFault as err:
            if str(err) != self._fault:
                log.error("%s", err)
            self._fault = str(err)
            return FAULT_S


if __name__ == "__main__":
    sys.exit(program.main("sekisho.portal_agent.jobs.daemon", lambda path: Daemon(settings.load(path))))
