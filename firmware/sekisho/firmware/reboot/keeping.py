"""Joins the machine to its journal, to what is seen, and to root's errand; answers at the desk.

The desk's threads and the daemon's own meet at one lock, under which an answer is on the disk before it is given.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import open_plain, write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import wishes
from sekisho.firmware.gates import judge
from sekisho.firmware.keeper import windows
from sekisho.firmware.keeper.desk import AHEAD_S, NOW_S
from sekisho.firmware.keeper.journal import Choice, Seen
from sekisho.firmware.keeper.ordered import Ordered
from sekisho.firmware.reboot import desk, machine
from sekisho.firmware.reboot.machine import ALIVE, Journal, Machine

CAP: Final = 64 << 10
ANEW_S: Final = 120.0

log = logging.getLogger(__name__)

Asking = Callable[[str, wishes.Wish, float], object]
"""A number, a wish, and seconds to wait: root's errand."""


class Eyes(Protocol):
    """`gates.eyes.Eyes`."""

    def look(self) -> Seen: ...

    def watch(self) -> Seen: ...


class Reboots:
    """One box's. `eyes` gives a pair of eyes: one is for the caller's thread, others for what takes long."""

    def __init__(
        self,
        settings: Settings,
        eyes: Callable[[], Eyes],
        ask: Asking,
        boot: str,
        *,
        ordered: Ordered | None = None,
        clock: Callable[[], float] = time.monotonic,
        threaded: bool = True,
    ) -> None:
        """Take up where the last one ended.

        Raises:
            DeviceFault: the disk refuses the journal.

        """
        self._eyes_of, self._eyes, self._ask = eyes, eyes(), ask
        self._clock, self._threaded = clock, threaded
        self._ordered = ordered or Ordered(settings)
        self._path = settings.firmware_state / "reboot.json"
        self._lock = threading.RLock()
        self._saved = self._load()
        wanted = settings.firmware
        self.machine = Machine(self._saved, trial_s=wanted.trial_s, steady_s=wanted.steady_s)
        self._pending: list[machine.Command] = []
        self._handle(machine.Started(boot))

    @property
    def going(self) -> bool:
        """The machine is about to start anew."""
        found = self.machine.journal.wanted
        return found is not None and found.state == "ordered"

    def turn(self, *, busy: bool) -> None:
        """One look. `busy`: a release is being written or tried.

        Raises:
            DeviceFault: the journal cannot be written; nothing is begun until it can.

        """
        with self._lock:
            wanted = self.machine.journal.wanted
            failing: tuple[str, ...] = ()
            forwarding = False
            if wanted is not None and wanted.state == "proving":
                before = wanted.baseline or ALIVE
                seen = self._eyes.look()
                failing = judge.failing(before, seen)
                forwarding = seen.engine_canary and "no" not in (seen.out, seen.back)
            told = self._ordered.orders()
            self._handle(
                machine.Looked(
                    sure=self._ordered.now()[1], restart=told.restart, zone=told.zone, asap=told.firmware_asap,
                    busy=busy, failing=failing, forwarding=forwarding,
                )
            )  # fmt: skip

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame (`desk`).

        Raises:
            RejectedInput: no question, or it cannot be done as things are; the message says why.
            DeviceFault: it could not be kept; nothing has changed.

        """
        try:
            asked: desk.Question = msgspec.json.decode(question, type=desk.Question)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        with self._lock:
            self._take(asked)
            told, (now, _) = self._ordered.orders(), self._ordered.now()
            opens = windows.next_open(told.restart, told.zone, now)
            found = self.machine
            yield msgspec.json.encode(desk.shown(found.journal, begins=found.beginning, window_at=opens))

    def _take(self, asked: desk.Question) -> None:
        wanted = self.machine.journal.wanted
        match asked:
            case desk.Show():
                return
            case desk.Ask(job, boot, mode, reason):
                if wanted is not None and wanted.job != job:
                    raise RejectedInput("Another restart waits.", "It has to come to its end first.")
                self._handle(machine.Asked(job=job, boot=boot, mode=mode, reason=reason))
            case desk.Choose(job):
                self._may(job)
                self._handle(machine.Chosen(job, self._choice(asked)))
            case desk.Refuse(job, by):
                self._may(job)
                self._handle(machine.Refused(job, by))

    def _may(self, job: str) -> None:
        wanted = self.machine.journal.wanted
        if wanted is None or wanted.job != job:
            raise RejectedInput("This restart does not wait any more.", "Look again.")
        if wanted.state != "waiting":
            raise RejectedInput("too_late: the box is restarting already.", "Wait until it is back.")

    def _choice(self, asked: desk.Choose) -> Choice:
        now = self._ordered.now()[0]
        if asked.window:
            if self._ordered.orders().restart is None:
                raise RejectedInput("There is no weekly window.", "Set one in the portal, or choose an hour.")
            return Choice(by=asked.by, until=0.0, window=True)
        if asked.at > now + AHEAD_S:
            raise RejectedInput("That is more than a month ahead.", "Choose a time within that.")
        at = asked.at if asked.at > now else 0.0
        return Choice(by=asked.by, at=at, until=at + windows.MISSED_S if at else now + NOW_S)

    # Acting

    def _handle(self, event: machine.Event) -> None:
        if isinstance(event, machine.Failed):
            log.error("%s", event.why)
        wall = self._ordered.now()[0]
        before = self.machine.journal
        self._pending += self.machine.handle(event, self._clock(), wall, utc.of_unix(wall))
        try:
            self._save()
        except DeviceFault:
            if not isinstance(event, machine.Looked):
                self.machine.journal, self._pending = before, []
            raise
        while self._pending:
            self._carry_out(self._pending.pop(0))

    def _carry_out(self, command: machine.Command) -> None:
        match command:
            case machine.Measure():
                self._begin("measure", lambda: machine.Measured(self._eyes_of().watch()))
            case machine.StartAnew(job):
                number = "reboot-" + job.removeprefix("job ").lower()
                self._begin("restart", lambda: self._ask(number, wishes.Anew(), ANEW_S))

    def _begin(self, name: str, work: Callable[[], object]) -> None:
        def done() -> None:
            try:
                outcome = work()
            except (SekishoError, OSError) as err:
                outcome = machine.Failed(str(err))
            if isinstance(outcome, machine.Measured | machine.Failed):
                with self._lock:
                    try:
                        self._handle(outcome)
                    except DeviceFault as err:
                        log.error("%s", err)
                        self._handle_failed(str(err))

        if self._threaded:
            threading.Thread(target=done, name=name, daemon=True).start()
        else:
            done()

    def _handle_failed(self, why: str) -> None:
        """What works was noted, and could not be kept: it is noted again later."""
        self.machine.handle(machine.Failed(why), self._clock(), self._ordered.now()[0], "")

    def _load(self) -> Journal:
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with open_plain(self._path, CAP) as source:
                return msgspec.json.decode(source.read(), type=Journal)
        except FileNotFoundError:
            return Journal()
        except msgspec.MsgspecError as err:  # a job that waits is asked for again, and the boot says what was done
            log.error("%s cannot be read: %s", self._path, err)
            return Journal()
        except OSError as err:
            raise DeviceFault(f"{self._path}: {err.strerror}.") from err

    def _save(self) -> None:
        if self.machine.journal == self._saved:
            return
        try:
            write_atomic(self._path, msgspec.json.encode(self.machine.journal), 0o640)
        except OSError as err:
            raise DeviceFault(
                f"Cannot write {self._path}: {err.strerror}.", "Free space on the data partition."
            ) from err
        self._saved = self.machine.journal
