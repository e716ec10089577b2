"""Whoever runs the box's daemons, as far as a switch needs it: systemd here, the lab's supervisor in `lab`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final, Protocol

from sekisho.appliance.core.errors import DeviceFault

ASK_S: Final = 10.0
RELEASE: Final = "release "
"""What a daemon's status line begins with when it says which release it runs (core.sdnotify)."""


@dataclass(frozen=True)
class Running:
    """One daemon as it is now."""

    ready: bool
    pid: int
    release: str = ""
    """Its own word; empty: it runs from none, or is not ready."""


class Services(Protocol):
    """The service manager."""

    def look(self, name: str) -> Running | None:
        """How a daemon is; None when this box does not run it."""

    def restart(self, name: str, within_s: float) -> None:
        """End it and start it again; returns when it says that it is ready.

        Raises:
            DeviceFault: it did not get ready in time.

        """


class Systemd:
    """The units `sekisho-NAME.service` of this machine."""

    def look(self, name: str) -> Running | None:
        told = self._run(["show", "-p", "LoadState,ActiveState,MainPID,StatusText,UnitFileState", _unit(name)], ASK_S)
        facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        if facts.get("LoadState") != "loaded" or facts.get("UnitFileState") not in ("enabled", "static", "linked"):
            return None
        pid = facts.get("MainPID", "")
        return Running(
            facts.get("ActiveState") == "active", int(pid) if pid.isdecimal() else 0, said(facts.get("StatusText", ""))
        )

    def restart(self, name: str, within_s: float) -> None:
        self._run(["restart", _unit(name)], within_s)

    @staticmethod
    def _run(arguments: list[str], within_s: float) -> str:
        try:
            done = subprocess.run(
                ["systemctl", *arguments], capture_output=True, text=True, timeout=within_s, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            raise DeviceFault(f"systemctl {arguments[0]} did not end in time: {err}.") from err
        if done.returncode:
            raise DeviceFault(f"systemctl {' '.join(arguments[:2])}: {done.stderr.strip()[-300:]}.")
        return done.stdout


def said(status: str) -> str:
    """The release in a daemon's status line."""
    return status.removeprefix(RELEASE).strip() if status.startswith(RELEASE) else ""


def _unit(name: str) -> str:
    return f"sekisho-{name}.service"
