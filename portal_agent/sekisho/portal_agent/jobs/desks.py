"""Who carries a kind out: each job is asked of the daemon concerned, in its own closed words, never done here.

Every question is one that may be repeated: `begin` asks only what the mark and the other daemon's own state say was
not done yet. Arguments are read strictly, and a kind without a desk on this box is refused, not ignored.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from sekisho.appliance.core.desk import ask
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.jobs import Job
from sekisho.appliance.core.settings import Settings
from sekisho.inspect import kept
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never, NotNow
from sekisho.signatures.keeper import counter, status

T = TypeVar("T")
OWN: Final = frozenset({"time.set", "job.cancel"})
"""What the machine does itself."""


class Desk(Protocol):
    """One family of kinds; as `runner.Work`."""

    def prepare(self, job: Job) -> str: ...

    def begin(self, job: Job, mark: str) -> Progress: ...

    def look(self, job: Job, mark: str) -> Progress: ...

    def withdraw(self, job: Job, mark: str) -> str: ...


class Desks:
    """All of them on this box."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._of: dict[str, Desk] = {
            "sig.update": Sets(settings),
            "quarantine.release": Quarantine(settings),
        }

    def prepare(self, job: Job) -> str:
        """As `runner.Work`; also what every job may demand of the box.

        Raises:
            NotNow, Never: it may not begin.

        """
        if job.sets_from and _set_in_force(self._settings) < job.sets_from:
            raise Never("precondition", f"It is for boxes with rule set {job.sets_from} or newer.")
        if job.kind in OWN:
            return ""
        desk = self._of.get(job.kind)
        if desk is None:
            raise Never("not_supported", f"This box cannot do {job.kind}.")
        return desk.prepare(job)

    def begin(self, job: Job, mark: str) -> Progress:
        return self._of[job.kind].begin(job, mark)

    def look(self, job: Job, mark: str) -> Progress:
        return self._of[job.kind].look(job, mark)

    def withdraw(self, job: Job, mark: str) -> str:
        return self._of[job.kind].withdraw(job, mark)


def args_of(job: Job, kind: type[T]) -> T:
    """The arguments, read strictly.

    Raises:
        Never: they are not what this kind takes.

    """
    try:
        return msgspec.convert(job.args, kind, strict=False)
    except msgspec.ValidationError as err:
        raise Never("args", str(err)) from err


class SetWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sig.update: at least this set; 0: the newest. `again`: also one that was refused before."""

    number: int = 0
    again: bool = False


class Sets:
    """The signatures daemon's counter. It takes only what the signed channel has, whatever a job says."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, job: Job) -> str:
        args_of(job, SetWanted)
        if not self._settings.signatures.channel:
            raise Never("no_channel", "This box has no channel for rule sets.")
        found = counter.try_read(self._settings, time.monotonic())
        if found is None:
            raise NotNow("daemon", "The signatures daemon does not run.")
        return f"{found.number} {found.checked}"

    def begin(self, job: Job, mark: str) -> Progress:
        wanted = args_of(job, SetWanted)
        if (done := self._there(wanted, mark)) is not None:
            return done
        _ask(counter.socket_of(self._settings), counter.Update(now=wanted.again))
        return Progress("RUNNING", step="asked")

    def look(self, job: Job, mark: str) -> Progress:
        wanted = args_of(job, SetWanted)
        if (done := self._there(wanted, mark)) is not None:
            return done
        found = counter.try_read(self._settings, time.monotonic())
        if found is None:
            raise PeerError("The signatures daemon does not run.")
        refused = found.refused.get(wanted.number) if wanted.number else None
        if refused is not None:
            return Progress("FAILED", "refused", detail=refused)
        if found.step == "idle":
            return Progress("WAITING", "network", step=found.step, detail=found.last)
        return Progress("RUNNING", step=found.step, detail=found.waits)

    def withdraw(self, job: Job, mark: str) -> str:
        """A set on its way is the channel's, and would come without the job: asking for it is taken back."""
        return ""

    def _there(self, wanted: SetWanted, mark: str) -> Progress | None:
        """In force by the engine's own word, at least what was wanted, and looked for since the mark."""
        found = status.look(self._settings)
        shown = found.keeper
        if shown is None or shown.step in status.CHANGING:
            return None
        asked = f"{shown.number} {shown.checked}" != mark
        enough = found.number >= wanted.number if wanted.number else asked and shown.step == "idle"
        return Progress("SUCCEEDED", step=f"set {found.number}", pct=100) if found.proven and enough else None


class Released(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """quarantine.release."""

    entry: kept.Ident
    reason: str


class Quarantine:
    """The inspector's counter: a release is noted, content goes nowhere by a job."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, job: Job) -> str:
        wanted = args_of(job, Released)
        if not wanted.reason.strip():
            raise Never("args", "A release needs a reason.")
        self._show(wanted.entry)
        return ""

    def begin(self, job: Job, mark: str) -> Progress:
        wanted = args_of(job, Released)
        if not self._show(wanted.entry).released:
            reason = f"job {job.id}: {wanted.reason.strip()}"[: kept.REASON_CAP]
            _ask(self._settings.quarantine_socket, kept.Release(wanted.entry, reason))
        return Progress("SUCCEEDED", pct=100)

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str) -> str:
        return "released" if self._show(args_of(job, Released).entry).released else ""

    def _show(self, entry: str) -> kept.Entry:
        answer = _ask(self._settings.quarantine_socket, kept.Show(entry))
        return msgspec.json.decode(answer, type=kept.Entry)


def _ask(socket: Path, question: msgspec.Struct) -> bytes:
    """The first frame of a daemon's answer.

    Raises:
        PeerError: it does not run, or does not answer.
        RejectedInput: it refuses.

    """
    for frame in ask(socket, msgspec.json.encode(question)):
        return frame
    raise PeerError(f"{socket.name} gave no answer.")


def _set_in_force(settings: Settings) -> int:
    return status.look(settings).number
