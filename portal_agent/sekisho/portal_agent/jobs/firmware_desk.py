"""The kinds about releases, asked at the firmware daemon's desk; it decides with the customer, and knows what is true.

What it was asked and does not show is asked again, and what it shows is not: so a lost question costs a look, and a
repeated one nothing. An activation that nobody chose in time leaves the release staged, as the customer found it.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper import desk
from sekisho.firmware.keeper.desk import Shown, Way
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never, NotNow

_Counter = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
_READY: Final = ("staged", "armed")
_TRYING: Final = ("activating", "trial", "reverting")
_ENDS: Final[dict[str, State]] = {
    "succeeded": "SUCCEEDED", "reverted": "REVERTED", "failed": "FAILED", "rejected": "FAILED", "canceled": "CANCELED",
    "expired": "EXPIRED",
}  # fmt: skip
_WAITS: Final = frozenset({"network", "budget", "memory", "disk", "customer", "window", "deadline", "overdue"})
_CHOICES: Final = frozenset({"deadline", "overdue"})
"""How plainly the customer is told; it is still their word that is waited for."""
TOO_LATE: Final = "too_late"


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """fw.stage, fw.activate, fw.cancel, fw.rollback (to this one). `again`: also one that went back here before."""

    counter: _Counter
    again: bool = False


class Firmware:
    """One box's releases."""

    def __init__(self, settings: Settings) -> None:
        self._socket = settings.firmware_socket

    def running(self) -> int:
        """Counter of the release in use; 0: it came with the machine.

        Raises:
            PeerError: the firmware daemon does not answer.

        """
        return self._now().running.counter

    def prepare(self, job: Job) -> str:
        """As `runner.Work`. The mark is when the last attempt ended: what ended later is this job's."""
        wanted, now = args_of(job, Wanted), self._now()
        if job.kind == "fw.stage" and wanted.counter < now.running.counter:
            raise Never("older", f"Release {now.running.counter} is in use; only a job of two people goes back.")
        if job.kind == "fw.activate" and wanted.counter != now.running.counter:
            if now.way is None or now.way.counter != wanted.counter:
                raise NotNow("not_staged", f"Release {wanted.counter} is not on this box.")
            if now.way.state not in (*_READY, *_TRYING):
                raise NotNow("not_staged", f"Release {wanted.counter} is {now.way.state}.")
        if job.kind == "fw.cancel" and (now.way is None or now.way.counter != wanted.counter):
            raise Never("absent", f"Release {wanted.counter} is not on its way.")
        return now.last.at if now.last is not None else ""

    def begin(self, job: Job, mark: str) -> Progress:
        """Ask for what is not there and not on its way."""
        wanted, now = args_of(job, Wanted), self._now()
        if (done := _done(job, wanted, now, mark)) is not None:
            return done
        if (question := _question(job, wanted, now.way)) is not None:
            try:
                now = self._ask(question)
            except RejectedInput as err:
                if str(err).startswith(TOO_LATE):
                    return Progress("FAILED", TOO_LATE, detail=str(err))
                raise
        return _done(job, wanted, now, mark) or _under_way(now.way)

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        """Give the release up where somebody canceled; else only what was asked of its activation.

        Raises:
            PeerError: the firmware daemon does not answer, or does not show yet that it is taken back.

        """
        wanted, now = args_of(job, Wanted), self._now()
        if now.way is None or now.way.counter != wanted.counter or job.kind == "fw.cancel":
            done = _done(job, wanted, now, mark)
            return TOO_LATE if done is not None and done.state in ("SUCCEEDED", "REVERTED") else ""
        if now.way.state in _TRYING:
            return TOO_LATE
        question = _taking_back(job, now.way, ending)
        if question is None:
            return ""
        try:
            self._ask(question)
        except RejectedInput as err:
            return TOO_LATE if str(err).startswith(TOO_LATE) else ""
        raise PeerError("It is taken back once the firmware daemon shows it.")

    def _now(self) -> Shown:
        return self._ask(desk.Status())

    def _ask(self, question: desk.Question) -> Shown:
        return msgspec.json.decode(asked(self._socket, question), type=Shown)


def _question(job: Job, wanted: Wanted, way: Way | None) -> desk.Question | None:
    """What the firmware daemon has still to be asked."""
    by, mine = f"job {job.id}", way is not None and way.counter == wanted.counter
    match job.kind:
        case "fw.stage" if not mine:
            return desk.Stage(
                wanted.counter, by, job.when.mode, float(job.when.deadline), job.limits.max_bytes, wanted.again
            )
        case "fw.activate" if mine and way is not None and way.state in _READY:
            anew = way.mode != job.when.mode if way.tier > 1 else not way.chosen_by
            if anew:
                window = job.when.mode == "window" and way.tier == 1
                return desk.Activate(wanted.counter, by, window=window, mode=job.when.mode)
        case "fw.cancel" if mine:
            return desk.Cancel(wanted.counter, by)
        case "fw.rollback" if not mine:
            return desk.Rollback(wanted.counter, by)
    return None


def _taking_back(job: Job, way: Way, ending: State) -> desk.Question | None:
    """What the firmware daemon has to be asked until it shows nothing of the job any more."""
    by = f"job {job.id}"
    gives_up = ending in ("CANCELED", "SUPERSEDED") or job.kind == "fw.stage"
    if gives_up and (job.kind != "fw.stage" or way.state not in _READY):
        return desk.Cancel(way.counter, by)
    if job.kind == "fw.activate" and way.tier > 1 and way.mode != "ask":
        return desk.Activate(way.counter, by, mode="ask")
    if job.kind == "fw.activate" and way.tier <= 1 and way.chosen_by == by:
        return desk.Withdraw(way.counter, by)
    return None


def _done(job: Job, wanted: Wanted, now: Shown, mark: str) -> Progress | None:
    """How it ended, as the firmware daemon has it; None while it has not."""
    way, last = now.way, now.last
    mine = way is not None and way.counter == wanted.counter
    if job.kind == "fw.stage" and mine and way is not None and way.state in (*_READY, *_TRYING):
        return Progress("SUCCEEDED", step=way.state, pct=100)
    if mine:
        return None
    if last is not None and last.counter == wanted.counter and last.at != mark:
        canceled = job.kind == "fw.cancel" and last.state == "canceled"
        state = "SUCCEEDED" if canceled else _ENDS.get(str(last.state), "FAILED")
        if job.kind == "fw.cancel" and not canceled:
            return Progress("FAILED", TOO_LATE, detail=last.detail)
        return Progress(state, last.why, str(last.state), by=last.by, detail=last.detail)
    if job.kind in ("fw.stage", "fw.activate", "fw.rollback") and now.running.counter == wanted.counter:
        return Progress("SUCCEEDED", step="running", pct=100)
    if way is not None and way.state in _TRYING:
        return Progress("WAITING", "turn", way.state, detail=f"Release {way.counter} is being tried.")
    return None


def _under_way(way: Way | None) -> Progress:
    if way is None:
        return Progress("RUNNING", step="asked")
    waits = way.why in _WAITS
    if way.state in _READY:
        if way.tier <= 1 and not waits and not way.chosen_window:
            return Progress("RUNNING", step=way.state)
        why = "customer" if way.why in _CHOICES or not waits else way.why
        return Progress("WAITING", "window" if way.chosen_window else why, way.state, by=way.chosen_by)
    state: State = "WAITING" if waits and way.state not in _TRYING else "RUNNING"
    return Progress(state, way.why if state == "WAITING" else "", way.state, by=way.chosen_by, detail=way.detail)
