"""A simulated box that takes jobs of a release, and what becomes of it there: good, or bad in one of four ways.

No socket and no clock of its own: who owns it hands it messages as the broker would, tells it the time, and sends what
it says. It checks a job as a real box does (signed, for this box, in its time), reports a state when it comes to it
and not before, keeps what it could not send, and says the same when it is asked again.
"""

from __future__ import annotations

import random
from typing import Final, Literal

import msgspec

from sekisho.appliance.core import jobs, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import TERMINAL, Job, Operators
from sekisho.telemetry import batches, events
from sekisho.telemetry.batches import Row
from sekisho.telemetry.events import Event, Firmware

Fate = Literal["good", "revert", "dead", "fail", "hang"]
"""revert: a gate fails and it goes back; dead: it is never heard again once it begins to switch; fail: the bundle does
not verify; hang: it stays connected and says nothing more while it tries."""
BAD: Final[tuple[Fate, ...]] = ("revert", "dead", "fail", "hang")
VERSION: Final = "1.4.0"

_State = jobs.State
_Step = tuple[float, _State, str, str]
"""Seconds after the step before, the job's state, its step, and the release's state where that changes."""
_HEARD: Final[list[_Step]] = [(0.5, "RECEIVED", "", ""), (0.5, "ACCEPTED", "", "")]
_FETCH: Final[list[_Step]] = [(1.0, "RUNNING", "downloading", "downloading"), (60.0, "RUNNING", "verified", "verified")]
_SWITCH: Final[list[_Step]] = [
    (5.0, "RUNNING", "armed", "armed"),
    (1.0, "RUNNING", "activating", "activating"),
    (20.0, "RUNNING", "trial", "trial"),
]
_STAGE: Final[list[_Step]] = [*_HEARD, *_FETCH, (10.0, "SUCCEEDED", "staged", "staged")]
_NOT_STAGED: Final = "not_staged"
_ENDS: Final[dict[Fate, list[_Step]]] = {
    "good": [*_SWITCH, (120.0, "SUCCEEDED", "succeeded", "succeeded")],
    "revert": [*_SWITCH, (30.0, "RUNNING", "reverting", ""), (10.0, "REVERTED", "reverted", "reverted")],
    "dead": _SWITCH[:2],
    "fail": [],
    "hang": _SWITCH,
}


class _Job:
    """One job on one box."""

    def __init__(self, job: Job, path: list[_Step], due: float) -> None:
        self.job, self.path, self.due, self.ver = job, path, due, 0
        self.last: events.Job | None = None

    @property
    def over(self) -> bool:
        return self.last is not None and self.last.state in TERMINAL


class Truth(msgspec.Struct, frozen=True):
    """How it really is, whatever anybody has heard."""

    running: int
    """The release in use."""
    state: str
    """Of the job, as reported last; empty: it has none."""
    alive: bool


