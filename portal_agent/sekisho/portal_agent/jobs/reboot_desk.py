"""`reboot`: asked at the firmware daemon's desk, which puts it before the customer and tells when the box is back.

The mark is the boot that is to be left. Where the box has left it there is nothing to ask for but whether all works,
so no power cut, however it falls, makes two restarts of one job.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.reboot import desk
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never, NotNow

_ENDS: Final[dict[str, State]] = {"succeeded": "SUCCEEDED", "failed": "FAILED", "canceled": "CANCELED"}


class Restarting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """reboot. `reason`: for the customer, who reads it before the choice."""

    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Reboot:
    """The machine of one box."""

    def __init__(self, settings: Settings) -> None:
        self._socket = desk.socket_of(settings)

    def prepare(self, job: Job) -> str:
        args_of(job, Restarting)
        found = self._ask(desk.Show())
        if found.wanted is not None and found.wanted.job != _by(job):
            raise NotNow("turn", "Another restart waits.")
        if not (boot := boot_id()):
            raise Never("fault", "This box does not say which boot it is in.")
        return boot

    def begin(self, job: Job, mark: str) -> Progress:
        reason = args_of(job, Restarting).reason
        return self._progress(job, self._ask(desk.Ask(_by(job), mark, job.when.mode, reason)))

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        found = self._ask(desk.Show())
        if any(one.job == _by(job) for one in found.over):
            return "over"
        if found.wanted is None or found.wanted.job != _by(job):
            return ""
        if found.wanted.state != "waiting":
            return "too_late"
        self._ask(desk.Refuse(_by(job), _by(job)))
        return ""

    def _progress(self, job: Job, found: desk.Shown) -> Progress:
        for one in found.over:
            if one.job == _by(job):
                took = f"{one.took_s:.0f} s without inspected traffic. " if one.took_s >= 0 else ""
                return Progress(_ENDS[one.state], one.why, "back", by=one.by, detail=took + one.detail)
        wanted = found.wanted
        if wanted is None:
            return Progress("FAILED", "lost")
        by = wanted.choice.by if wanted.choice is not None else ""
        if found.begins or wanted.state == "ordered":
            return Progress("RUNNING", step="restarting", by=by)
        if wanted.state == "proving":
            return Progress("RUNNING", step="proving", by=by)
        expected = f"{found.expected_s:.0f} s, by the last {found.measured}" if found.measured else "not measured yet"
        in_window = wanted.choice is not None and wanted.choice.window
        return Progress("WAITING", "window" if in_window else "customer", by=by, detail=f"Interruption: {expected}.")

    def _ask(self, question: desk.Question) -> desk.Shown:
        return msgspec.json.decode(asked(self._socket, question), type=desk.Shown)


def _by(job: Job) -> str:
    return f"job {job.id}"
