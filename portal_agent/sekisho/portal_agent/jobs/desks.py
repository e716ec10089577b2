"""Who carries a kind out: each job is asked of the daemon concerned, in its own closed words, never done here.

Every question is one that may be repeated: `begin` asks only what the mark and the other daemon's own state say was
not done yet. Arguments are read strictly, and a kind without a desk on this box is refused, not ignored.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.inspect import kept
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.firmware_desk import Firmware
from sekisho.portal_agent.jobs.runner import Never, NotNow
from sekisho.portal_agent.support.desks import Support
from sekisho.signatures.keeper import counter, status

OWN: Final = frozenset({"time.set", "job.cancel"})
"""What the machine does itself."""


class Desk(Protocol):
    """One family of kinds; as `runner.Work`."""

    def prepare(self, job: Job) -> str: ...

    def begin(self, job: Job, mark: str) -> Progress: ...

    def look(self, job: Job, mark: str) -> Progress: ...

    def withdraw(self, job: Job, mark: str, ending: State) -> str: ...


class Desks:
    """All of them on this box."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._firmware = Firmware(settings)
        support = Support(settings)
        self._of: dict[str, Desk] = {
            **dict.fromkeys(("fw.stage", "fw.activate", "fw.cancel", "fw.rollback"), self._firmware),
            **dict.fromkeys(("support.open", "support.close", "diag.collect"), support),
            "sig.update": Sets(settings),
            "quarantine.release": Quarantine(settings),
        }

    def prepare(self, job: Job) -> str:
        """As `runner.Work`; also what every job may demand of the box.

        Raises:
            NotNow, Never: it may not begin.

        """
        if job.from_counter and self._firmware.running() < job.from_counter:
            raise Never("precondition", f"It is for boxes with release {job.from_counter} or newer.")
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

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        return self._of[job.kind].withdraw(job, mark, ending)


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
        asked(counter.socket_of(self._settings), counter.Update(now=wanted.again))
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

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
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
            asked(self._settings.quarantine_socket, kept.Release(wanted.entry, reason))
        return Progress("SUCCEEDED", pct=100)

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        return "released" if self._show(args_of(job, Released).entry).released else ""

    def _show(self, entry: str) -> kept.Entry:
        answer = asked(self._settings.quarantine_socket, kept.Show(entry))
        return msgspec.json.decode(answer, type=kept.Entry)


def _set_in_force(settings: Settings) -> int:
    return status.look(settings).number