class JobBox:
    """One box."""

    def __init__(self, tenant: str, name: str, operators: Operators, fate: Fate = "good", running: int = 139) -> None:
        self.tenant, self.name, self.fate = tenant, name, fate
        self.alive = True
        self._operators = operators
        self._running = running
        self._epoch, self._seq = f"{random.getrandbits(64):016x}", 0
        self._jobs: dict[str, _Job] = {}
        self._pace = random.uniform(0.8, 1.2)
        self._canceled: set[str] = set()
        self.hold_at = ""
        """The step at which it stays for ever; empty: none."""
        self.refused = 0
        """Messages that were no job for this box."""

    @property
    def truth(self) -> Truth:
        """The state is that of the job that switches."""
        said = [one.last.state for one in self._jobs.values() if one.last and one.job.kind == "fw.activate"]
        return Truth(self._running, said[-1] if said else "", self.alive)

    @property
    def topic(self) -> str:
        return f"sk/1/{self.tenant}/{self.name}"

    def birth(self) -> tuple[str, bytes]:
        """What it says when it connects: topic and message."""
        said = {"st": "on", "bd": 1, "epoch": self._epoch, "next": self._seq + 1}
        return f"{self.topic}/state", msgspec.json.encode(said)

    def will(self) -> tuple[str, bytes]:
        """What the broker says when it is gone."""
        return f"{self.topic}/state", msgspec.json.encode({"st": "lost", "bd": 1})

    def take(self, envelope: bytes, now: float) -> list[Event]:
        """A message of the jobs' topic; what it says to that at once."""
        if not self.alive:
            return []
        try:
            job = jobs.opened(envelope, self._operators, now)
        except RejectedInput:
            self.refused += 1
            return []
        if self.name not in job.boxes or not job.nbf <= now < job.exp:
            self.refused += 1
            return []
        if job.kind == "job.cancel":
            return self._cancel(job, now)
        if (known := self._jobs.get(job.id)) is not None:
            return [known.last] if known.last else []
        path = list(_STAGE if job.kind == "fw.stage" else _HEARD)
        if job.kind == "fw.stage" and self.fate == "fail":
            path = [*_HEARD, _FETCH[0], (30.0, "FAILED", "failed", "failed")]
        made = self._jobs[job.id] = _Job(job, path, now + path[0][0] * self._pace)
        if job.id in self._canceled:
            made.path = []
            return [self._tell(made, "CANCELED", "", now)]
        return []

    def tick(self, now: float) -> list[Event]:
        """What it has come to by now."""
        said: list[Event] = []
        for one in sorted(self._jobs.values(), key=lambda job: job.job.kind, reverse=True):  # fetching goes first
            while self.alive and one.path and one.due <= now and not self._stays(one):
                _, state, step, firmware = one.path.pop(0)
                at = one.due
                said.append(self._tell(one, state, step, at))
                if firmware:
                    said.append(self._release(one, firmware, at))
                if one.path:
                    one.due += one.path[0][0] * self._pace
                elif self.fate == "dead" and step == "activating":
                    self.alive = False
            said += self._wait(one, now)
        return said

    def _wait(self, one: _Job, now: float) -> list[Event]:
        """A switch begins when the release is on the disk, and says until then what it waits for."""
        if one.job.kind != "fw.activate" or one.path or one.over or one.last is None or one.last.state == "RUNNING":
            return []
        staged = any(
            other.last and other.last.state == "SUCCEEDED"
            for other in self._jobs.values()
            if other.job.kind == "fw.stage"
        )
        if staged:
            one.path, one.due = list(_ENDS[self.fate]), now + 1.0
            return []
        return [] if one.last.why == _NOT_STAGED else [self._tell(one, "WAITING", "", now, _NOT_STAGED)]

    def _stays(self, one: _Job) -> bool:
        return bool(self.hold_at and one.last and one.last.step == self.hold_at)

    def batch(self, said: list[Event]) -> tuple[str, bytes]:
        """These events, all of one lane, as one message: topic and payload."""
        rows = [Row(self._seq + n, one.lane, events.encode(one)) for n, one in enumerate(said, 1)]
        self._seq += len(rows)
        return f"{self.topic}/ev/{said[0].lane}", batches.payload(
            self._epoch, len(rows), batches.encode_lines(rows), packed=False
        )

    def _cancel(self, job: Job, now: float) -> list[Event]:
        self._canceled.add(job.args["job"])
        one = self._jobs.get(job.args["job"])
        if one is None or one.last is None or one.over or one.last.step in ("activating", "trial", "reverting"):
            return []  # unknown, or too late
        one.path = []
        return [self._tell(one, "CANCELED", "", now), self._release(one, "canceled", now)]

    def _tell(self, one: _Job, state: _State, step: str, now: float, why: str = "") -> events.Job:
        one.ver += 1
        if state == "SUCCEEDED" and one.job.kind == "fw.activate":
            self._running = int(one.job.args["counter"])
        why = {"REVERTED": "gate:forwarding", "FAILED": "refused"}.get(state, why)
        one.last = events.Job(
            at=utc.of_unix(now), id=one.job.id, ver=one.ver, state=state, kind=one.job.kind, why=why, step=step,
            rollout=one.job.rollout,
        )  # fmt: skip
        return one.last

    def _release(self, one: _Job, state: str, now: float) -> Firmware:
        why = {"reverted": "gate:forwarding", "failed": "refused"}.get(state, "")
        return Firmware(
            at=utc.of_unix(now), state=state, counter=int(one.job.args["counter"]), version=VERSION, tier=1,  # type: ignore[arg-type]
            running=self._running, why=why, by=f"job {one.job.id}",
        )  # fmt: skip
