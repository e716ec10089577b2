"""Asks the running daemon to choose rules and policy anew, and waits for what comes of it."""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from sekisho.appliance import status
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine import EngineState

RELOAD_WAIT_S: Final = 180.0


def reload(settings: Settings) -> EngineState:
    """Have the running daemon choose rules and policy anew; how the engine is when it has.

    Raises:
        DeviceFault: the daemon does not run.
        PeerError: the engine did not finish in `RELOAD_WAIT_S`.

    """
    before = status.try_read(settings)
    if before is None or not before.fresh:
        raise DeviceFault("The box's daemon is not running.", "Start it: systemctl start sekisho-appliance.")
    os.kill(before.pid, signal.SIGHUP)
    deadline = time.monotonic() + RELOAD_WAIT_S
    while time.monotonic() < deadline:
        now = status.try_read(settings)
        if now is not None and now.engine.reloads > before.engine.reloads:
            return now.engine
        time.sleep(0.1)
    raise PeerError("The inspection engine did not finish reloading in time.")
