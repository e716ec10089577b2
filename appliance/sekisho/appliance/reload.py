"""Asks the running daemon to choose rules and policy anew, or to renew its engine, and waits for what comes of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from sekisho.appliance import status
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine import EngineState

RELOAD_WAIT_S: Final = 180.0
RENEW_WAIT_S: Final = 240.0


def reload(settings: Settings) -> EngineState:
    """Have the running daemon choose rules and policy anew; how the engine is when it has.

    Raises:
        DeviceFault: the daemon does not run.
        PeerError: the engine did not finish in `RELOAD_WAIT_S`.

    """
    return _asked(settings, signal.SIGHUP, lambda engine: engine.reloads, RELOAD_WAIT_S, "reloading")


def renew(settings: Settings, *, may_restart: bool = False) -> EngineState:
    """Have the running daemon put another engine in the place of the one that works; how the engine is then.

    `may_restart`: by a restart, which inspects nothing for some seconds, where there is no room for two engines.

    Raises:
        DeviceFault: the daemon does not run.
        PeerError: it did not finish in `RENEW_WAIT_S`.

    """
    number = signal.SIGUSR2 if may_restart else signal.SIGUSR1
    return _asked(settings, number, lambda engine: engine.renewals, RENEW_WAIT_S, "being renewed")


def _asked(
    settings: Settings, number: signal.Signals, answered: Callable[[EngineState], int], wait_s: float, what: str
) -> EngineState:
    before = status.try_read(settings)
    if before is None or not before.fresh:
        raise DeviceFault("The box's daemon is not running.", "Start it: systemctl start sekisho-appliance.")
    os.kill(before.pid, number)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        now = status.try_read(settings)
        if now is not None and answered(now.engine) > answered(before.engine):
            return now.engine
        time.sleep(0.1)
    raise PeerError(f"The inspection engine did not finish {what} in time.")
