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
_PATH: Final[list[_Step]] = [
    (0.5, "RECEIVED", "", ""),
    (0.5, "ACCEPTED", "", ""),
    (1.0, "RUNNING", "DOWNLOADING", "downloading"),
    (60.0, "RUNNING", "VERIFIED", "verified"),
    (10.0, "RUNNING", "STAGED", "staged"),
    (5.0, "RUNNING", "ARMED", "armed"),
    (1.0, "RUNNING", "ACTIVATING", "activating"),
    (20.0, "RUNNING", "TRIAL", "trial"),
]
_ENDS: Final[dict[Fate, list[_Step]]] = {
    "good": [*_PATH, (120.0, "SUCCEEDED", "", "succeeded")],
    "revert": [*_PATH, (30.0, "RUNNING", "REVERTING", ""), (10.0, "REVERTED", "", "reverted")],
    "dead": _PATH[:7],
    "fail": [*_PATH[:3], (30.0, "FAILED", "", "failed")],
    "hang": _PATH,
}


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
        self._job: Job | None = None
        self._path: list[_Step] = []
        self._due = 0.0
        self._ver = 0
        self._last: events.Job | None = None
        self._pace = random.uniform(0.8, 1.2)
        self._canceled: set[str] = set()
        self.hold_at = ""
        """The step at which it stays for ever; empty: none."""
        self.refused = 0
        """Messages that were no job for this box."""

    @property
    def truth(self) -> Truth:
        return Truth(self._running, self._last.state if self._last else "", self.alive)

    @property
    def _stays(self) -> bool:
        return bool(self.hold_at and self._last and self._last.step == self.hold_at)

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
        if self._job is not None and self._job.id == job.id:
            return [self._last] if self._last else []
        if self._job is not None and self._last is not None and self._last.state not in TERMINAL:
            self.refused += 1  # one at a time
            return []
        self._job, self._path, self._ver = job, list(_ENDS[self.fate]), 0
        self._due = now + self._path[0][0] * self._pace
        if job.id in self._canceled:
            self._path = []
            return [self._tell("CANCELED", "", now)]
        return []

    def tick(self, now: float) -> list[Event]:
        """What it has come to by now."""
        said: list[Event] = []
        while self.alive and self._path and self._due <= now and not self._stays:
            _, state, step, firmware = self._path.pop(0)
            at = self._due
            said.append(self._tell(state, step, at))
            if firmware:
                said.append(self._release(firmware, at))
            if self._path:
                self._due += self._path[0][0] * self._pace
            elif self.fate == "dead":
                self.alive = False
        return said

    def batch(self, said: list[Event]) -> tuple[str, bytes]:
        """These events, all of one lane, as one message: topic and payload."""
        rows = [Row(self._seq + n, one.lane, events.encode(one)) for n, one in enumerate(said, 1)]
        self._seq += len(rows)
        return f"{self.topic}/ev/{said[0].lane}", batches.payload(
            self._epoch, len(rows), batches.encode_lines(rows), packed=False
        )

    def _cancel(self, job: Job, now: float) -> list[Event]:
        self._canceled.add(job.args["job"])
        if self._job is None or self._job.id != job.args["job"] or self._last is None:
            return []
        if self._last.state in TERMINAL or self._last.step in ("ACTIVATING", "TRIAL", "REVERTING"):
            return []  # too late
        self._path = []
        return [self._tell("CANCELED", "", now), self._release("canceled", now)]

    def _tell(self, state: _State, step: str, now: float) -> events.Job:
        job = self._mine()
        self._ver += 1
        if state == "SUCCEEDED":
            self._running = int(job.args["counter"])
        why = {"REVERTED": "gate:forwarding", "FAILED": "refused"}.get(state, "")
        self._last = events.Job(
            at=utc.of_unix(now), id=job.id, ver=self._ver, state=state, kind=job.kind, why=why, step=step,
            rollout=job.rollout,
        )  # fmt: skip
        return self._last

    def _release(self, state: str, now: float) -> Firmware:
        job = self._mine()
        why = {"reverted": "gate:forwarding", "failed": "refused"}.get(state, "")
        return Firmware(
            at=utc.of_unix(now), state=state, counter=int(job.args["counter"]), version=VERSION, tier=1,  # type: ignore[arg-type]
            running=self._running, why=why, by=f"job {job.id}",
        )  # fmt: skip

    def _mine(self) -> Job:
        if self._job is None:
            raise ValueError("it has no job")
        return self._job
