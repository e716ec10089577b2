"""Decides, from what the kernel's queues and the gate's heartbeat show, whether to lead traffic around an inspector.

Pure: `handle(observation, now)` returns commands; `observe` is the adapter that reads the two places.
A dead inspector's queue is unbound and the kernel passes (or, failing closed, drops) by itself; a hung one's
queue fills and nothing leaves it: only then are the rules flipped, and only in fail-open mode. Either way
the time is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance.netfilter import GATE_QUEUE, Mode

HUNG_S: Final = 0.4
BEAT_HUNG_S: Final = 0.7
RESTART_HUNG_S: Final = 30.0
RESTART_DEAF_S: Final = 1.0
LASTS_S: Final = (60.0, 600.0)
"""An engine that runs but has let go of its queues (it is ending, perhaps for ever) is not waited for."""
QUEUES_PATH: Final = Path("/proc/net/netfilter/nfnetlink_queue")
MAX_QUEUES_BYTES: Final = 64 << 10

PartName = Literal["engine", "gate"]


class Queue(msgspec.Struct, frozen=True):
    """One bound NFQUEUE."""

    waiting: int
    sequence: int
    dropped: int = 0

    @property
    def done(self) -> int:
        return self.sequence - self.waiting


@dataclass(frozen=True)
class Observation:
    """What one look showed: the bound queues by number, and the gate's last beat on the monotonic clock."""

    queues: dict[int, Queue]
    beat_at: float | None
    engine_runs: bool = False
    """The engine has started and answered: its queues should be bound."""
    first: int = 0
    """The first of the queues that the packets are led to; those of an engine beside it do not count."""


@dataclass(frozen=True)
class SetMode:
    mode: Mode


@dataclass(frozen=True)
class RestartEngine:
    """It hangs, or is deaf, and will not come back by itself."""


@dataclass(frozen=True)
class Report:
    """A bypass began, goes on for `LASTS_S`, or ended; `seconds` is this one's length, `total` all of this part's."""

    part: PartName
    state: Literal["began", "lasts", "ended"]
    reason: str
    seconds: float
    total: float


Command = SetMode | RestartEngine | Report


class Part(msgspec.Struct):
    """One inspector's bypass account; survives the daemon's own restart."""

    name: PartName
    reason: str = ""
    """Empty while it inspects; absent or hung otherwise ("stopped_…" when fail-closed stops the traffic)."""
    since: float = 0.0
    total: float = 0.0
    told: float = 0.0
    """The longest of `LASTS_S` that was reported of the running bypass."""

    def seconds(self, now: float) -> float:
        """All bypass so far, the running one included."""
        return self.total + (max(0.0, now - self.since) if self.reason else 0.0)


