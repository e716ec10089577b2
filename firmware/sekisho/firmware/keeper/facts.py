"""What happens to the machine (events, past facts) and what it asks for (commands, imperatives)."""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.firmware.keeper.journal import Attempt, Choice, Place, Running, Seen, State
from sekisho.firmware.published import Release
from sekisho.policy.overlay import Restart

Kind = Literal["peer", "refused", "fault"]
"""Who must act: the other side (tried again), nobody (that release is not taken), a person at this machine."""
Boot = Literal["same", "ordered", "power_loss", "watchdog", "panic"]
"""How this boot came about: "same" when the machine did not start anew, "ordered" after an orderly stop."""


class GivenUp(msgspec.Struct, frozen=True):
    """A release that root left because its firmware daemon did not work, which so could not say it itself."""

    release: str = ""
    why: str = ""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon began."""

    running: Running
    """What runs, by the link and the kernel's command line, not by our journal."""
    boot: str
    """Changes with each start of the machine."""
    reason: Boot = "same"
    gave_up: str = ""
    """Why the check that follows a start left the system before this one; empty where it did not."""
    gave_up_in: str = ""
    """The boot in which that was found: it is told for as long as this system runs."""
    given_up: GivenUp = GivenUp()
    """Root's last word of that kind, of whatever release."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A job or a person wants a release staged; 0: the newest."""

    counter: int = 0
    by: str = ""
    mode: Literal["ask", "window", "asap"] = "ask"
    deadline: float = 0.0
    max_bytes: int = 0
    again: bool = False
    """Also one that was refused or went back before."""


class Looking(msgspec.Struct, frozen=True):
    """Ask the channel what is newest, for the record."""


class Chosen(msgspec.Struct, frozen=True):
    """Somebody chose when the staged release is activated."""

    counter: int
    choice: Choice
    mode: str = ""
    """What the sender of a job asks about an interruption; empty: as before."""
    serial: int = 0
    """Of a choice that came by the centre: greater with every one."""


class Postponed(msgspec.Struct, frozen=True):
    """The customer wants to be asked later, at `until` (unix seconds)."""

    counter: int
    until: float
    by: str
    serial: int = 0


class Withdrawn(msgspec.Struct, frozen=True):
    """Whoever chose takes the own choice back; anybody else's stays."""

    counter: int
    by: str


class Canceled(msgspec.Struct, frozen=True):
    counter: int
    by: str


class Wanted(msgspec.Struct, frozen=True):
    """Two people want the release before back."""

    counter: int
    by: str


class Found(msgspec.Struct, frozen=True):
    """The newest release of the channel, verified; `unfit`: a code and, after a colon, why this box cannot take it."""

    release: Release
    unfit: str = ""


class Fetched(msgspec.Struct, frozen=True):
    """The bundle is here, verified whole."""


class Installed(msgspec.Struct, frozen=True):
    """It lies where it will run from, read back, and is not in use."""

    place: Place


class Measured(msgspec.Struct, frozen=True):
    """What works now."""

    seen: Seen


class Marked(msgspec.Struct, frozen=True):
    """The boot loader has its order: the next start is of the other slot."""


class Switched(msgspec.Struct, frozen=True):
    """The link names it and every daemon runs from it, healthy. `took_s`: without traffic."""

    took_s: float = 0.0


class Kept(msgspec.Struct, frozen=True):
    """It stays: the boot loader counts no more."""


class WentBack(msgspec.Struct, frozen=True):
    """What ran before runs again, or will with the next start of the machine (`restart`)."""

    restart: bool = False


class Failed(msgspec.Struct, frozen=True):
    """A command came to nothing."""

    state: State
    kind: Kind
    why: str
    code: str = ""


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen once a second."""

    wall: float
    """Unix seconds, as well as known."""
    sure: bool = True
    """Whether that clock can be believed: a choice for an hour waits until it can."""
    restart: Restart | None = None
    """The weekly window of the customer's settings, in `zone` (IANA; empty: the box's own)."""
    zone: str = ""
    asap: bool = False
    """The contract's signed document lets an urgent release restart the box without being asked."""
    failing: tuple[str, ...] = ()
    """Gates that do not hold now, against the baseline. Only looked at during a trial."""
    forwarding: bool = False
    """Traffic passes, inspected: the end of an interruption."""


Event = (
    Started | Asked | Looking | Chosen | Postponed | Withdrawn | Canceled | Wanted | Found | Fetched | Installed
    | Measured | Marked | Switched | Kept | WentBack | Failed | Looked
)  # fmt: skip


class Refresh(msgspec.Struct, frozen=True):
    """Ask the channel what is newest."""


class Fetch(msgspec.Struct, frozen=True):
    release: Release
    max_bytes: int


class Install(msgspec.Struct, frozen=True):
    """Verify again, and put it where it will run from; nothing in use changes."""

    release: Release


class Measure(msgspec.Struct, frozen=True):
    """Note what works."""


class Switch(msgspec.Struct, frozen=True):
    """Tier 1: change to `to`, one daemon after the other."""

    to: Place
    number: int
    """Of the attempt: who asks again for the same one gets its outcome."""


class MarkNext(msgspec.Struct, frozen=True):
    """Tier 2 and 3: the next start of the machine is of this slot."""

    place: Place


class StartAnew(msgspec.Struct, frozen=True):
    """Start the machine anew, in order."""


class Keep(msgspec.Struct, frozen=True):
    """It proved itself."""

    attempt: Attempt
    number: int
    """Of the attempt: who asks again for the same one gets its outcome."""


class GoBack(msgspec.Struct, frozen=True):
    """To what ran before; of tier 1 at once, else by a restart that follows."""

    attempt: Attempt


class Report(msgspec.Struct, frozen=True):
    """Keep on the disk why it went back."""

    number: int
    attempt: Attempt


class Discard(msgspec.Struct, frozen=True):
    """Remove what was fetched and staged, except what `keep` names."""

    counter: int
    keep: tuple[Place, ...]


Command = (
    Refresh | Fetch | Install | Measure | Switch | MarkNext | StartAnew | Keep | GoBack | Report | Discard
)  # fmt: skip
