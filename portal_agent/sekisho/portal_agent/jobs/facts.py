"""What happens to the machine (events, past facts) and what it asks for (commands, imperatives)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from sekisho.appliance.core.jobs import Job, State


class Now(NamedTuple):
    """An instant, as well as it is known."""

    mono: float
    """Monotonic seconds."""
    true: float | None
    """Unix seconds as the centre told them in this boot, or `floor` where that is later; None: the clock may be
    anything.
    """
    at: str = ""
    """UTC by the wall clock, for people."""
    floor: float = 0.0
    """Unix seconds: it is at least so late, by what the channel's keyholders signed. No broker has a say in it."""


class Progress(msgspec.Struct, frozen=True):
    """How far a job has got, in the words of who carries it out."""

    state: State = "RUNNING"
    """RUNNING, WAITING, or an end."""
    why: str = ""
    step: str = ""
    pct: int = 0
    by: str = ""
    detail: str = ""


class Started(msgspec.Struct, frozen=True):
    """The daemon began."""


class Came(msgspec.Struct, frozen=True):
    """An authentic job for this box; perhaps not for the first time."""

    job: Job
    digest: str
    signers: tuple[str, ...]


class Turned(msgspec.Struct, frozen=True):
    """Some time has passed."""


class Prepared(msgspec.Struct, frozen=True):
    """It may begin. `mark`: what is there before."""

    id: str
    mark: str = ""


class Unready(msgspec.Struct, frozen=True):
    """It may not begin: WAITING may later, an end may never."""

    id: str
    progress: Progress


class Looked(msgspec.Struct, frozen=True):
    """What whoever carries it out says of it."""

    id: str
    progress: Progress


class Withdrawn(msgspec.Struct, frozen=True):
    """It was taken back, or (`too_late`) goes on."""

    id: str
    too_late: str = ""


Event = Started | Came | Turned | Prepared | Unready | Looked | Withdrawn


class Prepare(msgspec.Struct, frozen=True):
    """Check its signatures again, what it demands of the box, and note what is there before."""

    id: str


class Begin(msgspec.Struct, frozen=True):
    """Have it done, unless the mark says that it was."""

    id: str


class Look(msgspec.Struct, frozen=True):
    """Ask how far it has got."""

    id: str


class Withdraw(msgspec.Struct, frozen=True):
    """Take it back if that is still possible."""

    id: str


Command = Prepare | Begin | Look | Withdraw
