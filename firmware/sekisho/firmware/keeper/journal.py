"""What the keeper of releases remembers over a power cut: one small file, replaced whole before each step is begun."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.fsio import write_atomic
from sekisho.firmware.published import Release, Tier
from sekisho.telemetry.events import Firmware

MAX_BYTES: Final = 8 << 20
TRACE_CAP: Final = 64
REFUSED_CAP: Final = 64
HISTORY_CAP: Final = 20
"""Measured interruptions that are kept."""


class State(StrEnum):
    """Of an attempt. The last six are its ends."""

    OFFERED = "offered"
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    INSTALLING = "installing"
    STAGED = "staged"
    ARMED = "armed"
    ACTIVATING = "activating"
    TRIAL = "trial"
    REVERTING = "reverting"
    SUCCEEDED = "succeeded"
    REVERTED = "reverted"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"


ENDS: Final = frozenset({State.SUCCEEDED, State.REVERTED, State.FAILED, State.REJECTED, State.CANCELED, State.EXPIRED})
IRREVOCABLE: Final = frozenset({State.ACTIVATING, State.TRIAL, State.REVERTING})
"""Too late to cancel: the trial decides."""
LOADING: Final = frozenset({State.ACCEPTED, State.DOWNLOADING, State.VERIFIED, State.INSTALLING})
"""Its bundle is needed."""


class Place(msgspec.Struct, frozen=True):
    """Which programs run, of which system."""

    release: str = ""
    """Directory of a release of tier 1; empty: those the system came with."""
    slot: str = ""
    """Of the system; empty where there is one only."""


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A release that proved itself here; counter 0: it came with the machine."""

    counter: int = 0
    version: str = ""
    tier: int = 0
    place: Place = Place()


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's word that a staged release may be activated."""

    by: str
    at: float = 0.0
    """Unix seconds: not before."""
    until: float
    """Unix seconds: not after; a box that was off until then asks again. 0: no end."""
    window: bool = False
    """Only in the weekly window of the customer's settings."""
    boot: str = ""
    """The boot in which it was made; the machine notes it."""


class Took(msgspec.Struct, frozen=True):
    """One interruption of traffic, as measured."""

    tier: int
    seconds: float


class Mark(msgspec.Struct, frozen=True):
    """One step of an attempt, for who reads afterwards why it went as it did."""

    at: str
    state: str
    why: str = ""


Flowing = Literal["yes", "no", "idle"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What worked at one moment: the gates compare two of these. Made by `gates`, only compared here."""

    lan: bool = False
    """Its port has a link; likewise `wan`."""
    wan: bool = False
    out: Flowing = "idle"
    """From the office to the internet: "no" when much arrives and nothing leaves; likewise `back`, the other way."""
    back: Flowing = "idle"
    rules: int = 0
    """Suricata rules in force, proven by the engine's own count."""
    engine_canary: bool = False
    """What must be stopped was; likewise the scanner's."""
    scanner_canary: bool = False
    quarantine: bool = False
    """It can be written."""
    spool: int = 0
    """Number of the next event; 0: telemetry does not say."""
    epoch: str = ""
    """Whose numbers these are: a new one means that events were lost."""
    centre: bool = False
    """It is connected."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One release on its way."""

    state: State = State.OFFERED
    counter: int = 0
    """0: the newest, whatever it is."""
    entries: int = 1
    """Times the state was begun."""
    release: Release | None = None
    """Once it is known; a rollback has none."""
    version: str = ""
    tier: Tier = 1
    urgent: bool = False
    rollback: bool = False
    again: bool = False
    """It may be one that was refused or went back before."""
    by: str = ""
    """Who asked for it; of an activation, `choice.by`."""
    mode: str = "ask"
    """ask, window, asap: what the sender of the job asks about an interruption."""
    max_bytes: int = 0
    deadline: float = 0.0
    """Unix seconds. Beyond it the customer is told more plainly, and nothing else."""
    began: float = 0.0
    """Unix seconds; 0: the time was not known then, nor since. Likewise `staged`, since when it waits for a word."""
    staged: float = 0.0
    place: Place = Place()
    """Where it will run from, once it is staged."""
    before: Place = Place()
    """What runs, to go back to; noted before anything is changed."""
    choice: Choice | None = None
    postponed: float = 0.0
    """Unix seconds: not asked again before."""
    reminded: int = 0
    """Reminders told."""
    baseline: Seen | None = None
    marked: bool = False
    """The boot loader, or the switch, has the order."""
    boot: str = ""
    """The boot during which the order was given."""
    ordered: float = 0.0
    """Unix seconds of the order, to measure the interruption by; 0: it cannot be, the clock was set meanwhile."""
    boots: int = 0
    """Starts of the machine seen during the change and the trial."""
    cuts: int = 0
    """Of these, after a loss of power."""
    green: bool = False
    """Every gate held long enough: only keeping it is left."""
    took_s: float = -1.0
    """Interruption measured; below 0: not yet, or not."""
    why: str = ""
    detail: str = ""
    trace: Annotated[tuple[Mark, ...], msgspec.Meta(max_length=TRACE_CAP)] = ()


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How the last attempt ended."""

    counter: int = 0
    version: str = ""
    state: State = State.SUCCEEDED
    why: str = ""
    detail: str = ""
    at: str = ""
    by: str = ""


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. A change is a new one."""

    attempt: Attempt | None = None
    running: Running = Running()
    previous: Running = Running()
    """Before `running`, still whole on the box; its place is empty where it is not."""
    highest: int = 0
    """The largest counter that proved itself here: nothing older is taken but by a rollback."""
    refused: dict[int, str] = {}
    """Counters that were tried and went back, or were refused, and why: only a person asks for them again."""
    newest: int = 0
    """The newest counter the channel spoke of; told once."""
    newest_version: str = ""
    grace_until: float = 0.0
    """Unix seconds: until then no system image takes the place of the one before."""
    heard: int = 0
    """`serial` of the customer's last choice that came by the centre: it counts once."""
    history: Annotated[tuple[Took, ...], msgspec.Meta(max_length=HISTORY_CAP)] = ()
    last: Ended | None = None
    attempts: int = 0
    """Attempts so far: names each one's report."""
    told: float = 0.0
    """Unix seconds of the last "status"."""
    untold: Annotated[tuple[Firmware, ...], msgspec.Meta(max_length=256)] = ()
    """Events that are decided and perhaps not yet in the journal telemetry reads."""


def load(path: Path) -> Journal:
    """What was saved; a new one where there is none or the disk damaged it: what runs shows by itself."""
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
    write_atomic(path, msgspec.json.encode(journal), 0o640)
