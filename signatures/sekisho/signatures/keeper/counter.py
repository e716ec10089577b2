"""What people may ask of the daemon (core.desk), and what it shows of itself (a file on tmpfs)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.signatures import compiler
from sekisho.signatures.keeper import facts
from sekisho.signatures.keeper.journal import Journal, Step

MAX_BYTES: Final = 1 << 20
USERS: Final = ("sekisho-jobs",)
"""Who is answered beside root: a job that operators signed asks as a person at the box would."""
FRESH_S: Final = 15.0
SHOWN: Final = 64
BEGUN_S: Final = 5.0


class Update(msgspec.Struct, frozen=True, tag="update"):
    """Ask the channel now; `now`: also take a set that was refused before."""

    now: bool = False


class Import(msgspec.Struct, frozen=True, tag="import"):
    """Take the set of a repository's copy in `path`."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    confirm_old: bool = False


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Go back from set `number` to the one before it, which is proven as any; `number` is not taken again by itself."""

    number: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
    by: Annotated[str, msgspec.Meta(pattern=r"^job [0-9A-HJKMNP-TV-Z]{26}\Z")]


class Taken(msgspec.Struct, frozen=True, tag="taken"):
    """The answer."""

    said: str


class Busy(msgspec.Struct, frozen=True, tag="busy"):
    """The answer while another set is tried, proven or gone back from: nothing was done, ask again."""

    said: str


TAKES: Final = (Step.IDLE, Step.FETCHING, Step.SOAK)
"""In these steps the machine takes a newer set, whoever brings it."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """`run/signatures/keeper.json`: the daemon's own account, for who compares it with the inspectors'."""

    at: float
    """Monotonic clock, seconds."""
    step: str = "idle"
    under_way: int = 0
    """Number of the set on its way; 0: none."""
    number: int = 0
    set: str = ""
    """The set that should be in force, or be gone back to."""
    former: str = ""
    """The set that a way back from the one in force would lead to; empty: none is kept."""
    candidate: str = ""
    """The set on its way, once it is built."""
    built: str = ""
    checked: str = ""
    refused: dict[int, str] = {}
    muted: list[int] = []
    """Rules that are left out or held back because they were too loud; likewise `muted_yara`."""
    muted_yara: list[str] = []
    on_trial: int = 0
    waits: str = ""
    """Why the set on its way is not tried now."""
    last: str = ""
    """What became of the last attempt to ask the channel."""


def socket_of(settings: Settings) -> Path:
    return settings.run / "signatures" / "keeper.sock"


def shown_at(settings: Settings) -> Path:
    return settings.run / "signatures" / "keeper.json"


def show(settings: Settings, found: Journal, now: float, waits: str, last: str) -> None:
    """Publish the daemon's account.

    Raises:
        OSError: tmpfs full.

    """
    shown = Shown(
        at=now, step=str(found.step), under_way=found.manifest.number if found.manifest is not None else 0,
        number=found.active.number, set=found.active.id, candidate=found.candidate.id, built=found.active.built,
        former=(found.active if found.step is Step.SOAK else found.previous).id,
        checked=found.checked, refused=found.refused, muted=sorted({*found.mine.sids, *found.held})[:SHOWN],
        muted_yara=list(found.mine.yara[:SHOWN]), on_trial=len(found.mine.on_trial), waits=waits, last=last[:500],
    )  # fmt: skip
    path = shown_at(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(shown), 0o644)


def try_read(settings: Settings, now: float) -> Shown | None:
    """What the daemon last said; None when it does not run."""
    try:
        with shown_at(settings).open("rb") as source:
            found = msgspec.json.decode(source.read(MAX_BYTES), type=Shown)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if now - found.at < FRESH_S else None


class Counter:
    """Answers one question; called on the desk's threads."""

    def __init__(
        self,
        settings: Settings,
        journal: Callable[[], Journal],
        put: Callable[[facts.Event], None],
        imported: Callable[[Path, bool], facts.Refreshed],
    ) -> None:
        self._settings, self._journal, self._put, self._imported = settings, journal, put, imported

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame.

        Raises:
            RejectedInput: no question, or it is refused.
            PeerError, DeviceFault: what is to be imported is not whole, or does not fit.

        """
        try:
            asked: Update | Import | Leave = msgspec.json.decode(question, type=Update | Import | Leave)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        match asked:
            case Update():
                yield msgspec.json.encode(self._update(asked))
            case Import():
                yield msgspec.json.encode(self._import(asked))
            case Leave():
                yield msgspec.json.encode(self._leave(asked))

    def _update(self, asked: Update) -> Taken:
        if not self._settings.signatures.channel:
            raise RejectedInput("No channel is configured.", "Name it in [signatures], or import from a USB stick.")
        self._put(facts.Asked(again=asked.now))
        return Taken("The channel is asked. See `sekisho signatures status`.")

    def _leave(self, asked: Leave) -> Taken | Busy:
        """Answered when it has begun: until then it could still be taken back."""
        now = self._journal()
        if now.step not in TAKES:
            return _busy(now.step)
        if compiler.owners(self._settings):
            raise RejectedInput("The owner's own rules are in force, and no set of the channel.")
        in_force, former = (now.candidate, now.active) if now.step is Step.SOAK else (now.active, now.previous)
        if in_force.number != asked.number:
            raise RejectedInput(f"Set {in_force.number} is in force, not {asked.number}.")
        if not former.id:
            raise RejectedInput("There is no earlier set to go back to.")
        self._put(facts.Left(asked.number, asked.by))
        until = time.monotonic() + BEGUN_S
        while self._journal().step is now.step and time.monotonic() < until:
            time.sleep(0.05)
        return Taken(f"Set {asked.number} is left.") if self._journal().step is not now.step else _busy(now.step)

    def _import(self, asked: Import) -> Taken | Busy:
        now = self._journal()
        if now.step not in TAKES:
            return _busy(now.step)
        found = self._imported(Path(asked.path), asked.confirm_old)
        if found.unfit:
            raise RejectedInput(found.unfit)
        number = found.manifest.number
        in_force = now.candidate if now.step is Step.SOAK else now.active
        if number == in_force.number:
            return Taken(f"Set {number} is in force already.")
        highest = max(now.highest, in_force.number)
        if number < highest:
            raise RejectedInput(f"This is set {number}; set {highest} was in force here, and nothing older is taken.")
        if (step := self._journal().step) is not now.step:  # while it was read; what a soak leaves tidies it away
            return _busy(step)
        self._put(found)
        return Taken(f"Set {number} was verified and is now tried. See `sekisho signatures status`.")


def _busy(step: Step) -> Busy:
    return Busy(f"Another set is on its way ({step}).")
