"""The page's process: first password, certificate, two servers, and the hour of a restart. Touches no traffic.

A box without an address of its own has no page: the daemon says so once and waits, so that nothing restarts in vain.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Final

import uvicorn

from sekisho.appliance.core import program, sdnotify, settings
from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.status import try_read
from sekisho.portal_agent import certificate
from sekisho.portal_agent.app import create_app
from sekisho.portal_agent.door import Door
from sekisho.portal_agent.guard import Guard, guarded
from sekisho.portal_agent.office import Office, certificate_file
from sekisho.portal_agent.serving import listen, server

TURN_S: Final = 2.0
STARTING_S: Final = 0.1
STOP_S: Final = 8.0

log = logging.getLogger(__name__)


class Page:
    """Everything the process owns."""

    def __init__(self, config: Settings, file: Path) -> None:
        """Have password, certificate and sockets.

        Raises:
            DeviceFault: the disk refuses, or a port is taken.

        """
        self._settings = config
        self._stopped = threading.Event()
        self._places: list[tuple[uvicorn.Server, list[socket.socket]]] = []
        self._told = False
        serves = config.page.enabled and bool(config.bridge.addresses)
        try:
            config.page_state.mkdir(mode=0o700, exist_ok=True)
            config.page_run.mkdir(mode=0o700, exist_ok=True)
        except OSError as err:
            raise DeviceFault(f"The page has no place for its files: {err}.") from err
        self.office = Office(config, file)
        if not serves:
            log.warning(
                "There is no page: it is switched off, or the box has no address of its own ([bridge] addresses)."
            )
            return
        page, path = config.page, certificate_file(config)
        certificate.ensure(path, [address.partition("/")[0] for address in config.bridge.addresses])
        inside = guarded(create_app(self.office), Guard(config, page.port, "https"))
        self._places.append((server(inside, path), listen(config, page.port)))
        if page.door_port:
            door = guarded(Door(config), Guard(config, page.door_port, "http"))
            self._places.append((server(door, None), listen(config, page.door_port)))

    def run(self) -> int:
        """Serve until `stop`; 3 when a server ended by itself."""
        threads = [
            threading.Thread(target=made.run, args=(sockets,), name=name, daemon=True)
            for (made, sockets), name in zip(self._places, ("page", "door"), strict=False)
        ]
        for thread in threads:
            thread.start()
        while not self._stopped.wait(TURN_S if self._ready() else STARTING_S):
            self._turn()
            if not all(thread.is_alive() for thread in threads):
                log.error("a server ended by itself")
                return 3
        for thread in threads:
            thread.join(STOP_S)
        return 0

    def close(self) -> None:
        """Give the ports back without having served."""
        for _, sockets in self._places:
            for each in sockets:
                each.close()

    def stop(self) -> None:
        """May be called from a signal's handler."""
        self._stopped.set()
        for made, _ in self._places:
            made.should_exit = True

    def _ready(self) -> bool:
        if all(made.started for made, _ in self._places) and not self._told:
            sdnotify.notify("READY=1")
            self._told = True
        return self._told

    def _turn(self) -> None:
        sdnotify.notify("WATCHDOG=1")
        try:
            if self.office.restarts.turn(time.time(), boot_id(), inspecting=self._inspecting()):
                self.office.record.note("restart_asked")
        except SekishoError as err:
            log.error("The restart is not asked for: %s", err)

    def _inspecting(self) -> bool:
        try:
            seen = try_read(self._settings)
        except RejectedInput:
            return False
        return bool(seen and seen.fresh and seen.engine.phase == "running" and not seen.engine_bypass.reason)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the machine is not fit."""
    return program.main("sekisho.portal_agent.daemon", lambda path: Page(settings.load(path), path), argv)


if __name__ == "__main__":
    sys.exit(main())
