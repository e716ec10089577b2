"""Says to the daemon that its end is not the box's: a successor starts at once and is to find the engine at work.

Whoever restarts the daemon writes the file before; the daemon takes it for `FRESH_S` only, so that an end that was not
meant so later takes the engine along as ever. What counts is when the daemon is told to end: it keeps the answer, for
what it does just then (a load of rules) may take longer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

FRESH_S: Final = 30.0
_CAP: Final = 32


def path_of(settings: Settings) -> Path:
    return settings.run / "appliance" / "handover"


def ask(settings: Settings) -> None:
    """Have the daemon leave its engine behind when it is ended now.

    Raises:
        DeviceFault: the file cannot be written.

    """
    try:
        write_atomic(path_of(settings), repr(time.monotonic()).encode(), 0o644)  # rounded it might lie ahead
    except OSError as err:
        raise DeviceFault(f"{path_of(settings)} cannot be written: {err.strerror}.") from err


def wanted(settings: Settings) -> bool:
    """Whether that was asked just now."""
    try:
        with path_of(settings).open("rb") as source:
            at = float(source.read(_CAP))
    except (OSError, ValueError):
        return False
    return 0 <= time.monotonic() - at < FRESH_S
