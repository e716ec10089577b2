"""Says for every device and hour what share of its bytes was looked at, and why the rest was not (REQUIREMENTS A10).

`Account` is pure: a reading of the kernel's counters, and which inspectors were away since the last one, become
tallies; at the turn of the hour the tallies become events. `Covering` (in `covering`) is the thread that feeds it.

What the ways of `meter` count as: let go after its handshake, or sealed from the start = opaque; handed to inspectors
that were there = inspected; handed to one that was away, shed by its full queue, or let go by it for its size or for
lack of memory = bypassed, with the reason; handed to nobody = unseen. A doubtful byte counts as the worse of the two:
between the last reading and a start of the daemon an inspector that is away at either end was away all the time, and
what was handed to one since it was last seen there passed when it had ended.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.handed import NONE_SHED, Shed
from sekisho.appliance.meter import RIDERS, SAMPLES, SIDES, Reading
from sekisho.telemetry.events import Coverage, Share

GROUP: Final = "ff:ff:ff:ff:ff:ff"
"""Stands for every group address: frames to all or many devices belong to none."""
STOPPED: Final = "box_stopped"
MAX_WHY: Final = 16
_ENGINE_WAYS: Final = ("both", "engine", "sealed", "around")
_GATE_WAYS: Final = ("gate", "both")
_SEEN_WAYS: Final = ("gate", "both", "engine", "sealed")
_LET_GO: Final = {"large": "too_large", "scarce": "gate_memory"}
"""Why the gate, though there, did not look at what went these ways."""


class Moment(NamedTuple):
    """One instant on both clocks."""

    utc: datetime
    mono: float

    @property
    def text(self) -> str:
        return utc.text(self.utc)

    @property
    def hour(self) -> str:
        return self.utc.astimezone(UTC).strftime("%Y-%m-%dT%H:00:00Z")


class Away(msgspec.Struct, frozen=True):
    """Why each inspector is away, in the watchdog's word; empty while it looks."""

    engine: str = ""
    gate: str = ""

    def worse(self, other: Away) -> Away:
        return Away(self.engine or other.engine, self.gate or other.gate)

    @property
    def reason(self) -> str:
        return self.engine or self.gate


HERE: Final = Away()


class Tally(msgspec.Struct, omit_defaults=True):
    """Bytes of one device in one hour."""

    inspected: int = 0
    opaque: int = 0
    unseen: int = 0
    bypassed: dict[str, int] = {}

    @property
    def total(self) -> int:
        return self.inspected + self.opaque + self.unseen + sum(self.bypassed.values())

    def add(self, way: str, octets: int, away: Away, shed: Shed = NONE_SHED, now: Away = HERE) -> None:
        """Enter bytes that went one way while `away` held and `shed` was shed, until `now` was noticed."""
        if why := _LET_GO.get(way):
            self._bypass(why, octets)
        elif away.engine and way in _ENGINE_WAYS:
            self._bypass(away.engine if away.engine == STOPPED else f"engine_{away.engine}", octets)
        elif away.gate and way in _GATE_WAYS:
            self._bypass(f"gate_{away.gate}", octets)
        elif way in _SEEN_WAYS:
            seen = octets
            if way in _ENGINE_WAYS:
                seen -= self._missed("engine", octets, shed.engine, shed.engine_left, now.engine)
            if way in _GATE_WAYS:
                seen -= self._missed("gate", seen, shed.gate, shed.gate_left, now.gate)
            if way == "sealed":
                self.opaque += seen
            else:
                self.inspected += seen
        elif way == "opaque":
            self.opaque += octets
        else:
            self.unseen += octets

    def _missed(self, part: str, octets: int, shed: float, left: float, why: str) -> int:
        """What an inspector that is said to be there never saw: its queue was full, or it had ended by then."""
        by_queue = round(octets * shed)
        after_end = min(octets - by_queue, round(octets * left))
        self._bypass(f"{part}_overload", by_queue)
        self._bypass(f"{part}_{why}", after_end)
        return by_queue + after_end

    def _bypass(self, why: str, octets: int) -> None:
        if octets:
            why = why if why in self.bypassed or len(self.bypassed) < MAX_WHY else "other"
            self.bypassed[why] = self.bypassed.get(why, 0) + octets

    def take(self, other: Tally) -> None:
        """Add another tally to this one."""
        self.inspected += other.inspected
        self.opaque += other.opaque
        self.unseen += other.unseen
        for why, octets in other.bypassed.items():
            self.bypassed[why] = self.bypassed.get(why, 0) + octets


