"""The lab's supervisor as the service manager of a switch (firmware.switch.services)."""

from __future__ import annotations

import os
import signal

from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.firmware.switch.services import Running, said
from sekisho.lab.lab import Lab


class Supervised:
    """The box's daemons of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def look(self, name: str) -> Running | None:
        for one in self._lab.status():
            if one.name == name and one.place == "box":
                return Running(one.state == "ready", one.pid, said(one.said))
        return None

    def restart(self, name: str, within_s: float) -> None:
        """As `Services.restart`; as with systemd it failed when the program ended before it was ready."""
        try:
            self._lab.stop(name)
            self._lab.start(name)
            self._lab.wait(lambda: self._settled(name), f"{name} does not get ready", within_s)
        except PeerError as err:
            raise DeviceFault(str(err)) from err
        found = self.look(name)
        if found is None or not found.ready:
            raise DeviceFault(f"{name} ended before it was ready.")

    def succeed(self, name: str) -> None:
        """As `Services.succeed`."""
        found = self.look(name)
        if found is None or not found.pid:
            raise DeviceFault(f"{name} does not run.")
        try:
            os.kill(found.pid, signal.SIGHUP)
        except OSError as err:
            raise DeviceFault(f"{name} cannot be asked for a successor: {err.strerror}.") from err

    def _settled(self, name: str) -> bool:
        return any(one.name == name and one.place == "box" and one.state != "starting" for one in self._lab.status())
