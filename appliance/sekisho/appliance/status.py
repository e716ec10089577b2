"""What the daemon says of itself: `run/appliance/status.json`, written once a second, read by the command line
and, after the daemon's own death, by its successor (the bypass account goes on).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine import EngineState
from sekisho.appliance.watchdog import Part, Queue

MAX_STATUS_BYTES: Final = 1 << 20
FRESH_S: Final = 3.0


class Status(msgspec.Struct):
    """The box at one instant."""

    pid: int
    at_mono: float
    """Monotonic clock: older than `FRESH_S` means that the daemon is not running."""
    mode: str
    fail_mode: str
    engine: EngineState
    engine_bypass: Part
    gate_bypass: Part
    queues: dict[int, Queue] = {}
    devices: int = 0

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.at_mono < FRESH_S


def path_of(settings: Settings) -> Path:
    return settings.run / "appliance" / "status.json"


def write(settings: Settings, status: Status) -> None:
    """Publish `status`.

    Raises:
        OSError: tmpfs full.

    """
    path = path_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(status), 0o644)


def try_read(settings: Settings) -> Status | None:
    """The last published status, None when there is none.

    Raises:
        RejectedInput: the file is damaged.

    """
    path = path_of(settings)
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(MAX_STATUS_BYTES), type=Status)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as err:
        raise RejectedInput(f"{path} cannot be read: {err}.") from err
