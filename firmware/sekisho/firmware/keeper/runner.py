"""Joins the machine to its journal and its effects: saves before it acts, acts, brings the outcome back as an event.

Two threads: the caller's, in which `turn` looks once a second, and one for what takes long (network, disk, switching).
Only the first touches the machine.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.writeahead import WriteAhead, unimportant
from sekisho.firmware.blocks import Costly
from sekisho.firmware.keeper import facts, journal
from sekisho.firmware.keeper.journal import Attempt, Journal, Place, State
from sekisho.firmware.keeper.machine import Machine
from sekisho.firmware.published import Release
from sekisho.telemetry import events

LOOK_S: Final = 1.0
OUTSIDE: Final = -1
"""Stands for the number of the attempt where nothing was asked of `Work`."""

log = logging.getLogger(__name__)


class OverBudget(RejectedInput):
    """The download would cost more than the job allows."""


class Work(Protocol):
    """What `effects.Effects` does on the real box. Each may be repeated: what is done already is done."""

    def refresh(self) -> facts.Found: ...

    def fetch(self, release: Release, max_bytes: int) -> facts.Fetched: ...

    def install(self, release: Release) -> facts.Installed: ...

    def measure(self) -> facts.Measured: ...

    def switch(self, to: Place, number: int) -> facts.Switched: ...

    def mark_next(self, place: Place) -> facts.Marked: ...

    def start_anew(self) -> None: ...

    def keep(self, attempt: Attempt, number: int) -> facts.Kept: ...

    def go_back(self, attempt: Attempt) -> facts.WentBack: ...

    def report(self, number: int, attempt: Attempt) -> None: ...

    def discard(self, counter: int, keep: tuple[Place, ...]) -> None: ...


class Keeper:
    """The box's own software, kept. `clock` is monotonic, `wall` gives unix seconds, `look` what is seen now."""

    def __init__(
        self,
        settings: Settings,
        work: Work,
        look: Callable[[Attempt | None], facts.Looked],
        started: facts.Started,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        spread: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311 - no secret
        threaded: bool = True,
    ) -> None:
        """Take up where the last one ended.

        Raises:
            DeviceFault: the disk refuses the journal.

        """
        self._work, self._look = work, look
        self._clock, self._wall, self._threaded = clock, wall, threaded
        path = settings.firmware_state / "keeper.json"
        try:
            settings.firmware_state.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as err:
            raise DeviceFault(f"{settings.firmware_state}: {err.strerror}.") from err
        saved, wanted = journal.load(path), settings.firmware
        self.machine = Machine(
            saved,
            trial_s=wanted.trial_s,
            steady_s=wanted.steady_s,
            grace_s=wanted.grace_h * 3600,
            spread=spread,
        )
        self._writer = JournalWriter(settings.journals / "firmware.jsonl")
        self._outcomes: queue.SimpleQueue[tuple[int, facts.Event]] = queue.SimpleQueue()
        self._ahead = WriteAhead[facts.Command](
            self.machine, path, journal.save, self._writer, self._carry_out,
            decode=events.decode, urgent=self._going_back,
        )  # fmt: skip
        self.last = ""
        """What became of the last thing that was tried, for people."""
        self._handle(started)

    @property
    def journal(self) -> Journal:
        return self.machine.journal

    def put(self, event: facts.Event) -> None:
        """From any thread: what happened elsewhere."""
        self._outcomes.put((OUTSIDE, event))

    def turn(self, wait_s: float = 0.0) -> None:
        """Everything that is due now, after waiting at most `wait_s` for something to happen.

        Raises:
            DeviceFault: the journal cannot be written. Nothing is begun until it can.

        """
        self._ahead.settle()
        with suppress(queue.Empty):
            self._came(*(self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait()))
            while True:
                self._came(*self._outcomes.get_nowait())
        self._handle(self._look(self.journal.attempt))

    def close(self) -> None:
        self._writer.close()

    # Acting

    def _came(self, number: int, event: facts.Event) -> None:
        """An outcome of an attempt that is over says nothing about the next one."""
        if number in (OUTSIDE, self.journal.attempts) or isinstance(event, facts.Found):
            self._handle(event)

    def _handle(self, event: facts.Event) -> None:
        if isinstance(event, facts.Failed):
            log.log(logging.INFO if event.kind == "peer" else logging.WARNING, "%s: %s", event.state, event.why)
            self.last = event.why
        elif not isinstance(event, facts.Looked):
            self.last = ""
        wall = self._wall()
        self._ahead.take(self.machine.handle(event, self._clock(), wall, utc.of_unix(wall)))

    def _going_back(self) -> bool:
        return self.journal.attempt is not None and self.journal.attempt.state is State.REVERTING

    def _carry_out(self, command: facts.Command) -> None:
        work = self._work
        match command:
            case facts.Refresh():
                self._begin(State.OFFERED, work.refresh)
            case facts.Fetch(release, max_bytes):
                self._begin(State.DOWNLOADING, lambda: work.fetch(release, max_bytes))
            case facts.Install(release):
                self._begin(State.INSTALLING, lambda: work.install(release))
            case facts.Measure():
                self._begin(State.ARMED, work.measure)
            case facts.Switch(to, number):
                self._begin(State.ACTIVATING, lambda: work.switch(to, number))
            case facts.MarkNext(place):
                self._begin(State.ACTIVATING, lambda: work.mark_next(place))
            case facts.StartAnew():
                self._begin(State.ACTIVATING, work.start_anew)
            case facts.Keep(attempt, number):
                self._begin(State.TRIAL, lambda: work.keep(attempt, number))
            case facts.GoBack(attempt):
                self._begin(State.REVERTING, lambda: work.go_back(attempt))
            case facts.Report(number, attempt):
                with unimportant():
                    work.report(number, attempt)
            case facts.Discard(counter, keep):
                self._aside(lambda: work.discard(counter, keep))

    def _begin(self, state: State, work: Callable[[], facts.Event | None]) -> None:
        number = self.journal.attempts
        self._run(str(state), lambda: self._now(state, number, work))

    def _aside(self, work: Callable[[], None]) -> None:
        """Without anybody waiting for it."""

        def quietly() -> None:
            with unimportant():
                work()

        self._run("aside", quietly)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        if self._threaded:
            threading.Thread(target=work, name=name, daemon=True).start()
        else:
            work()

    def _now(self, state: State, number: int, work: Callable[[], facts.Event | None]) -> None:
        try:
            outcome = work()
        except OverBudget as err:
            outcome = facts.Failed(state, "refused", str(err), "budget")
        except RejectedInput as err:
            outcome = facts.Failed(state, "refused", str(err))
        except Costly as err:
            outcome = facts.Failed(state, "peer", str(err), "budget")
        except PeerError as err:
            outcome = facts.Failed(state, "peer", str(err))
        except (SekishoError, OSError) as err:
            outcome = facts.Failed(state, "fault", str(err))
        except Exception as err:  # the boundary: nothing a release makes a library raise ends the keeper
            log.exception("%s failed", state)
            outcome = facts.Failed(state, "fault", f"{type(err).__name__}: {err}")
        if outcome is not None:
            self._outcomes.put((OUTSIDE if state is State.OFFERED else number, outcome))
