"""`key.rotate`: another key and certificate for the box's connection, asked at telemetry's desk, which has the old one.

The mark is the certificate that is to go. Success is told when the centre's broker has taken the new one.
"""

from __future__ import annotations

import msgspec

from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never, NotNow
from sekisho.telemetry import rotation
from sekisho.telemetry.rotation import Rotate, Show, Told, Withdraw


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """key.rotate takes no arguments."""


class Key:
    """The box's identity towards the centre."""

    def __init__(self, settings: Settings) -> None:
        self._socket = rotation.socket_of(settings)

    def prepare(self, job: Job) -> str:
        args_of(job, Nothing)
        found = self._ask(Show())
        if not found.enrolled:
            raise Never("not_enrolled", "This box's certificate was not got with a code; it is replaced by hand.")
        if found.kept.way is not None:
            raise NotNow("turn", "Another key is being replaced.")
        return found.certificate

    def begin(self, job: Job, mark: str) -> Progress:
        found = self._ask(Rotate(job.id, mark))
        for one in found.kept.over:
            if one.job == job.id:
                ends: dict[str, State] = {"succeeded": "SUCCEEDED", "failed": "FAILED", "canceled": "CANCELED"}
                return Progress(ends[one.state], one.why, pct=100 if one.state == "succeeded" else 0)
        if found.kept.way is not None:
            return Progress("RUNNING", step=found.kept.way.state)
        return Progress("SUCCEEDED", step="renewed", pct=100)  # it was its time, meanwhile

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        found = self._ask(Withdraw(job.id))
        way = found.kept.way
        done = any(one.job == job.id and one.state != "canceled" for one in found.kept.over)
        return "too_late" if done or (way is not None and way.job == job.id) else ""

    def _ask(self, question: Show | Rotate | Withdraw) -> Told:
        return msgspec.json.decode(asked(self._socket, question), type=Told)