class Hour(msgspec.Struct):
    """One hour of the whole box."""

    hour: str
    seconds: float = 0.0
    """How much of it was counted; more than 3,600 when the daemon was away over the hour's end."""
    off_seconds: float = 0.0
    devices: dict[str, Tally] = {}


class State(msgspec.Struct):
    """What must survive the daemon: the last reading, and the hour that is not over."""

    reading: Reading
    boot_mono: float
    """Monotonic clock of the last reading; comparable while the reading's epoch is of the same boot."""
    away: Away
    hour: Hour
    stopped: bool = False
    """The daemon ended in order, and the engine with it."""
    pending: list[Coverage] = []
    """Events of the last full hour, until they are reported."""


class Account:
    """The running hour."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.finished: list[Hour] = []

    @classmethod
    def begin(cls, first: Reading, at: Moment, away: Away) -> Account:
        """A new account; what the counters hold at `first` is nobody's."""
        return cls(State(first, at.mono, away, Hour(at.hour)))

    @classmethod
    def resume(cls, saved: State, first: Reading, at: Moment, away: Away) -> Account:
        """Go on after a restart of the daemon; `away` is what it finds."""
        account = cls(saved)
        since = Away(STOPPED) if saved.stopped else saved.away
        saved.stopped = False
        account.read(first, at, since.worse(away), away)
        return account

    def read(self, reading: Reading, at: Moment, since: Away, now: Away, shed: Shed = NONE_SHED) -> None:
        """Enter what was counted since the last reading, while `since` and `shed` held; from here on `now` holds."""
        state = self.state
        same_boot = reading.epoch.split(":")[0] == state.reading.epoch.split(":")[0]
        span = max(0.0, at.mono - (state.boot_mono if same_boot else 0.0))
        state.hour.seconds += span
        if since.reason:
            state.hour.off_seconds += span
        new = _since(reading, state.reading)
        for side in SIDES:
            riders = new.get(RIDERS, {}).get(side, 0)
            shares = split(riders, new.pop(SAMPLES[side], {}))
            if riders and not shares:  # too few to have been sampled: they wait for the next reading
                reading.counts[RIDERS][side] -= riders
            for mac, octets in shares.items():
                self._tally(mac).add("opaque", octets, since)
        new.pop(RIDERS, None)
        for way, devices in new.items():
            for mac, octets in devices.items():
                self._tally(mac).add(way, octets, since, shed, now)
        state.reading, state.boot_mono, state.away = reading, at.mono, now
        if at.hour != state.hour.hour:
            self._turn(at)

    def _tally(self, mac: str) -> Tally:
        owner = GROUP if mac and int(mac[:2], 16) & 1 else mac
        return self.state.hour.devices.setdefault(owner, Tally())

    def _turn(self, at: Moment) -> None:
        done, self.state.hour = self.state.hour, Hour(at.hour)
        self.finished.append(done)
        self.state.pending += events(done, at.text)


def _since(reading: Reading, former: Reading) -> dict[str, dict[str, int]]:
    """What was counted since, where anything was; less than before was forgotten, and counted from nothing again."""
    last = former.counts if reading.epoch == former.epoch else {}
    new: dict[str, dict[str, int]] = {}
    for way, counts in reading.counts.items():
        before = last.get(way, {})
        for key, count in counts.items():
            earlier = before.get(key, 0)
            if octets := count - earlier if count >= earlier else count:
                new.setdefault(way, {})[key] = octets
    return new


def split(octets: int, samples: dict[str, int]) -> dict[str, int]:
    """`octets` divided as the samples are, to the byte; empty without samples."""
    whole = sum(samples.values())
    if not whole:
        return {}
    shares = {mac: octets * sample // whole for mac, sample in samples.items()}
    shares[max(samples, key=lambda mac: samples[mac])] += octets - sum(shares.values())
    return shares


def events(hour: Hour, at: str) -> list[Coverage]:
    """One event for every device that sent or got anything."""
    return [
        Coverage(
            at=at,
            mac=mac,
            hour=hour.hour,
            seconds=round(hour.seconds),
            inspected=tally.inspected,
            opaque=tally.opaque,
            bypassed=[Share(why, octets) for why, octets in sorted(tally.bypassed.items())],
            unseen=tally.unseen,
            off_seconds=round(hour.off_seconds, 1),
        )
        for mac, tally in sorted(hour.devices.items())
        if tally.total
    ]
