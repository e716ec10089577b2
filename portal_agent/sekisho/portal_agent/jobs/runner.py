"""Joins the machine to its book and to those who carry jobs out: saves, tells, acts, in this order.

One thread. What it is told of a job by a daemon that does not answer is nothing, and it asks again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core import fsio, told_time, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import ENVELOPE_CAP, Believed, Operators, State
from sekisho.appliance.core.jobs import Job as Signed
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs import book, facts, inbox, shown, trust
from sekisho.portal_agent.jobs.book import Entry
from sekisho.portal_agent.jobs.facts import Now, Progress
from sekisho.portal_agent.jobs.machine import Machine
from sekisho.telemetry import events
from sekisho.telemetry.clocks import RELEASED

NOTICES: Final = 20
NOTICES_S: Final = 3600.0
"""Of what is no job at most so many are told in this time: a broker can send without end."""
NOTICE_AGAIN_S: Final = 3600.0

log = logging.getLogger(__name__)


class NotNow(Exception):
    """It may not begin yet; `why` is what it waits for."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail


class Never(Exception):
    """It is refused; `why` is the code."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail


class Work(Protocol):
    """Who carries jobs out (`desks`). What may raise PeerError is asked again."""

    def prepare(self, job: Signed) -> str:
        """What is there before (the mark).

        Raises:
            NotNow, Never, PeerError: it may not begin.

        """

    def begin(self, job: Signed, mark: str) -> Progress:
        """Have it done, unless the mark says it was."""

    def look(self, job: Signed, mark: str) -> Progress: ...

    def withdraw(self, job: Signed, mark: str, ending: State) -> str:
        """Take it back, to end so; why that is too late, or nothing."""


class Jobs:
    """The jobs of one box."""

    def __init__(
        self,
        settings: Settings,
        work: Work,
        *,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[], float | None] | None = None,
    ) -> None:
        """Take up where the last one ended.

        Raises:
            DeviceFault: what was done before cannot be read, or the disk refuses.

        """
        self._settings, self._work, self._clock = settings, work, clock
        self._told = told or (lambda: told_time.try_read(settings))
        self._path = settings.jobs_state / "book.json"
        self._believed: tuple[tuple[int, int], Believed | None] = ((0, 0), None)
        try:
            settings.jobs_state.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as err:
            raise DeviceFault(f"{settings.jobs_state}: {err.strerror}.") from err
        self._saved = book.load(self._path)
        self.machine = Machine(self._saved)
        self._writer = JournalWriter(settings.journals / "jobs.jsonl")
        self._commands: list[facts.Command] = []
        self._noticed: dict[tuple[str, str], float] = {}
        self._notices: list[float] = []
        self._shown = b""
        self._handle(facts.Started())

    def turn(self) -> None:
        """Everything that is due now.

        Raises:
            DeviceFault: the disk refuses. Nothing is begun until it does not.

        """
        self._settle()
        self._take_in()
        self._handle(facts.Turned())
        self._show()

    def close(self) -> None:
        self._writer.close()

    def now(self) -> Now:
        told, floor = self._told(), self._signed_time()
        return Now(self._clock(), None if told is None else max(told, floor), utc.now(), floor)

    # Coming in

    def _take_in(self) -> None:
        folder = self._settings.jobs_inbox
        operators: Operators | None = None
        for name, data in inbox.waiting(folder):
            operators = operators or self._operators()
            if operators is None:
                self._without_operators(name)
                continue
            self._judge(name, data, operators)
            inbox.done(folder, name)

    def _without_operators(self, name: str) -> None:
        """Nobody can say who may sign: it waits for the channel, or, where there is none, for nothing."""
        if self._settings.signatures.channel:
            self._notice(name, "WAITING", "network", "The list of operators has not come, or is out of date.")
            return
        self._notice(name, "REJECTED", "no_operators", "This box has no signed channel, so nobody may sign jobs.")
        inbox.done(self._settings.jobs_inbox, name)

    def _judge(self, name: str, data: bytes, operators: Operators) -> None:
        try:
            came = self._judged(name, data, operators)
        except trust.Refused as err:
            self._notice(name, "REJECTED", err.why, str(err))
            return
        known = self.machine.book.find(name)
        if known is not None and known.digest != came.digest:
            self._notice(name, "REJECTED", "other_payload", "Another job was signed under this name.")
            return
        if known is None and self.machine.full(came.job.kind):
            self._notice(name, "REJECTED", "full", "Too many jobs are not over, or not long enough.")
            return
        if known is None:
            self._keep(name, data)
        self._handle(came)

    def _judged(self, name: str, data: bytes, operators: Operators) -> facts.Came:
        return trust.judge(name, data, operators, self._settings.box, self._known(), sure=self._told() is not None)

    def _known(self) -> float:
        """Unix seconds: it is at least so late. The wall clock of a box says nothing before the centre has told it, and
        what a broker says takes nothing back of what is signed.
        """
        return max(self._told() or 0.0, self.machine.book.floor, self._signed_time())

    def _list(self) -> Believed | None:
        found = fsio.stamp(self._settings.operators)
        if found != self._believed[0]:
            self._believed = found, trust.try_operators(self._settings.operators)
        return self._believed[1]

    def _signed_time(self) -> float:
        found = self._list()
        return max(RELEASED, found.at) if found is not None else RELEASED

    def _operators(self) -> Operators | None:
        """Who may sign; None while that is not known, or out of date."""
        found = self._list()
        return found if found is not None and self._known() <= found.expires else None

    def _keep(self, name: str, data: bytes) -> None:
        """As it was signed: it is checked again when it begins."""
        try:
            write_atomic(self._envelope(name), data, 0o600)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._envelope(name)}: {err.strerror}.") from err

    def _envelope(self, name: str) -> Path:
        return self._settings.jobs_state / f"{name}.signed"

    def _notice(self, name: str, state: State, why: str, detail: str) -> None:
        """Tell of a message that is no job here: `ver` 0 says nothing about a job of that name."""
        now = self._clock()
        if now < self._noticed.get((name, why), 0.0):
            return
        self._notices = [at for at in self._notices if now - at < NOTICES_S]
        if len(self._notices) >= NOTICES:
            return
        self._notices.append(now)
        self._noticed = {key: at for key, at in self._noticed.items() if at > now}
        self._noticed[name, why] = now + NOTICE_AGAIN_S
        log.warning("%s: %s", name, detail)
        self._append(events.Job(at=utc.now(), id=name, ver=0, state=state, why=why, detail=detail))

    # Acting

    def _handle(self, event: facts.Event) -> None:
        self._commands += self.machine.handle(event, self.now())
        self._settle()

    def _settle(self) -> None:
        self._save()
        self._tell()
        while self._commands:
            self._carry_out(self._commands.pop(0))

    def _save(self) -> None:
        if self.machine.book is self._saved:
            return
        if self.machine.book != self._saved:
            book.save(self._path, self.machine.book)
        self._saved = self.machine.book

    def _tell(self) -> None:
        told = False
        for entry in self.machine.book.entries:
            if entry.told < entry.ver:
                self._append(report(entry))
                log.info("job %s %s: %s %s", entry.job.id, entry.job.kind, entry.state, entry.why)
                self.machine.spoken(entry.job.id, entry.ver)
                told = True
                if entry.over:
                    with contextlib.suppress(OSError):
                        self._envelope(entry.job.id).unlink(missing_ok=True)
        if told:
            self._save()

    def _append(self, event: events.Job) -> None:
        self._writer.append(msgspec.json.encode(event))

    def _carry_out(self, command: facts.Command) -> None:
        entry = self.machine.book.find(command.id)
        if entry is None or entry.over:
            return
        job = entry.job
        try:
            match command:
                case facts.Prepare(ident):
                    self._check_again(entry)
                    event: facts.Event = facts.Prepared(ident, self._work.prepare(job))
                case facts.Begin(ident):
                    event = self._doubt(entry) or facts.Looked(ident, self._work.begin(job, entry.mark))
                case facts.Look(ident):
                    event = facts.Looked(ident, self._work.look(job, entry.mark))
                case facts.Withdraw(ident):
                    event = facts.Withdrawn(ident, self._work.withdraw(job, entry.mark, entry.ending or "FAILED"))
        except NotNow as err:
            event = facts.Unready(command.id, Progress("WAITING", err.why, detail=err.detail))
        except Never as err:
            event = _refused(command, err.why, err.detail)
        except RejectedInput as err:
            event = _refused(command, "refused", str(err))
        except PeerError as err:
            log.info("job %s: %s", command.id, err)
            if not isinstance(command, facts.Prepare):
                return
            event = facts.Unready(command.id, Progress("WAITING", "daemon", detail=str(err)))
        except (SekishoError, OSError) as err:
            event = _refused(command, "fault", str(err))
        self._commands += self.machine.handle(event, self.now())
        self._save()
        self._tell()

    def _check_again(self, entry: Entry) -> None:
        """Between its coming and its beginning weeks may lie: whoever signed must still be one who may.

        Raises:
            NotNow, Never: not now, or not any more.

        """
        operators = self._operators()
        if operators is None:
            raise NotNow("network", "The list of operators is gone, or out of date.")
        try:
            with self._envelope(entry.job.id).open("rb") as source:
                data = source.read(ENVELOPE_CAP + 1)
            came = self._judged(entry.job.id, data, operators)
        except OSError as err:
            raise Never("lost", str(err)) from err
        except trust.Refused as err:
            raise Never(err.why, str(err)) from err
        if came.digest != entry.digest:
            raise Never("other_payload")

    def _doubt(self, entry: Entry) -> facts.Unready | None:
        """Why it is not asked for now, where it was perhaps never asked for."""
        try:
            if not entry.asked:
                self._check_again(entry)
        except NotNow as err:
            return facts.Unready(entry.job.id, Progress("WAITING", err.why, detail=err.detail))
        except Never as err:
            return facts.Unready(entry.job.id, Progress("REJECTED", err.why, detail=err.detail))
        return None

    def _show(self) -> None:
        """For the box's own page and command; gone with the power, made anew from the book."""
        with contextlib.suppress(OSError):
            self._shown = shown.show(self._settings, self.machine.book, self._shown)


def _refused(command: facts.Command, why: str, detail: str) -> facts.Event:
    match command:
        case facts.Prepare(ident):
            return facts.Unready(ident, Progress("REJECTED", why, detail=detail))
        case facts.Withdraw(ident):
            return facts.Withdrawn(ident, detail or why)
        case _:
            return facts.Looked(command.id, Progress("FAILED", why, detail=detail))


def report(entry: Entry) -> events.Job:
    """What is told of a job as it stands."""
    return events.Job(
        at=entry.at or utc.now(), id=entry.job.id, ver=entry.ver, state=entry.state, kind=entry.job.kind,
        why=entry.why, step=entry.step, pct=entry.pct, by=entry.by, rollout=entry.job.rollout,
        signers=list(entry.signers), detail=entry.detail,
    )  # fmt: skip