class BypassWatchdog:
    """Keeps the account of both inspectors and the rules' mode in step with what is observed."""

    def __init__(self, queues: int, fail_closed: bool, saved: tuple[Part, ...] = ()) -> None:
        accounts = {part.name: part for part in saved}
        self.engine = accounts.get("engine") or Part("engine")
        self.gate = accounts.get("gate") or Part("gate")
        self._queues = queues
        self._closed = fail_closed
        self._last_done: dict[int, int] = {}
        self._stuck_since: dict[int, float] = {}
        self._beatless_since: float | None = None
        self._ill_since: float | None = None
        self.mode = self._wanted()
        self._loaded: Mode | None = self.mode

    def handle(self, seen: Observation, now: float) -> list[Command]:
        """What to do about `seen`; call it about ten times a second."""
        commands: list[Command] = []
        commands += self._account(self.engine, self._engine_reason(seen, now), now)
        commands += self._account(self.gate, self._gate_reason(seen, now), now)
        self.mode = self._wanted()
        if self.mode != self._loaded:
            self._loaded = self.mode
            commands.insert(0, SetMode(self.mode))
        if self._overdue(seen, now):
            commands.append(RestartEngine())
        return commands

    def _overdue(self, seen: Observation, now: float) -> bool:
        """Once per occasion: the engine has had its chance."""
        deaf = self.engine.reason.endswith("absent") and seen.engine_runs
        hung = self.engine.reason.endswith("hung")
        if not (deaf or hung):
            self._ill_since = None
            return False
        self._ill_since = now if self._ill_since is None else self._ill_since
        if now - self._ill_since <= (RESTART_HUNG_S if hung else RESTART_DEAF_S):
            return False
        self._ill_since = float("inf")
        return True

    def retry_mode(self) -> None:
        """The last `SetMode` could not be carried out: ask for it again at the next look."""
        self._loaded = None

    def _engine_reason(self, seen: Observation, now: float) -> str:
        numbers = range(seen.first, seen.first + self._queues)
        if any(number not in seen.queues for number in numbers):
            self._stuck_since.clear()
            return "absent"
        for former in (self._last_done.keys() | self._stuck_since.keys()) - set(numbers):
            self._last_done.pop(former, None)  # of an engine to which nothing is led any more
            self._stuck_since.pop(former, None)
        hung = False
        for number in numbers:
            queue = seen.queues[number]
            moved = queue.done != self._last_done.get(number, queue.done)
            self._last_done[number] = queue.done
            if moved or not queue.waiting:
                self._stuck_since.pop(number, None)
            elif now - self._stuck_since.setdefault(number, now) >= HUNG_S:
                hung = True
        # After a restart of ours the account says hung before we have watched long enough to say so again.
        still = self.engine.reason.endswith("hung") and bool(self._stuck_since)
        return "hung" if hung or still else ""

    def _gate_reason(self, seen: Observation, now: float) -> str:
        if GATE_QUEUE not in seen.queues:
            self._beatless_since = None
            return "absent"
        if seen.beat_at is None:
            self._beatless_since = now if self._beatless_since is None else self._beatless_since
            return "hung" if now - self._beatless_since > BEAT_HUNG_S else ""
        self._beatless_since = None
        return "hung" if now - seen.beat_at > BEAT_HUNG_S else ""

    def _account(self, part: Part, reason: str, now: float) -> list[Command]:
        if reason and self._closed:
            reason = f"stopped_{reason}"
        if reason == part.reason:
            return self._lasting(part, now)
        commands: list[Command] = []
        if part.reason:
            seconds = max(0.0, now - part.since)
            part.total += seconds
            commands.append(Report(part.name, "ended", part.reason, seconds, part.total))
        part.reason, part.since, part.told = reason, now, 0.0
        if reason:
            commands.append(Report(part.name, "began", reason, 0.0, part.total))
        return commands

    @staticmethod
    def _lasting(part: Part, now: float) -> list[Command]:
        """Somebody should hear of it while it goes on, not when it is over."""
        seconds = now - part.since
        reached = [mark for mark in LASTS_S if part.told < mark <= seconds] if part.reason else []
        if not reached:
            return []
        part.told = reached[-1]
        return [Report(part.name, "lasts", part.reason, seconds, part.seconds(now))]

    def _wanted(self) -> Mode:
        return Mode(engine_bypass=self.engine.reason == "hung", gate_bypass=self.gate.reason == "hung")


def observe(beat: Path, queues: Path = QUEUES_PATH, *, engine_runs: bool = False, first: int = 0) -> Observation:
    """Read the kernel's queue table and the gate's heartbeat (8 bytes, monotonic ms)."""
    try:
        with beat.open("rb") as source:
            data = source.read(8)
        beat_at = int.from_bytes(data, "little") / 1000 if len(data) == 8 else None
    except OSError:
        beat_at = None
    with queues.open("rb") as source:
        table = parse_queues(source.read(MAX_QUEUES_BYTES).decode("ascii", "replace"))
    return Observation(table, beat_at, engine_runs, first)


def parse_queues(text: str) -> dict[int, Queue]:
    """The table of /proc/net/netfilter/nfnetlink_queue: number, owner, waiting, …, dropped, dropped, sequence."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 8 and all(field.isdecimal() for field in fields[:8]):
            dropped = int(fields[5]) + int(fields[6])
            found[int(fields[0])] = Queue(int(fields[2]), int(fields[7]), dropped)
    return found
