"""The time as the centre told it in this boot: written by telemetry, read by whoever judges by expiry.

The wall clock of a box may be years off. This is told by a server whose certificate was checked, and goes on by the
monotonic clock, which all processes of a boot share; the directory is emptied by a boot, and with it what was told.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

MAX_BYTES: Final = 1024
EVERY_S: Final = 600.0
"""It is written again this often at most: the monotonic clock hardly drifts in between."""


class ToldTime(msgspec.Struct, frozen=True):
    """One answer of the centre's."""

    true: float
    """Unix seconds."""
    mono: float
    """Monotonic seconds of the same instant."""


def path_of(settings: Settings) -> Path:
    return settings.run / "telemetry" / "told_time.json"


def write(settings: Settings, true: float, mono: float) -> None:
    """Publish an answer.

    Raises:
        OSError: tmpfs full.

    """
    write_atomic(path_of(settings), msgspec.json.encode(ToldTime(true, mono)), 0o644)


def try_read(settings: Settings) -> float | None:
    """The true time now, unix seconds; None while the centre has not told it since the box started."""
    try:
        with path_of(settings).open("rb") as source:
            told = msgspec.json.decode(source.read(MAX_BYTES), type=ToldTime)
    except (OSError, msgspec.MsgspecError):
        return None
    since = time.monotonic() - told.mono
    return told.true + since if since >= 0 else None
