"""The firmware daemon: keeps the box's own software (`keeper`). Nothing of it is in the way of traffic.

Main thread: the keeper's turns, a look a second. What takes long has a thread of its own; the desk answers the page,
the button, the jobs and `sekisho firmware`. What needs root is asked of a small errand (`errands`). SIGTERM ends it at
any instant without harm.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core import program, release, settings
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import wishes
from sekisho.firmware.gates.eyes import Eyes
from sekisho.firmware.keeper import desk, here
from sekisho.firmware.keeper.effects import Asking, Channel, Effects
from sekisho.firmware.keeper.journal import IRREVOCABLE, Attempt, State
from sekisho.firmware.keeper.runner import LOOK_S, Keeper
from sekisho.firmware.keeper.sight import Sight
from sekisho.firmware.reboot import desk as reboot_desk
from sekisho.firmware.reboot.keeping import Reboots
from sekisho.firmware.source import Source

UNDISTURBED: Final = IRREVOCABLE | {State.ARMED, State.INSTALLING}
"""No restart that is asked for falls into these."""

log = logging.getLogger(__name__)


class Daemon:
    """Runs the keeper until `stop`."""

    def __init__(self, config: Settings, channel: Channel | None = None, ask: Asking | None = None) -> None:
        """Take up where the last one ended. `channel`: another than the settings name; `ask`: whom in root's place.

        Raises:
            DeviceFault: the disk refuses the journal.

        """
        self._settings = config
        self._ends = False
        self._own = release.name()
        """What this process runs from; where another is in use by now, it makes room for its successor."""
        self._managed = bool(os.environ.get("NOTIFY_SOCKET"))
        self._alone, self._root = threading.Lock(), ask
        self._sight = Sight(config, Eyes(config))
        effects = Effects(config, channel or Source(config), Eyes(config), self._ask, self._unwanted, self._on_its_way)
        self._keeper: Keeper | None = None
        started = here.started(config)
        self._keeper = keeper = Keeper(config, effects, self._sight.look, started, wall=self._sight.wall)
        self._reboots = Reboots(config, lambda: Eyes(config), self._ask, started.boot)
        answering = desk.Counter(
            lambda: keeper.journal, lambda: keeper.machine.running, self._sight.weekly, keeper.put,
            lambda: self._fault or keeper.last, self._sight.wall,
        )  # fmt: skip
        self._fault = ""
        self._desk = Desk(config.firmware_socket, desk.USERS, answering.answer)
        self._restarts = Desk(reboot_desk.socket_of(config), reboot_desk.USERS, self._reboots.answer)

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
            self._restarts.close()
            if self._keeper is not None:
                self._keeper.close()
            here.stopping(self._settings)

    def stop(self) -> None:
        self._ends = True

    def _turn(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        try:
            if said := self._sight.chosen(keeper.journal, self._sight.wall()):
                keeper.put(said)
            if self._reboots.going:  # nothing is begun any more
                time.sleep(LOOK_S)
            else:
                keeper.turn(LOOK_S)
            attempt = keeper.journal.attempt
            self._reboots.turn(busy=attempt is not None and attempt.state in UNDISTURBED)
            self._fault = ""
            self._ends = self._ends or (self._managed and self._outrun(keeper))
        except DeviceFault as err:
            if str(err) != self._fault:
                log.error("%s", err)
            self._fault = str(err)
            time.sleep(LOOK_S)

    def _outrun(self, keeper: Keeper) -> bool:
        """Whether the service manager should start the release in use. Not before its trial is over: who may have to
        take it back is not to depend on it.
        """
        attempt = keeper.journal.attempt
        busy = keeper.machine.working or (attempt is not None and attempt.state in IRREVOCABLE)
        return not busy and here.running(self._settings).place.release != self._own

    def _ask(self, number: str, wish: wishes.Wish, limit_s: float) -> wishes.Outcome:
        """One errand at a time."""
        with self._alone:
            if self._root is not None:
                return self._root(number, wish, limit_s)
            return wishes.ask(self._settings, number, wish, limit_s)

    def _on_its_way(self) -> Attempt | None:
        return self._keeper.journal.attempt if self._keeper is not None else None

    def _unwanted(self) -> bool:
        attempt = self._on_its_way()
        return self._ends or (self._keeper is not None and (attempt is None or attempt.state is not State.DOWNLOADING))


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the machine is not fit."""

    def make(path: Path) -> Daemon:
        return Daemon(settings.load(path))

    return program.main("sekisho.firmware.daemon", make, argv)


if __name__ == "__main__":
    sys.exit(main())
