r"""Decides what happens to a release of the box's own software: pure, one event in, commands out; no clock, no file.

    OFFERED -> ACCEPTED -> DOWNLOADING -> VERIFIED -> INSTALLING -> STAGED =choice=> ARMED -> ACTIVATING -> TRIAL
       \__________\____________\______________\____________\__________\_________\   REVERTING <-\_________\ |
     REJECTED              EXPIRED          FAILED                 CANCELED         REVERTED, FAILED    SUCCEEDED

Whoever calls saves `journal` after each event and before it carries out the commands; then every command may be
repeated after a power cut. `Started` says what really runs, and that goes before whatever was meant to run. A state
that was begun `ENTRIES_CAP` times is given up. Only a `Choice` leads out of STAGED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sekisho.firmware.keeper import facts, fitness, told, windows
from sekisho.firmware.keeper.facts import Command
from sekisho.firmware.keeper.journal import (
    HISTORY_CAP,
    IRREVOCABLE,
    REFUSED_CAP,
    TRACE_CAP,
    Attempt,
    Choice,
    Ended,
    Journal,
    Mark,
    Place,
    Running,
    State,
    Took,
)
from sekisho.telemetry.events import Firmware

EVERY_S: Final = 12 * 3600.0
"""So often the channel is asked, for the record and for the list of operators."""
FIRST_S: Final = 60.0
BACK_OFF_S: Final = (5.0, 600.0)
ENTRIES_CAP: Final = 20
BOOTS_CAP: Final = 3
"""Starts of the machine from a new system that has not proved itself yet, or amid a change of programs."""
AGAIN_S: Final = 10.0
"""Between two tries to go back, or to note what works."""
RESTART_S: Final = 600.0
"""A machine that was told to start anew, and did not, will not."""
LONGEST_S: Final = 3600.0
"""An interruption that seems longer was the clock being set."""
LIMITS: Final = {
    State.OFFERED: 86_400.0,
    State.DOWNLOADING: 14 * 86_400.0,
    State.INSTALLING: 3600.0,
    State.ACTIVATING: 1800.0,
}
"""Seconds since the attempt (a download: by the wall clock) or the state began."""
STAGED_S: Final = 90 * 86_400.0
STATUS_S: Final = 86_400.0
UNTOLD_CAP: Final = 200
OPERATOR: Final = "job "
"""How `by` begins where a job says it: enough for what interrupts nothing, and not for what does."""
_KEEPS_TRYING: Final = frozenset({"power_loss", "outside", "canceled"})
"""Why a release went back that says nothing against it."""


class Machine:
    """The keeper's mind. `spread` gives a random time up to the one it is given."""

    def __init__(
        self, journal: Journal, *, trial_s: float, steady_s: float, grace_s: float, spread: Callable[[float], float]
    ) -> None:
        self.journal = journal
        self._trial_s, self._steady_s, self._grace_s, self._spread = trial_s, steady_s, grace_s, spread
        self._boot = ""
        self._running = journal.running
        self._since = self._next = self._retry = self._fine_at = 0.0
        self._passed_at = 0.0
        """Since when traffic was seen to pass on trial; the time may be known later only."""
        self._back_off = 0.0
        self._working = self._asking = False
        self._failing: tuple[str, ...] = ()
        self._wall, self._at = 0.0, ""
        self._sure = False
        """The time was known when it was last looked."""

    @property
    def working(self) -> bool:
        """Whether a command is under way whose outcome is awaited."""
        return self._working

    @property
    def running(self) -> Running:
        """What really runs."""
        return self._running

    def handle(self, event: facts.Event, now: float, wall: float, at: str) -> list[Command]:
        """What follows from `event`. `now`: monotonic, seconds; `wall`: unix seconds; `at`: the same for people."""
        self._wall, self._at = wall, at
        match event:
            case facts.Started():
                return self._started(event, now)
            case facts.Looked():
                return self._looked(event, now)
            case facts.Asked():
                return self._asked(event, now)
            case facts.Looking():
                self._next = now
                return []
            case facts.Wanted(counter, by):
                return self._wanted(counter, by, now)
            case facts.Chosen() | facts.Postponed() | facts.Withdrawn() | facts.Canceled():
                return self._word(event, now)
            case facts.Found():
                return self._found(event, now)
            case facts.Failed():
                return self._failed(event, now)
            case _:
                return self._done(event, now)

    # Beginning

    def _started(self, event: facts.Started, now: float) -> list[Command]:
        self._boot, self._running = event.boot, event.running
        self._next = now + FIRST_S / 2 + self._spread(FIRST_S)
        self._since = self._retry = now
        attempt = self.journal.attempt
        if attempt is None:
            self._accept(event.running)
            return [facts.Discard(0, self._kept())]
        match attempt.state:
            case State.STAGED if attempt.tier > 1 and self._is_in(attempt.place) and self._elsewhere(attempt):
                self._accept(event.running)
                return self._end(State.EXPIRED, "outside", "The box was started from it by other means.")
            case State.STAGED:
                return [facts.Discard(attempt.counter, self._kept())]
            case State.ACTIVATING | State.TRIAL if attempt.tier > 1:
                return self._restarted(attempt, event, now)
            case State.ACTIVATING if event.boot != attempt.boot:
                return self._cut_short(event, now)
            case State.TRIAL if not self._is_in(attempt.place):
                return self._go_back(*_left(event, attempt), now)
            case State.VERIFIED:
                return self._enter(State.INSTALLING, now, again=True)
            case State.REVERTING if attempt.entries >= ENTRIES_CAP:
                self._accept(event.running)  # it is given up, and this is what the link and the kernel say
                return self._enter(State.REVERTING, now, again=True)
            case _:
                return self._enter(attempt.state, now, again=True)

    def _restarted(self, attempt: Attempt, event: facts.Started, now: float) -> list[Command]:
        """The daemon began while another system was on trial, or about to be."""
        gave_up = event.gave_up and (attempt.marked or event.gave_up_in == event.boot)
        if gave_up and event.boot != attempt.boot and not self._is_in(attempt.place):
            self._change(boot=event.boot, marked=True)
            return self._go_back(event.gave_up, "The machine's own check of the new system gave it up.", now)
        if event.boot == attempt.boot:
            return self._enter(attempt.state, now, again=True)
        # Where it runs, the order did reach the boot loader, though the power went before that was journaled.
        self._change(marked=attempt.marked or self._is_in(attempt.place))
        why = self._booted(event)
        attempt = self._attempt()
        if attempt.boots > BOOTS_CAP:
            return self._go_back(why, f"The machine started {attempt.boots} times before it could prove itself.", now)
        if self._is_in(attempt.place):
            return self._enter(State.TRIAL, now, told=attempt.state is State.ACTIVATING)
        if attempt.state is State.ACTIVATING and not attempt.marked:
            # The order never reached the boot loader; the choice still stands, as long as its time is not over.
            return self._enter(State.STAGED, now, told=False)
        return self._go_back(why, "The machine came up with the system before.", now)

    def _cut_short(self, event: facts.Started, now: float) -> list[Command]:
        """The machine went off amid a change of programs; the release before runs, and the change is begun again."""
        why = self._booted(event)
        boots = self._attempt().boots
        if event.reason in ("watchdog", "panic"):
            return self._go_back("boot", f"The machine did not live through the change ({event.reason}).", now)
        if boots > BOOTS_CAP:
            return self._go_back(why, f"The machine started {boots} times before the change was done.", now)
        return self._enter(State.ACTIVATING, now, again=True)

    def _booted(self, event: facts.Started) -> str:
        """Count a start of the machine; why, should nothing more be tried. Losses of power say nothing against it."""
        attempt, lost = self._attempt(), event.reason == "power_loss"
        boots, cuts = attempt.boots + 1, attempt.cuts + lost
        self._change(boot=event.boot, boots=boots, cuts=cuts)
        self._mark("boot", event.reason)
        return "power_loss" if lost or (cuts and cuts >= boots - 1) else "boot"

    def _accept(self, running: Running) -> None:
        """In use is what really runs, whatever was meant to."""
        journal = self.journal
        if running.place == journal.running.place:
            if running.counter != journal.running.counter:
                self._set(running=running, highest=max(journal.highest, running.counter))
            return
        previous = journal.running if journal.previous.place == running.place else journal.previous
        self._set(running=running, previous=previous, highest=max(journal.highest, running.counter))

    def _asked(self, event: facts.Asked, now: float) -> list[Command]:
        attempt = self.journal.attempt
        commands: list[Command] = []
        if attempt is not None:
            if attempt.state in IRREVOCABLE:
                return []
            if not attempt.rollback and event.counter in (0, attempt.counter):
                self._change(mode=event.mode, deadline=event.deadline or attempt.deadline, again=event.again)
                return []
            commands = self._end(State.EXPIRED, "superseded")
        self._begin(
            Attempt(
                counter=event.counter, by=event.by, mode=event.mode, deadline=event.deadline, began=self._known(),
                max_bytes=event.max_bytes, again=event.again,
            )
        )  # fmt: skip
        return [*commands, *self._enter(State.OFFERED, now, told=bool(event.counter))]

    def _wanted(self, counter: int, by: str, now: float) -> list[Command]:
        attempt, previous = self.journal.attempt, self.journal.previous
        if counter != previous.counter or previous == Running() or (attempt and attempt.state in IRREVOCABLE):
            return []
        commands = self._end(State.EXPIRED, "superseded") if attempt is not None else []
        here = previous.place.slot == self._running.place.slot
        self._begin(
            Attempt(
                counter=counter, version=previous.version, tier=1 if here else 3, rollback=True, by=by,
                place=previous.place, began=self._known(), staged=self._known(),
                choice=Choice(by=by, until=0.0) if here else None,
            )
        )  # fmt: skip
        return [*commands, *self._enter(State.STAGED, now, why="" if here else "customer")]

    def _known(self) -> float:
        """Unix seconds; 0 while nobody knows the time, to be noted when somebody does."""
        return self._wall if self._sure else 0.0

    def _begin(self, attempt: Attempt) -> None:
        self._back_off = 0.0
        self._set(attempt=attempt, attempts=self.journal.attempts + 1)

    # What people say

    def _word(
        self, event: facts.Chosen | facts.Postponed | facts.Withdrawn | facts.Canceled, now: float
    ) -> list[Command]:
        attempt = self.journal.attempt
        if isinstance(event, facts.Chosen | facts.Postponed) and event.serial:
            self._set(heard=max(self.journal.heard, event.serial))
        if attempt is None or attempt.counter != event.counter or attempt.state in IRREVOCABLE:
            return []
        match event:
            case facts.Canceled(_, by):
                return self._end(State.CANCELED, "canceled", f"by {by}")
            case facts.Withdrawn(_, by) if attempt.choice is not None and attempt.choice.by == by:
                self._change(choice=None)
                if attempt.state in (State.STAGED, State.ARMED):
                    return self._enter(State.STAGED, now, why="customer" if attempt.tier > 1 else "")
            case facts.Postponed(_, until, by):
                self._change(choice=None, postponed=until, detail=f"by {by}")
                if attempt.state in (State.STAGED, State.ARMED):
                    return self._enter(State.STAGED, now, why="postponed")
            case facts.Chosen(_, choice, mode) if attempt.tier > 1 and choice.by.startswith(OPERATOR):
                return self._asks_otherwise(attempt, mode or attempt.mode, now)
            case facts.Chosen(_, choice, mode):
                choice = msgspec.structs.replace(choice, boot=self._boot)
                self._change(choice=choice, mode=mode or attempt.mode, postponed=0.0, detail="")
                if attempt.state is State.ARMED:
                    self._enter(State.STAGED, now, told=False)  # it may be for another hour
                if attempt.state in (State.STAGED, State.ARMED):
                    self._tell("window" if choice.window else "chosen")
        return []

    def _asks_otherwise(self, attempt: Attempt, mode: str, now: float) -> list[Command]:
        """Of what interrupts a job says only how it asks: the customer's word stays; what followed from that goes."""
        follows = attempt.choice is not None and attempt.choice.by in fitness.STANDING and mode != attempt.mode
        self._change(mode=mode)
        if not follows:
            return []
        self._change(choice=None)
        return self._enter(State.STAGED, now, why="customer")

    # Steps

    def _enter(
        self, state: State, now: float, *, again: bool = False, told: bool = True, why: str = ""
    ) -> list[Command]:
        """Begin `state`; `again`: it is begun anew after it was interrupted."""
        entries = self._attempt().entries + 1 if again else 1
        self._change(state=state, entries=entries, why=self._attempt().why if again else why)
        self._since = self._retry = now
        self._fine_at = self._passed_at = 0.0
        self._working = False
        if entries > ENTRIES_CAP:
            return self._loop(now)
        if not again:
            self._mark(str(state), why)
            if told:
                self._tell(why)
        return self._work(now)

    def _work(self, now: float) -> list[Command]:
        attempt = self._attempt()
        quiet = attempt.state in (State.ACCEPTED, State.VERIFIED, State.STAGED, State.ARMED)
        if quiet or (attempt.state is State.TRIAL and not attempt.green):
            return []
        self._working = True
        match attempt.state:
            case State.OFFERED:
                return [facts.Refresh()]
            case State.DOWNLOADING if attempt.release is not None:
                return [facts.Fetch(attempt.release, attempt.max_bytes)]
            case State.INSTALLING if attempt.release is not None:
                return [facts.Install(attempt.release)]
            case State.ACTIVATING if attempt.tier == 1:
                return [facts.Switch(attempt.place, self.journal.attempts)]
            case State.ACTIVATING:
                return [facts.StartAnew()] if attempt.marked else [facts.MarkNext(attempt.place)]
            case State.TRIAL:
                return [facts.Keep(attempt, self.journal.attempts)]
            case State.REVERTING:
                return [facts.Report(self.journal.attempts, attempt), facts.GoBack(attempt)]
            case _:
                return self._end(State.FAILED, "fault", "The release on its way is not known any more.")

    def _found(self, event: facts.Found, now: float) -> list[Command]:
        self._back_off, self._asking = 0.0, False
        self._next = now + EVERY_S * 0.75 + self._spread(EVERY_S / 2)
        release, attempt = event.release, self.journal.attempt
        if release.counter > max(self.journal.newest, self.journal.highest):
            self._set(newest=release.counter, newest_version=release.version)
            if attempt is None:
                self._say(told.offer(release, self.journal, self._at))
        if attempt is None or attempt.state is not State.OFFERED:
            return []
        self._working = False
        if attempt.counter > release.counter:
            return self._wait(now)  # it is not published everywhere yet
        if attempt.counter and attempt.counter < release.counter:
            return self._end(State.REJECTED, "superseded", f"The channel offers {release.counter}.")
        known = attempt.counter
        self._change(why="", detail="")  # of tries that came to nothing
        self._change(counter=release.counter, version=release.version, tier=release.tier, urgent=release.urgent)
        self._change(release=release)
        if not known:
            self._tell()
        if code := fitness.unfit(event, attempt, self.journal, self._running):
            return self._end(State.REJECTED, *code)
        return self._enter(State.ACCEPTED, now)

    def _done(self, event: facts.Event, now: float) -> list[Command]:
        attempt = self.journal.attempt
        if attempt is None:
            return []
        match event:
            case facts.Fetched() if attempt.state is State.DOWNLOADING:
                self._change(detail="")
                self._enter(State.VERIFIED, now)
                if attempt.tier > 1 and self.journal.previous.place.slot != self._running.place.slot:
                    self._set(previous=Running())  # it lies where this is about to be written
                return self._enter(State.INSTALLING, now)
            case facts.Installed(place) if attempt.state is State.INSTALLING:
                self._change(place=place, before=self._running.place, staged=self._known())
                self._enter(State.STAGED, now, why="customer" if attempt.tier > 1 else "")
                # Not before this is journaled: until then a start of the daemon asks for the bundle again.
                return [facts.Discard(attempt.counter, self._kept())]
            case facts.Measured(seen) if attempt.state is State.ARMED:
                self._change(
                    baseline=seen, before=self._running.place, boot=self._boot, ordered=self._known(), marked=False,
                    green=False, took_s=-1.0,
                )  # fmt: skip
                return self._enter(State.ACTIVATING, now)
            case facts.Marked() if attempt.state is State.ACTIVATING and not attempt.marked:
                self._change(marked=True, ordered=self._known())
                return [facts.StartAnew()]
            case facts.Switched(took_s) if attempt.state is State.ACTIVATING:
                self._running = _of(attempt)
                self._took(took_s)
                return self._enter(State.TRIAL, now)
            case facts.Kept() if attempt.state is State.TRIAL and attempt.green:
                return self._succeeded()
            case facts.WentBack(restart) if attempt.state is State.REVERTING:
                self._retry = now + RESTART_S
                return [] if restart else self._reverted()
        return []

    def _succeeded(self) -> list[Command]:
        attempt, journal = self._attempt(), self.journal
        running = self._running = msgspec.structs.replace(_of(attempt), place=self._place(attempt))
        grace = self._wall + self._grace_s if attempt.tier > 1 else journal.grace_until
        self._set(
            running=running, previous=journal.running, highest=max(journal.highest, running.counter),
            grace_until=grace, refused={n: why for n, why in journal.refused.items() if n != running.counter},
        )  # fmt: skip
        return self._end(State.SUCCEEDED)

    # Going back

    def _go_back(self, why: str, detail: str, now: float) -> list[Command]:
        self._change(detail=detail, boots=max(self._attempt().boots, 0))
        return self._enter(State.REVERTING, now, told=False, why=why)

    def _reverted(self) -> list[Command]:
        attempt = self._attempt()
        self._running = self.journal.running
        tried = attempt.marked or attempt.tier == 1
        return self._end(State.REVERTED if tried else State.FAILED, attempt.why, attempt.detail)

    def _loop(self, now: float) -> list[Command]:
        attempt = self._attempt()
        why = f"The state {attempt.state} was begun {ENTRIES_CAP} times without an end."
        if attempt.state in (State.ACTIVATING, State.TRIAL):
            return self._go_back("loop", why, now)
        if attempt.state is not State.REVERTING:  # what was left, or half left, is not put in force by that
            self._accept(self._running)
        return self._end(State.FAILED, "loop", why)

    def _failed(self, event: facts.Failed, now: float) -> list[Command]:
        attempt = self.journal.attempt
        asked = event.state is State.OFFERED and self._asking
        self._asking = self._asking and not asked
        if asked:
            self._next = now + BACK_OFF_S[1] / 2 + self._spread(BACK_OFF_S[1])
        if attempt is None or event.state is not attempt.state:
            return []
        self._working = False
        match attempt.state:
            case State.ACTIVATING:
                return self._go_back(event.code or "fault", event.why, now)
            case State.TRIAL if event.kind == "refused":
                return self._go_back("gate:daemons", event.why, now)
            case State.ARMED | State.TRIAL | State.REVERTING:
                self._retry = now + AGAIN_S
                return []
        if event.kind == "peer":
            self._change(why=event.code or "network", detail=event.why)
            return self._wait(now)
        end = State.REJECTED if event.kind == "refused" and not event.code else State.FAILED
        return self._end(end, event.code or event.kind, event.why)

    def _wait(self, now: float) -> list[Command]:
        """Try the same again later, ever more seldom; it costs no entry: nothing was begun that could be in a loop."""
        self._back_off = min(max(self._back_off * 2, BACK_OFF_S[0]), BACK_OFF_S[1])
        self._retry = now + self._back_off / 2 + self._spread(self._back_off / 2)
        return []

    # Looking

    def _looked(self, sight: facts.Looked, now: float) -> list[Command]:
        journal, attempt = self.journal, self.journal.attempt
        self._sure = sight.sure
        if sight.sure and attempt is not None and not (attempt.began and attempt.staged):
            waits = attempt.state is State.STAGED
            self._change(began=attempt.began or self._wall, staged=attempt.staged or (self._wall if waits else 0.0))
            journal, attempt = self.journal, self._attempt()
        if sight.sure and not 0 <= self._wall - journal.told < STATUS_S:
            self._set(told=self._wall)
            self._say(told.event(msgspec.structs.replace(journal, attempt=None, running=self._running), self._at))
        commands: list[Command] = []
        if now >= self._next and not self._asking and (attempt is None or attempt.state is not State.OFFERED):
            self._asking, self._next = True, now + EVERY_S
            commands = [facts.Refresh()]
        if attempt is None:
            return commands
        match attempt.state:
            case State.ACCEPTED if attempt.tier == 1 or not sight.sure or self._wall >= journal.grace_until:
                return [*commands, *self._enter(State.DOWNLOADING, now)]
            case State.STAGED:
                return [*commands, *self._waiting(attempt, sight, now)]
            case State.ARMED:
                return [*commands, *self._armed(attempt, sight, now)]
            case State.TRIAL:
                return [*commands, *self._trial(attempt, sight, now)]
            case State.ACTIVATING if attempt.marked and now - self._since > RESTART_S:
                return [*commands, *self._go_back("time", "The machine did not start anew.", now)]
            case State.REVERTING if now > self._retry and not self._working:
                return [*commands, *self._enter(State.REVERTING, now, again=True)]
            case State.REVERTING if now - self._since > max(RESTART_S, LIMITS[State.ACTIVATING]):
                return [*commands, *self._enter(State.REVERTING, now, again=True)]
        return [*commands, *self._late(attempt, sight, now)]

    def _late(self, attempt: Attempt, sight: facts.Looked, now: float) -> list[Command]:
        limit = LIMITS.get(attempt.state, 0.0)
        early = attempt.state in (State.OFFERED, State.DOWNLOADING)
        if early and sight.sure and limit and self._wall - attempt.began > limit:
            return self._end(State.EXPIRED, "network", "It could not be downloaded in time.")
        if not early and limit and now - self._since > limit:
            why = f"The step {attempt.state} took longer than {limit:.0f} s."
            if attempt.state is State.ACTIVATING:
                return self._go_back("time", why, now)
            return self._end(State.FAILED, "time", why)
        if not self._working and now >= self._retry:
            return self._work(now)
        return []

    def _waiting(self, attempt: Attempt, sight: facts.Looked, now: float) -> list[Command]:
        """STAGED: for a word, or for the hour that was chosen. Nothing here activates without a `Choice`."""
        choice = attempt.choice
        if choice is not None and attempt.tier > 1 and choice.by.startswith(OPERATOR):
            self._change(choice=None)  # an operator's word interrupts nobody
            return []
        if choice is None:
            return self._without(attempt, sight)
        if self._untimed(choice, sight):
            return []
        if sight.sure and windows.over(choice, self._wall):
            self._change(choice=None)
            self._tell("customer", "The time that was chosen passed while the box was off or busy.")
            return []
        if windows.due(choice, sight.restart, sight.zone, self._wall):
            return self._enter(State.ARMED, now)
        return []

    def _untimed(self, choice: Choice, sight: facts.Looked) -> bool:
        """Whether only the time could say that it is due, which nobody knows. "Now" needs none in the boot it was said
        in; how long the box was off since then, the time alone can say.
        """
        earlier = bool(choice.until) and choice.boot != self._boot
        return not sight.sure and (bool(choice.at) or choice.window or earlier)

    def _without(self, attempt: Attempt, sight: facts.Looked) -> list[Command]:
        if not sight.sure or self._wall < attempt.postponed:
            return []
        if attempt.tier > 1 and (by := fitness.standing(attempt, sight)):
            self._change(choice=Choice(by=by, until=0.0, window=by == "window"))
            self._tell(by)
            return []
        if self._wall - attempt.staged > STAGED_S:
            return self._end(State.EXPIRED, "time", "Nobody chose when to use it.")
        if attempt.tier > 1 and (due := windows.reminders(attempt, self._wall)) > attempt.reminded:
            self._change(reminded=due)
            self._tell("overdue" if due >= 3 and attempt.urgent else "deadline")
        return []

    def _armed(self, attempt: Attempt, sight: facts.Looked, now: float) -> list[Command]:
        choice = attempt.choice
        if self._working and now - self._since > RESTART_S:
            return self._enter(State.STAGED, now, told=False)
        if self._working or now < self._retry:
            return []
        if choice is None or self._untimed(choice, sight):
            return self._enter(State.STAGED, now, told=False)
        if not windows.due(choice, sight.restart, sight.zone, self._wall):
            return self._enter(State.STAGED, now, told=False)
        self._change(entries=attempt.entries + 1)
        if attempt.entries > ENTRIES_CAP:
            return self._loop(now)
        self._working = True
        return [facts.Measure()]

    def _trial(self, attempt: Attempt, sight: facts.Looked, now: float) -> list[Command]:
        if sight.forwarding and not self._passed_at:
            self._passed_at = now
        if attempt.took_s < 0 and attempt.ordered and self._passed_at and sight.sure:
            self._took(self._wall - (now - self._passed_at) - attempt.ordered)
        if attempt.green:
            if now - self._since > self._trial_s + RESTART_S:
                return self._go_back("keep", "It could not be made to stay.", now)
            return self._work(now) if not self._working and now >= self._retry else []
        if sight.failing:
            self._fine_at, self._failing = 0.0, sight.failing
        elif not self._fine_at:
            self._fine_at = now
        if self._fine_at and now - self._fine_at >= self._steady_s:
            self._change(green=True)
            return self._work(now)
        if now - self._since > self._trial_s:
            first = self._failing[0] if self._failing else "steady"
            return self._go_back(f"gate:{first}", f"After the change these did not work: {_list(self._failing)}.", now)
        return []

    # The journal

    def spoken(self, event: Firmware) -> None:
        """`event` is in the journal telemetry reads."""
        self._set(untold=tuple(one for one in self.journal.untold if one != event))

    def _took(self, seconds: float) -> None:
        """Note an interruption. What only a clock that was set can explain is no measure."""
        nothing = self._attempt().tier > 1 and seconds <= 0  # a start of the machine takes some time
        if nothing or not 0 <= seconds <= LONGEST_S:
            self._change(took_s=-1.0, ordered=0.0)
            return
        self._change(took_s=seconds)
        history = (*self.journal.history, Took(self._attempt().tier, round(seconds, 3)))
        self._set(history=history[-HISTORY_CAP:])

    def _end(self, state: State, why: str = "", detail: str = "") -> list[Command]:
        """The attempt is over, told once, for ever."""
        self._change(state=state, why=why, detail=detail)
        self._mark(str(state), why)
        attempt, journal = self._attempt(), self.journal
        self._tell(why, detail)
        bad = state is State.REVERTED or (state is State.REJECTED and attempt.release is not None)
        if bad and why not in ("already", "older", "from", "refused", "superseded", *_KEEPS_TRYING):
            refused = {**journal.refused, attempt.counter: f"{why}: {detail}"[:300]}
            self._set(refused=dict(sorted(refused.items())[-REFUSED_CAP:]))
        ended = Ended(
            counter=attempt.counter, version=attempt.version, state=state, why=why, detail=detail, at=self._at,
            by=attempt.by,
        )  # fmt: skip
        number = journal.attempts
        self._set(attempt=None, last=ended)
        self._working = False
        report: list[Command] = []
        if state in (State.REVERTED, State.FAILED):
            report = [facts.Report(number, attempt)]
        return [*report, facts.Discard(attempt.counter, self._kept())]

    def _kept(self) -> tuple[Place, ...]:
        attempt = self.journal.attempt
        staged = () if attempt is None else (attempt.place,)
        return (self._running.place, self.journal.running.place, self.journal.previous.place, *staged)

    def _place(self, attempt: Attempt) -> Place:
        return self._running.place if attempt.tier > 1 else attempt.place

    def _elsewhere(self, attempt: Attempt) -> bool:
        return attempt.place.slot != attempt.before.slot

    def _is_in(self, place: Place) -> bool:
        attempt = self._attempt()
        if attempt.tier > 1:
            return self._running.place.slot == place.slot
        return self._running.place.release == place.release

    def _attempt(self) -> Attempt:
        attempt = self.journal.attempt
        if attempt is None:
            raise ValueError("there is no attempt")
        return attempt

    def _mark(self, state: str, why: str) -> None:
        trace = (*self._attempt().trace, Mark(self._at, state, why))
        self._change(trace=(*trace[:1], *trace[1:][-(TRACE_CAP - 1) :]))

    def _tell(self, why: str = "", detail: str = "") -> None:
        if self._attempt().state in told.TOLD:
            self._say(told.event(self.journal, self._at, why, detail))

    def _say(self, event: Firmware) -> None:
        self._set(untold=(*self.journal.untold, event)[-UNTOLD_CAP:])

    def _change(self, **changes: Any) -> None:
        self._set(attempt=msgspec.structs.replace(self._attempt(), **changes))

    def _set(self, **changes: Any) -> None:
        self.journal = msgspec.structs.replace(self.journal, **changes)


def _left(event: facts.Started, attempt: Attempt) -> tuple[str, str]:
    """Why a release on trial is not in use any more: code and sentence."""
    if event.given_up.release == attempt.place.release and event.given_up.release:
        return "gate:firmware", event.given_up.why
    if event.reason == "same":
        return "outside", "The release before was put back by other means."
    why = {"power_loss": "power_loss", "ordered": "outside"}.get(event.reason, "boot")
    return why, "The box was started anew before the release had proved itself; it took the one before."


def _of(attempt: Attempt) -> Running:
    return Running(counter=attempt.counter, version=attempt.version, tier=attempt.tier, place=attempt.place)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "something, now and then"
