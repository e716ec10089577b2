"""What an inspector says of the rules it works with: one small file each, written by it, read by whoever has to know.

`engine` is written by appliance (Suricata's own counts and the canary packet), `scanner` by inspect (its workers and
the canary file). A set is in force when both say so, proven, and recently: a file says nothing that was not tried.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

MAX_BYTES: Final = 64 << 10
FRESH_S: Final = 12.0
"""Written at every change and every few seconds; older than this means that the inspector does not run."""

Who = Literal["engine", "scanner"]
Canary = Literal["caught", "missed", "untried"]


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One inspector's rules at one instant."""

    at: float
    """Monotonic clock, seconds."""
    set_id: str = ""
    """Of the set it works with (`SetInfo.id`); empty: none."""
    rules: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rules of that set it has loaded: the product's own do not count, muted ones are left out."""
    expected: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rules it should have loaded."""
    failed: Annotated[int, msgspec.Meta(ge=0)] = 0
    canary: Canary = "untried"
    """Whether the last trial stopped what it must stop, and nothing else."""
    canary_at: float = 0.0
    """Monotonic clock, seconds: of the last trial."""
    loads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Loads tried so far, with success or without: who waits for one sees this move."""
    refused: str = ""
    """Identifier of the set that was asked for and refused; empty when none was since the last success."""
    why: str = ""
    """Reason of that, for people."""
    muted: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Rules left out because a person or the soak muted them."""
    soaking: Annotated[int, msgspec.Meta(ge=0)] = 0
    """New dropping rules that only report for now."""
    accepted: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Packets let through since the engine started; likewise `blocked`. The scanner leaves both 0."""
    blocked: Annotated[int, msgspec.Meta(ge=0)] = 0

    keeps: bool = False
    """The scanner can write what it has to keep (its quarantine); the engine keeps nothing."""

    @property
    def proven(self) -> bool:
        """Whether this says: the set named is loaded whole, and stops what it must."""
        return bool(self.set_id) and self.rules == self.expected > 0 and not self.failed and self.canary == "caught"


def path_of(settings: Settings, who: Who) -> Path:
    """Where `who` writes; the directory is its own."""
    return settings.run / ("appliance" if who == "engine" else "inspect") / f"{who}-set.json"


def write(settings: Settings, who: Who, standing: Standing) -> None:
    """Publish `standing`.

    Raises:
        OSError: tmpfs full.

    """
    path = path_of(settings, who)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(standing), 0o644)


def try_read(settings: Settings, who: Who, now: float | None = None) -> Standing | None:
    """What `who` last said; None when it never did, does not run, or the file is damaged. `now`: monotonic, seconds."""
    try:
        with path_of(settings, who).open("rb") as source:
            found = msgspec.json.decode(source.read(MAX_BYTES), type=Standing)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if (time.monotonic() if now is None else now) - found.at < FRESH_S else None
