"""How often each rule spoke on this box: counted by telemetry, which reads every event, and read by the signatures
daemon, which judges whether a new set is too loud. Counts run from telemetry's start; a reader takes differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

MAX_BYTES: Final = 1 << 20
RULES_CAP: Final = 8192
"""Rules that are told apart; what speaks first when all places are taken is counted in `rest`."""
EVERY_S: Final = 5.0

_Count = Annotated[int, msgspec.Meta(ge=0)]


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since `since`."""

    since: str
    """Random text of this run: with another one, differences mean nothing."""
    at: float
    """Monotonic clock, seconds: written every `EVERY_S` while something changes, now and then otherwise."""
    sids: dict[int, _Count] = {}
    """Alerts by Suricata rule."""
    yara: dict[str, _Count] = {}
    """File verdicts by YARA rule."""
    rest: _Count = 0


def path_of(settings: Settings) -> Path:
    return settings.run / "telemetry" / "fired.json"


def write(settings: Settings, fired: Fired) -> None:
    """Publish `fired`.

    Raises:
        OSError: tmpfs full.

    """
    write_atomic(path_of(settings), msgspec.json.encode(fired), 0o644)


def try_read(settings: Settings) -> Fired | None:
    """The last counts; None when there are none."""
    try:
        with path_of(settings).open("rb") as source:
            return msgspec.json.decode(source.read(MAX_BYTES), type=Fired)
    except (OSError, msgspec.MsgspecError):
        return None
