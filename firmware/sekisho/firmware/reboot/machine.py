r"""Decides what happens to a restart somebody asked for: pure, one event in, commands out; no clock, no file.

    WAITING =choice=> [measured] -> ORDERED -> (the machine starts anew) -> PROVING -> succeeded, failed
       \ canceled                      \ failed (it did not start anew)

Whoever calls saves `journal` after each event and before it carries out the commands. That the machine has started
anew is the kernel's word (the boot's identifier), so no power cut repeats a restart, and one that came about by other
means while this one waited is not followed by another.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from sekisho.firmware.keeper import windows
from sekisho.firmware.keeper.journal import Choice, Seen
from sekisho.policy.overlay import Restart

RESTART_S: Final = 600.0
"""A machine that was told to start anew, and did not, will not."""
AGAIN_S: Final = 10.0
BOOTS_CAP: Final = 3
"""Further starts of the machine while it is looked whether all works."""
LONGEST_S: Final = 3600.0
"""An interruption that seems longer was the clock being set."""
OVER_CAP: Final = 20
HISTORY_CAP: Final = 20
OUTSIDE: Final = "outside"
ALIVE: Final = Seen(engine_canary=True)
"""What must work where nothing was noted before."""

State = Literal["waiting", "ordered", "proving"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One restart on its way."""

    job: str
    reason: str = ""
    """The operators' words, for the customer."""
    mode: str = "ask"
    """ask, window, asap: what the job asks about the interruption."""
    at: str = ""
    """UTC, by the wall clock: since when it waits."""
    state: State = "waiting"
    boot: str
    """The boot in which it waits, was ordered, or is proven."""
    choice: Choice | None = None
    baseline: Seen | None = None
    """What worked before; None where the restart was not ordered here."""
    ordered: float = 0.0
    """Unix seconds; 0: the time was not known."""
    boots: int = 0
    took_s: float = -1.0


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """How one ended."""

    job: str
    state: Literal["succeeded", "failed", "canceled"]
    why: str = ""
    by: str = ""
    """Who chose, or said no."""
    detail: str = ""
    at: str = ""
    took_s: float = -1.0


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. A change is a new one."""

    wanted: Wanted | None = None
    over: Annotated[tuple[Over, ...], msgspec.Meta(max_length=OVER_CAP)] = ()
    """Newest first."""
    history: Annotated[tuple[float, ...], msgspec.Meta(max_length=HISTORY_CAP)] = ()
    """Seconds each took until traffic passed inspected again, the newest last."""


class Started(msgspec.Struct, frozen=True):
    """The daemon began, in this boot."""

    boot: str


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A job of operators wants it. `boot`: the one they want to be left."""

    job: str
    boot: str
    mode: str = "ask"
    reason: str = ""


class Chosen(msgspec.Struct, frozen=True):
    """The customer says when."""

    job: str
    choice: Choice


class Refused(msgspec.Struct, frozen=True):
    """The customer does not want it, or the operators no longer."""

    job: str
    by: str


class Measured(msgspec.Struct, frozen=True):
    """What works just before."""

    seen: Seen


class Failed(msgspec.Struct, frozen=True):
    """A command came to nothing."""

    why: str


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen once a second."""

    sure: bool = True
    """The time can be believed: a window, or an hour that was chosen, waits until it can."""
    restart: Restart | None = None
    zone: str = ""
    asap: bool = False
    """The contract's signed document lets a job restart the box without asking."""
    busy: bool = False
    """A release is being written or tried."""
    failing: tuple[str, ...] = ()
    """Gates that do not hold against the baseline; only looked at while it is proven."""
    forwarding: bool = False


Event = Started | Asked | Chosen | Refused | Measured | Failed | Looked


class Measure(msgspec.Struct, frozen=True):
    """Note what works."""


class StartAnew(msgspec.Struct, frozen=True):
    """Start the machine anew, in order; asked twice for one job in one boot it is done once."""

    job: str


Command = Measure | StartAnew


