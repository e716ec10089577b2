"""What the page may ask of root, in closed words, and what root says of it. The two meet in two small files.

The page writes `wish.json` into its own directory; root's errand (`errands`) takes it away, does it, and writes what
became of it into a directory of its own. There is one wish at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

CAP_BYTES: Final = 4096


class Restart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="restart"):
    """Restart the box now."""


class Enrol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wish", tag="enrol"):
    """Join the centre with a code, which is used up by it."""

    centre: Annotated[str, msgspec.Meta(max_length=300, pattern=r"^https://[A-Za-z0-9.:\[\]-]{1,280}/?$")]
    code: Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[0-9A-Za-z*~$= -]{1,100}$")]


Wish = Restart | Enrol
Word = Literal["done", "refused", "unreachable", "fault"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of the last wish."""

    wish: str
    at: str
    word: Word
    detail: str = ""


def wish_file(settings: Settings) -> Path:
    return settings.page_run / "wish.json"


def outcome_file(settings: Settings) -> Path:
    return settings.errands_run / "outcome.json"


def restart_file(settings: Settings) -> Path:
    """Where it appears, the service manager restarts the machine; gone with the power."""
    return settings.errands_run / "restart"


def make(settings: Settings, wish: Wish) -> None:
    """Ask for it.

    Raises:
        RejectedInput: another wish waits, or this one is malformed.
        DeviceFault: tmpfs full.

    """
    path = wish_file(settings)
    if path.exists():
        raise RejectedInput("Another wish is being carried out.")
    data = msgspec.json.encode(wish)
    try:
        msgspec.json.decode(data, type=Wish)
        write_atomic(path, data)
    except msgspec.ValidationError as err:
        raise RejectedInput(f"{err}.") from err
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.") from err


def outcome(settings: Settings) -> Outcome | None:
    """What root said last; None when nothing was asked of it since the box came up."""
    try:
        with outcome_file(settings).open("rb") as source:
            return msgspec.json.decode(source.read(CAP_BYTES), type=Outcome)
    except (OSError, msgspec.MsgspecError):
        return None


def waits(settings: Settings) -> bool:
    return wish_file(settings).exists()
