"""`engine.restart`: another engine beside the one that works, then in its place (firmware-switch.md).

Packets pass meanwhile, inspected. Where there is no room for two it fails, or (`restart` = "yes") waits for the weekly
window that the customer keeps for restarts, or follows the contract where the job says `asap`: a restart inspects
nothing for some seconds.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sekisho.appliance import engine_desk
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.engine_desk import Renew, Show, Told
from sekisho.firmware.keeper import windows
from sekisho.firmware.keeper.ordered import Ordered
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import NotNow


class Renewing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """engine.restart. `restart`: also by ending the engine first, where there is no room for two."""

    restart: Literal["no", "yes"] = "no"


class Engine:
    """The inspection engine of one box."""

    def __init__(self, settings: Settings) -> None:
        self._socket = engine_desk.socket_of(settings)
        self._ordered = Ordered(settings)

    def prepare(self, job: Job) -> str:
        """As `runner.Work`. The mark is the engine that is to go: where it works no more, that was done."""
        args_of(job, Renewing)
        found = self._ask(Show())
        if found.busy or not found.engine:
            raise NotNow("turn", "The engine is changing already.")
        return found.engine

    def begin(self, job: Job, mark: str) -> Progress:
        by_end = f"{job.id} restart"
        found = self._ask(Show(by_end))
        if found.engine != mark:
            return Progress("SUCCEEDED", step="renewed", pct=100) if found.well else Progress("RUNNING", step="proving")
        if found.busy:
            return Progress("RUNNING", step="renewing")
        if found.over:
            return Progress("FAILED", "engine", detail=found.why)
        found = self._ask(Show(job.id))
        if not found.over:
            found = self._ask(Renew(job.id, mark))
            return Progress("RUNNING", step="renewing")
        if not found.scarce:
            return Progress("FAILED", "engine", detail=found.why)
        if args_of(job, Renewing).restart != "yes":
            return Progress("FAILED", "memory", detail=found.why)
        if not self._allowed(job):
            return Progress("WAITING", "window", detail=found.why)
        self._ask(Renew(by_end, mark, may_restart=True))
        return Progress("RUNNING", step="restarting")

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        found = self._ask(Show(job.id))
        return "too_late" if found.engine != mark or (found.busy and not found.over) else ""

    def _allowed(self, job: Job) -> bool:
        wanted, (now, sure) = self._ordered.orders(), self._ordered.now()
        if job.when.mode == "asap" and wanted.firmware_asap:
            return True
        return sure and job.when.mode != "ask" and windows.open_until(wanted.restart, wanted.zone, now) > 0

    def _ask(self, question: Show | Renew) -> Told:
        return msgspec.json.decode(asked(self._socket, question), type=Told)
