"""Carries out the kinds of help: `support.open`, `support.close`, `diag.collect` (as `jobs.runner.Work`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core import desk, utc
from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import PeerError, RejectedInput
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.journal import JournalWriter, newest_lines
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.asking import args_of
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never
from sekisho.portal_agent.support import diagnosis
from sekisho.portal_agent.support.session import MINUTES, Refuse, Session, Sessions, Word
from sekisho.telemetry.events import Diagnosis, decode, encode

USERS: Final = ("sekisho-page",)
LOOKS: Final = 200
"""Reports in one session."""

log = logging.getLogger(__name__)


def socket_of(settings: Settings) -> Path:
    """Where the office's word is heard (`session.Word`); the answer is the `Session`, or null."""
    return settings.jobs_run / "support.sock"


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of support.open."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    minutes: Annotated[int, msgspec.Meta(ge=MINUTES[0], le=MINUTES[1])] = 60


class Closing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of support.close: the job that asked for the session."""

    job: str


class Collecting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of diag.collect."""

    what: Literal["report"] = "report"


class Support:
    """The sessions of one box, and the counter at which the office allows them."""

    def __init__(self, settings: Settings) -> None:
        """Take up what was; serves until the process ends."""
        self._settings = settings
        settings.jobs_state.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._sessions = Sessions(settings.jobs_state / "support.json", boot_id())
        self._writer = JournalWriter(settings.journals / "diagnosis.jsonl")
        self._lock = Lock()
        self._desk = desk.Desk(socket_of(settings), USERS, self._answer)

    def close(self) -> None:
        self._desk.close()
        self._writer.close()

    def prepare(self, job: Job) -> str:
        """Whether it may begin; as `runner.Work`.

        Raises:
            Never: its arguments are wrong, or nobody allowed it.

        """
        match job.kind:
            case "support.open":
                args_of(job, Opening)
            case "support.close":
                args_of(job, Closing)
            case _:
                args_of(job, Collecting)
                if (one := self._newest()) is None or one.state != "open" or one.looks >= LOOKS:
                    raise Never("no_session", "The office has not allowed anyone to look.")
        return ""

    def begin(self, job: Job, mark: str) -> Progress:
        match job.kind:
            case "support.open":
                return self._open(job)
            case "support.close":
                return self._close(job)
            case _:
                return self._collect(job)

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark) if job.kind != "diag.collect" else Progress("SUCCEEDED", pct=100)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        if job.kind == "support.open":
            self._refuse(job.id, f"job {job.id}")
        return "sent" if job.kind == "diag.collect" and self._sent(job.id) else ""

    def _open(self, job: Job) -> Progress:
        wanted = args_of(job, Opening)
        session = Session(job=job.id, reason=wanted.reason, minutes=wanted.minutes)
        try:
            with self._lock:
                one = self._sessions.ask(session, time.monotonic(), utc.now())
        except RejectedInput as err:
            raise Never("busy", str(err)) from err
        match one.state:
            case "asked":
                return Progress("WAITING", "customer", step="asked")
            case "open":
                return Progress("RUNNING", step="open", by=one.by)
            case "refused":
                return Progress("REJECTED", "customer", by=one.by)
        return Progress("SUCCEEDED", step=f"{one.looks} reports", by=one.by, pct=100)

    def _close(self, job: Job) -> Progress:
        self._refuse(args_of(job, Closing).job, f"job {job.id}")
        return Progress("SUCCEEDED", pct=100)

    def _collect(self, job: Job) -> Progress:
        """Counted first, then reported, and once: a kill in between leaves one look too many on the customer's record,
        never one too few. The journal alone says whether a report left.
        """
        with self._lock:
            one = self._sessions.newest(time.monotonic(), utc.now())
            if not self._sent(job.id):
                if one is None or one.state != "open":
                    return Progress("REJECTED", "no_session")
                self._sessions.looked()
                self._writer.append(encode(diagnosis.collect(self._settings, job.id)))
        return Progress("SUCCEEDED", by=one.by if one is not None else "", pct=100)

    def _sent(self, job: str) -> bool:
        """Whether telemetry has the report of this job, or will."""
        for line in newest_lines(self._writer.path):
            if job.encode() in line:
                with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                    event = decode(line)
                    if isinstance(event, Diagnosis) and event.job == job:
                        return True
        return False

    def _refuse(self, job: str, by: str) -> None:
        try:
            with self._lock:
                self._sessions.hear(Refuse(job, by[:64]), time.monotonic(), utc.now())
        except RejectedInput:
            log.info("session %s is over already", job)

    def _newest(self) -> Session | None:
        with self._lock:
            return self._sessions.newest(time.monotonic(), utc.now())

    def _answer(self, question: bytes) -> Iterator[bytes]:
        try:
            word = msgspec.json.decode(question, type=Word)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        with self._lock:
            yield msgspec.json.encode(self._sessions.hear(word, time.monotonic(), utc.now()))


def ask(settings: Settings, word: Word) -> Session | None:
    """What the jobs daemon says to the office's word.

    Raises:
        PeerError: it does not run.
        RejectedInput: it refuses.

    """
    for frame in desk.ask(socket_of(settings), msgspec.json.encode(word)):
        return msgspec.json.decode(frame, type=Session | None)
    raise PeerError("The jobs daemon gave no answer.")
