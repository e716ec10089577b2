"""Who carries a kind out: each job is asked of the daemon concerned, in its own closed words, never done here.

Every question is one that may be repeated: `begin` asks only what the mark and the other daemon's own state say was
not done yet. Arguments are read strictly, and a kind without a desk on this box is refused, not ignored.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.inspect import kept
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.engine_desk import Engine
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.firmware_desk import Firmware
from sekisho.portal_agent.jobs.key_desk import Key
from sekisho.portal_agent.jobs.reboot_desk import Reboot
from sekisho.portal_agent.jobs.runner import Never
from sekisho.portal_agent.jobs.sets_desk import Former, Sets
from sekisho.portal_agent.support.desks import Support

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
        self._sets = sets = Sets(settings)
        self._of: dict[str, Desk] = {
            **dict.fromkeys(("fw.stage", "fw.activate", "fw.cancel", "fw.rollback"), self._firmware),
            **dict.fromkeys(("support.open", "support.close", "diag.collect"), support),
            "sig.update": sets,
            "reboot": Reboot(settings),
            "key.rotate": Key(settings),
            "engine.restart": Engine(settings),
            "sig.rollback": Former(settings),
            "quarantine.release": Quarantine(settings),
        }

    def prepare(self, job: Job) -> str:
        """As `runner.Work`; also what every job may demand of the box.

        Raises:
            NotNow, Never: it may not begin.

        """
        if job.from_counter and self._firmware.running() < job.from_counter:
            raise Never("precondition", f"It is for boxes with release {job.from_counter} or newer.")
        if job.sets_from and self._sets.in_force() < job.sets_from:
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
