"""The kinds about rule sets, asked at the signatures daemon's desk, which takes only what the signed channel has.

What is in force is the engine's own word: a set is reached, or left, when the inspectors say so, proven.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec

from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.jobs import Job, State
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.asking import args_of, asked
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Never, NotNow
from sekisho.signatures.keeper import counter, status


class SetWanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sig.update: at least this set; 0: the newest. `again`: also one that was refused before."""

    number: int = 0
    again: bool = False


class Sets:
    """The signatures daemon's counter. It takes only what the signed channel has, whatever a job says."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def in_force(self) -> int:
        """Number of the set the engine works with; 0: not of the channel."""
        return status.look(self._settings).number

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


class Leaving(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """sig.rollback: the set to leave. Where it is not in force there is nothing to go back from."""

    number: Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]


class Former:
    """Back to the set before, whichever that is on this box."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self, job: Job) -> str:
        wanted, found = args_of(job, Leaving), status.look(self._settings)
        if found.keeper is None:
            raise NotNow("daemon", "The signatures daemon does not run.")
        if found.keeper.step in status.CHANGING:
            raise NotNow("turn", "Another set is being tried.")
        if found.number != wanted.number:
            raise Never("not_in_force", f"Set {found.number} is in force, not {wanted.number}.")
        if not found.keeper.former:
            raise Never("no_former", "There is no earlier set to go back to.")
        return ""

    def begin(self, job: Job, mark: str) -> Progress:
        """Ask while it is in force: what was left is not left again."""
        wanted, found = args_of(job, Leaving).number, status.look(self._settings)
        shown = found.keeper
        if shown is None:
            raise PeerError("The signatures daemon does not run.")
        if shown.step in status.CHANGING:
            return Progress("RUNNING", step=shown.step)
        if found.number != wanted:
            left = Progress("SUCCEEDED", step=f"set {found.number}", pct=100)
            return left if found.proven else Progress("RUNNING", step="proving")
        question = counter.Leave(wanted, f"job {job.id}")
        answer = msgspec.json.decode(
            asked(counter.socket_of(self._settings), question), type=counter.Taken | counter.Busy
        )
        if isinstance(answer, counter.Busy):
            return Progress("WAITING", "turn", step="asked", detail=answer.said)
        return Progress("RUNNING", step="asked")

    def look(self, job: Job, mark: str) -> Progress:
        return self.begin(job, mark)

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        found = status.look(self._settings)
        changing = found.keeper is not None and found.keeper.step in status.CHANGING
        return "too_late" if changing or found.number != args_of(job, Leaving).number else ""
