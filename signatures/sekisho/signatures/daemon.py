"""The signatures daemon: keeps the box's published rule set (`keeper`). Nothing it does stops traffic.

Main thread: the keeper's turns, a look a second. What takes long has a thread of its own; the desk answers
`sekisho signatures update` and `import`. SIGTERM ends it at any instant without harm.
"""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

from sekisho.appliance.core import program, settings
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings
from sekisho.signatures.keeper import counter
from sekisho.signatures.keeper.counter import Counter
from sekisho.signatures.keeper.effects import Effects
from sekisho.signatures.keeper.facts import Refreshed
from sekisho.signatures.keeper.runner import LOOK_S, Keeper

log = logging.getLogger(__name__)


class Daemon:
    """Runs the keeper until `stop`."""

    def __init__(self, config: Settings) -> None:
        self._settings = config
        self._ends = False
        self._effects = Effects(config, lambda: self._ends)
        self._keeper = Keeper(config, self._effects)
        answering = Counter(config, lambda: self._keeper.journal, self._keeper.put, self._imported)
        self._desk = Desk(counter.socket_of(config), counter.USERS, answering.answer)
        self._fault = ""

    def run(self) -> None:
        """Until stopped."""
        notify("READY=1")
        try:
            while not self._ends:
                notify("WATCHDOG=1")
                self._turn()
        finally:
            notify("STOPPING=1")
            self._desk.close()
            self._keeper.close()

    def stop(self) -> None:
        self._ends = True

    def _turn(self) -> None:
        try:
            self._keeper.turn(LOOK_S)
            self._fault = ""
        except DeviceFault as err:
            if str(err) != self._fault:
                log.error("%s", err)
            self._fault = str(err)
            time.sleep(LOOK_S)
        with suppress(OSError):
            counter.show(
                self._settings, self._keeper.journal, time.monotonic(), self._keeper.waits,
                self._fault or self._keeper.last,
            )  # fmt: skip

    def _imported(self, directory: Path, confirm_old: bool) -> Refreshed:
        if confirm_old:
            log.warning("import of %s: a person confirmed that it is taken though it may be out of date", directory)
        return self._effects.imported(directory, confirm_old=confirm_old)


if __name__ == "__main__":
    sys.exit(program.main("sekisho.signatures.daemon", lambda path: Daemon(settings.load(path))))
