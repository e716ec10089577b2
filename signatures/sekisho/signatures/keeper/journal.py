"""What the keeper must not forget: one small file, replaced whole before each step's side effect."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.muting import Muting
from sekisho.signatures.published import Manifest
from sekisho.telemetry.events import Signatures

MAX_BYTES: Final = 8 << 20
"""A manifest names up to 65,536 rules, and so does the trial made of it."""
REFUSED_CAP: Final = 32
"""Refused numbers that are remembered, newest first to stay."""


class Step(enum.StrEnum):
    """Where a set is on its way; `IDLE` is no set under way."""

    IDLE = "idle"
    FETCHING = "fetching"
    FETCHED = "fetched"
    STAGED = "staged"
    TESTING = "testing"
    SWITCHING = "switching"
    PROVING = "proving"
    SOAK = "soak"
    ROLLBACK = "rollback"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A proven set that lies on this box."""

    id: str = ""
    """`SetInfo.id`; empty: none."""
    number: int = 0
    """0: not of the channel."""
    built: str = ""
    rules: int = 0
    yara: int = 0
    manifest: Manifest | None = None
    """Enough of it to make the set again from its archive."""


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The state. `active` is what is in force, or what to go back to while another set is on its way."""

    step: Step = Step.IDLE
    entries: int = 0
    """How often the step was begun."""
    manifest: Manifest | None = None
    """Of the set on its way."""
    candidate: Kept = Kept()
    """The set on its way, once it is proven here."""
    active: Kept = Kept()
    previous: Kept = Kept()
    """In force before `active`."""
    highest: int = 0
    """The largest number that was ever in force: nothing older is taken again."""
    refused: dict[int, str] = {}
    """Numbers that are not tried again, and why."""
    said: str = ""
    """The last refusal or fault that was told, so that one that repeats is told once."""
    why: str = ""
    """Reason of the roll back under way."""
    checked: str = ""
    """UTC: the last refresh that succeeded."""
    soaked_s: float = 0.0
    mine: Muting = Muting()
    """What `core.muting` is to say for this daemon; `before` is what it said for `active`."""
    before: Muting = Muting()
    held: tuple[int, ...] = ()
    """Dropping rules found too loud, which stay on trial when the soak is over; `held_before`: those of `active`."""
    held_before: tuple[int, ...] = ()
    remake: bool = False
    """The set on its way was in force before and is only made again."""
    unsoaked: bool = False
    """`active` is in force, and its soak was broken off for a newer set: if that comes to nothing it is begun anew."""
    untold: Annotated[tuple[Signatures, ...], msgspec.Meta(max_length=256)] = ()
    """Events that are decided and perhaps not yet in the journal telemetry reads."""


def load(path: Path) -> Journal:
    """What was saved; a new one where there is none or the disk damaged it: what is in force shows by itself."""
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(MAX_BYTES), type=Journal)
    except (OSError, msgspec.MsgspecError):
        return Journal()


def save(path: Path, journal: Journal) -> None:
    """Durable at return.

    Raises:
        OSError: disk full or read-only; the earlier one stays.

    """
    write_atomic(path, msgspec.json.encode(journal), 0o600)
