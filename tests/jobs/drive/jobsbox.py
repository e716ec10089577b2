"""A box's jobs with real files and keys; who carries them out is a pair of hands that remembers what it did.

Each hand does what the real daemons do: what was asked for twice under one mark is done once. `crash` ends the
process at one of its steps, before it is done, half way, or after.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from signing import LISTED, NOW

from sekisho.appliance.core import orders, told_time
from sekisho.appliance.core import settings as box_settings
from sekisho.appliance.core.envelope import Sealed
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.jobs import MUTATING, TERMINAL, Believed, Job, Operators, State
from sekisho.portal_agent.jobs import book
from sekisho.portal_agent.jobs.facts import Progress
from sekisho.portal_agent.jobs.runner import Jobs
from sekisho.telemetry import events
from sekisho.telemetry.jobs import Inbox


class Died(BaseException):
    """The power is off."""


class Hands:
    """Carries out every kind; what it did is `done`, in order."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.state: Counter[str] = Counter()
        """What marks are made of: it moves with what is done. What may overlap has no state in common."""
        self.outcome: dict[str, Progress] = {}
        """What is said of a job when it is looked at; without a word it succeeded."""
        self.too_late = ""
        self.withdrawn: list[str] = []
        self.unready: Exception | None = None
        self.then: dict[str, Iterator[Progress]] = {}
        """What is said of a job look by look."""
        self.under_way: set[str] = set()
        self.most = 0
        """The most jobs that change the box and were under way at once."""
        self.step: Callable[[str], None] = lambda _: None

    def prepare(self, job: Job) -> str:
        if self.unready is not None:
            raise self.unready
        return str(self.state[_what(job)])

    def begin(self, job: Job, mark: str) -> Progress:
        self.step("begin.before")
        if job.kind in MUTATING:
            self.under_way.add(job.id)
            self.most = max(self.most, len(self.under_way))
        if mark == str(self.state[_what(job)]):
            self.state[_what(job)] += 1
            self.done.append((job.kind, job.id))
        self.step("begin.after")
        return self.look(job, mark)

    def look(self, job: Job, mark: str) -> Progress:
        said = self.outcome.get(job.id) or self.outcome.get("") or Progress("SUCCEEDED", pct=100)
        said = next(self.then[job.id]) if job.id in self.then else said
        if said.state in TERMINAL:
            self.under_way.discard(job.id)
        return said

    def withdraw(self, job: Job, mark: str, ending: State) -> str:
        self.step("withdraw.before")
        if not self.too_late:
            self.withdrawn.append(job.id)
            self.under_way.discard(job.id)
        self.step("withdraw.after")
        return self.too_late


def _what(job: Job) -> str:
    return job.kind if job.kind in MUTATING else job.id


class Box:
    """One box, its inbox, its daemon, and what telemetry reads of it."""

    def __init__(self, root: Path, hands: Hands, *, operators: Operators | None = LISTED) -> None:
        text = (
            f'box = "box-1"\ntenant = "t1"\n[signatures]\nchannel = "https://updates.example"\n'
            f'[paths]\nrun = "{root}/run"\nstate = "{root}/state"\n'
        )
        self.settings = box_settings.parse(text)
        self.root, self.hands = root, hands
        self.mono, self.true = 0.0, float(NOW)
        self.told = True
        self.inbox = Inbox(self.settings.jobs_inbox, clock=lambda: self.mono)
        if operators is not None:
            self.believe(operators)
        self.jobs: Jobs | None = None
        self.start()

    def believe(self, operators: Operators, *, at: float = NOW - 86_400.0, expires: float = NOW + 10.0**8) -> None:
        """What the firmware daemon leaves: signed at `at`."""
        self.settings.operators.parent.mkdir(parents=True, exist_ok=True)
        believed = Believed(operators=operators.operators, expires=expires, at=at)
        write_atomic(self.settings.operators, msgspec.json.encode(believed))

    def ordered(self, true: float, **overlay: object) -> None:
        """The customer's settings as telemetry keeps them, and the centre's word on the time."""
        self.true = true
        told = orders.Orders(1, "t1", "box-1", msgspec.Raw(msgspec.json.encode(overlay)))
        self.settings.orders.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.settings.orders, msgspec.json.encode(Sealed(msgspec.json.encode(told), b"-", b"-")))
        told_time.path_of(self.settings).parent.mkdir(parents=True, exist_ok=True)
        told_time.write(self.settings, true, time.monotonic())

    def start(self) -> None:
        self.jobs = Jobs(
            self.settings, self.hands, clock=lambda: self.mono,
            told=lambda: self.true if self.told else None,
        )  # fmt: skip

    def give(self, envelope: bytes, name: str = "") -> bool:
        """What the broker delivers, by telemetry's way."""
        return self.inbox.take(name or name_of(envelope), envelope)

    def turn(self, times: int = 1, seconds: float = 1.0) -> None:
        for _ in range(times):
            self.mono += seconds
            self.true += seconds
            assert self.jobs is not None
            self.jobs.turn()

    def end(self) -> None:
        """The process is gone, and its files with it."""
        if self.jobs is not None:
            self.jobs.close()
        self.jobs = None

    def restart(self) -> None:
        self.end()
        self.start()

    def told_of(self, ident: str = "") -> list[events.Job]:
        """What telemetry can read, in order."""
        path = self.settings.journals / "jobs.jsonl"
        found = []
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                event = events.decode(line)
            except msgspec.MsgspecError:
                continue
            if isinstance(event, events.Job) and (not ident or event.id == ident):
                found.append(event)
        return found

    def states(self, ident: str) -> list[str]:
        return [f"{one.state}{f'({one.why})' if one.why else ''}" for one in self.told_of(ident) if one.ver]

    def notices(self) -> list[tuple[str, str]]:
        """What was told of messages that are no jobs."""
        return [(one.state, one.why) for one in self.told_of() if not one.ver]

    def kept(self) -> book.Book:
        return book.load(self.settings.jobs_state / "book.json")


def name_of(envelope: bytes) -> str:
    outer: Any = msgspec.json.decode(envelope)
    import base64

    inner: Any = msgspec.json.decode(base64.b64decode(outer["payload"]))
    return str(inner["id"])
