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
    deaths: int = 0
    """How often it ended and was started again by itself since somebody had it started, or succeeded."""
    beat_s: float = -1.0
    """When its main thread said last that it works (monotonic clock); negative: it never does."""


FACTS: Final = "LoadState,ActiveState,MainPID,StatusText,UnitFileState,NRestarts,WatchdogTimestampMonotonic"


class Services(Protocol):
    """The service manager."""

    def look(self, name: str) -> Running | None:
        """How a daemon is; None when this box does not run it."""

    def restart(self, name: str, within_s: float) -> None:
        """End it and start it again; returns when it says that it is ready.

        Raises:
            DeviceFault: it did not get ready in time.

        """

    def succeed(self, name: str) -> None:
        """Ask a daemon to start its successor and to hand over to it; returns at once. Its deaths are counted anew.

        Raises:
            DeviceFault: it cannot be asked.

        """


class Systemd:
    """The units `sekisho-NAME.service` of this machine."""

    def look(self, name: str) -> Running | None:
        told = self._run(["show", "-p", FACTS, _unit(name)], ASK_S)
        facts = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
        if facts.get("LoadState") != "loaded" or facts.get("UnitFileState") not in ("enabled", "static", "linked"):
            return None
        pid, deaths, beat = (_number(facts, name) for name in ("MainPID", "NRestarts", "WatchdogTimestampMonotonic"))
        ready = facts.get("ActiveState") == "active"
        return Running(ready, pid, said(facts.get("StatusText", "")), deaths, beat / 1e6 if beat else -1.0)

    def restart(self, name: str, within_s: float) -> None:
        self._run(["restart", _unit(name)], within_s)

    def succeed(self, name: str) -> None:
        # A restart sets the count of automatic restarts back, a reload does not; this does in any state: systemctl(1).
        self._run(["reset-failed", _unit(name)], ASK_S)
        self._run(["reload", _unit(name)], ASK_S)

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


def _number(facts: dict[str, str], name: str) -> int:
    told = facts.get(name, "")
    return int(told) if told.isdecimal() else 0


def _unit(name: str) -> str:
    return f"sekisho-{name}.service"
