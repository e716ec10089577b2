"""Simulated boxes that take jobs over a real broker: of `fleet` the connection, of `fleet_jobs` what becomes of a job.

Their time goes faster than the clock: a release that takes minutes is over in seconds.
"""

from __future__ import annotations

import time

from sekisho.appliance.core.jobs import Operators
from sekisho.bench import mqtt
from sekisho.bench.fleet import TENANT
from sekisho.bench.fleet_box import Box, Sent
from sekisho.bench.fleet_jobs import JobBox
from sekisho.telemetry import batches, events
from sekisho.telemetry.batches import Row
from sekisho.telemetry.delivery import ASK_S
from sekisho.telemetry.events import Event


class Pace:
    """A clock that goes `speed` times as fast."""

    def __init__(self, speed: float) -> None:
        self._begin, self._speed = time.time(), speed

    def now(self) -> float:
        """Unix seconds."""
        return self._begin + (time.time() - self._begin) * self._speed


class Member(Box):
    """One box. `did` is how it really is, `said` what it reported of jobs, in order."""

    def __init__(self, name: str, operators: Operators, pace: Pace) -> None:
        super().__init__(TENANT, name, int(time.time()), [])
        self.did = JobBox(TENANT, name, operators)
        self.said: list[str] = []
        self._pace = pace

    def subscribe(self) -> bytes:
        return mqtt.subscribe(self._next_mid(), f"{self.did.topic}/ack", f"{self.did.topic}/jobs/+")

    def came(self, payload: bytes, now: float) -> bytes:
        return self._say(self.did.take(payload, self._pace.now()), now)

    def tick(self, now: float) -> bytes:
        if self.gone:
            return b""
        out = self._say(self.did.tick(self._pace.now()), now)
        self.gone = not self.did.alive
        return out

    def _say(self, told: list[Event], now: float) -> bytes:
        """All of one lane."""
        if not told:
            return b""
        jobs = [one for one in told if isinstance(one, events.Job)]
        self.said += [one.state if one.kind == "fw.activate" else f"fetch {one.state}" for one in jobs]
        rows = [Row(self.seq + n, one.lane, events.encode(one)) for n, one in enumerate(told, 1)]
        self.seq += len(rows)
        payload = batches.payload(self.epoch, len(rows), batches.encode_lines(rows), packed=False)
        mid, lane = self._next_mid(), told[0].lane
        self.waiting[mid] = Sent(lane, rows[0].seq, rows[-1].seq, payload, now, now + ASK_S)
        return mqtt.publish(mid, f"{self.did.topic}/ev/{lane}", payload)