class Machine:
    """One box's. `trial_s` and `steady_s` as of a release: within the one, all must have worked for the other."""

    def __init__(self, journal: Journal, *, trial_s: float, steady_s: float) -> None:
        self.journal = journal
        self._trial_s, self._steady_s = trial_s, steady_s
        self._boot = ""
        self._since = self._retry = self._fine_at = 0.0
        self._passed_at = 0.0
        """Since when traffic was seen to pass; the time may be known later only."""
        self._working = False
        self._failing: tuple[str, ...] = ()
        self._wall, self._sure, self._at = 0.0, False, ""

    @property
    def beginning(self) -> bool:
        """What works is being noted: the restart follows."""
        return self._working and self.journal.wanted is not None

    def handle(self, event: Event, now: float, wall: float, at: str) -> list[Command]:
        """What follows from `event`. `now`: monotonic, seconds; `wall`: unix seconds; `at`: the same for people."""
        self._wall, self._at = wall, at
        if isinstance(event, Started):
            return self._started(event.boot, now)
        if isinstance(event, Asked):
            return self._asked(event, now)
        wanted = self.journal.wanted
        if wanted is None:
            return []
        match event:
            case Chosen(job, choice) if job == wanted.job and wanted.state == "waiting":
                self._change(choice=choice)
            case Refused(job, by) if job == wanted.job and wanted.state == "waiting":
                self._end("canceled", by=by)
            case Measured(seen) if wanted.state == "waiting" and self._working:
                return self._order(seen, now)
            case Failed():
                self._working, self._retry = False, now + AGAIN_S
            case Looked():
                return self._looked(wanted, event, now)
        return []

    def _started(self, boot: str, now: float) -> list[Command]:
        self._boot, self._since = boot, now
        wanted = self.journal.wanted
        if wanted is None:
            return []
        if wanted.boot == boot:
            return [StartAnew(wanted.job)] if wanted.state == "ordered" else []
        if wanted.state != "proving":
            self._prove(now)
        elif wanted.boots >= BOOTS_CAP:
            self._end("failed", "boot", f"The machine started {wanted.boots} times before it could prove itself.")
        else:
            self._change(boot=boot, boots=wanted.boots + 1)
        return []

    def _asked(self, event: Asked, now: float) -> list[Command]:
        wanted = self.journal.wanted
        if wanted is not None or any(one.job == event.job for one in self.journal.over):
            return []
        self._set(wanted=Wanted(job=event.job, reason=event.reason, mode=event.mode, at=self._at, boot=event.boot))
        self._working, self._retry = False, now
        if event.boot != self._boot:
            self._prove(now)
        return []

    def _looked(self, wanted: Wanted, sight: Looked, now: float) -> list[Command]:
        self._sure = sight.sure
        match wanted.state:
            case "waiting":
                return self._waiting(wanted, sight, now)
            case "ordered" if now - self._since > RESTART_S:
                self._end("failed", "not_done", "The machine was told to start anew, and did not.")
            case "ordered" if self._retry and now >= self._retry:
                self._retry = 0.0
                return [StartAnew(wanted.job)]
            case "proving":
                self._proving(wanted, sight, now)
        return []

    def _waiting(self, wanted: Wanted, sight: Looked, now: float) -> list[Command]:
        """Nothing here restarts without a `Choice`, and none follows from a job alone."""
        choice = wanted.choice
        if choice is None:
            if by := _standing(wanted, sight):
                self._change(choice=Choice(by=by, until=0.0, window=by == "window"))
            return []
        if choice.by in STANDING and _standing(wanted, sight) != choice.by:
            self._change(choice=None)  # what it followed from is gone
            return []
        if (choice.at or choice.window) and not sight.sure:
            return []
        if sight.sure and windows.over(choice, self._wall):
            self._change(choice=None)
            return []
        due = windows.due(choice, sight.restart, sight.zone, self._wall)
        if not due or sight.busy or self._working or now < self._retry:
            return []
        self._working = True
        return [Measure()]

    def _order(self, seen: Seen, now: float) -> list[Command]:
        self._working = False
        wanted = self._wanted()
        if wanted.choice is None:
            return []
        ordered = self._wall if self._sure else 0.0
        self._change(state="ordered", boot=self._boot, baseline=seen, ordered=ordered)
        self._since, self._retry = now, 0.0
        return [StartAnew(wanted.job)]

    def _prove(self, now: float) -> None:
        """The machine has started anew, by this order or by other means."""
        wanted = self._wanted()
        outside = wanted.state == "waiting"
        choice = Choice(by=OUTSIDE, until=0.0) if outside else wanted.choice
        self._change(state="proving", boot=self._boot, choice=choice)
        self._since, self._fine_at, self._passed_at = now, 0.0, 0.0

    def _proving(self, wanted: Wanted, sight: Looked, now: float) -> None:
        if sight.forwarding and not self._passed_at:
            self._passed_at = now
        if wanted.took_s < 0 and wanted.ordered and self._passed_at and sight.sure:
            self._took(self._wall - (now - self._passed_at) - wanted.ordered)
        if sight.failing:
            self._fine_at, self._failing = 0.0, sight.failing
        elif not self._fine_at:
            self._fine_at = now
        if self._fine_at and now - self._fine_at >= self._steady_s:
            self._end("succeeded")
        elif now - self._since > self._trial_s:
            first = self._failing[0] if self._failing else "steady"
            self._end("failed", f"gate:{first}", f"After the restart these did not work: {', '.join(self._failing)}.")

    def _took(self, seconds: float) -> None:
        if not 0 < seconds <= LONGEST_S:
            self._change(ordered=0.0)
            return
        self._change(took_s=round(seconds, 1))
        self._set(history=(*self.journal.history, round(seconds, 1))[-HISTORY_CAP:])

    def _end(
        self, state: Literal["succeeded", "failed", "canceled"], why: str = "", detail: str = "", by: str = ""
    ) -> None:
        wanted = self._wanted()
        chosen = wanted.choice.by if wanted.choice is not None else ""
        ended = Over(
            job=wanted.job, state=state, why=why, by=by or chosen, detail=detail, at=self._at, took_s=wanted.took_s
        )
        self._set(wanted=None, over=(ended, *self.journal.over)[:OVER_CAP])
        self._working = False

    def _wanted(self) -> Wanted:
        if self.journal.wanted is None:
            raise ValueError("no restart is wanted")
        return self.journal.wanted

    def _change(self, **changes: Any) -> None:
        self._set(wanted=msgspec.structs.replace(self._wanted(), **changes))

    def _set(self, **changes: Any) -> None:
        self.journal = msgspec.structs.replace(self.journal, **changes)


STANDING: Final = frozenset({"window", "contract"})


def _standing(wanted: Wanted, sight: Looked) -> str:
    """Who chose already, for all restarts: the customer's weekly window, or the contract."""
    if wanted.mode == "asap" and sight.asap:
        return "contract"
    return "window" if wanted.mode in ("window", "asap") and sight.restart is not None else ""
