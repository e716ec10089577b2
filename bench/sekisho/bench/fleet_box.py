"""One simulated box: what a real one has under way, repeats and forgets. No socket and no clock of its own.

It keeps the promises that a centre can notice: numbers without holes over the lanes of one epoch, rows kept until
the *centre* has acknowledged them, repetition after 15 s doubling to 120 s, at a reconnect, and when the centre
connects anew. Where a real box asks first what has arrived, it repeats unasked, which is harder on the centre.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec

from sekisho.bench import mqtt
from sekisho.bench.mixed_events import LANE_WEIGHTS
from sekisho.telemetry import batches
from sekisho.telemetry.batches import Row
from sekisho.telemetry.delivery import ASK_CAP_S, ASK_S, parse_ack


@dataclass
class Sent:
    """A batch the centre has not acknowledged."""

    lane: int
    first: int
    last: int
    payload: bytes
    made_at: float
    due_at: float
    wait_s: float = ASK_S
    puback: bool = False


class Box:
    """Answers with bytes to write; whoever owns the socket writes them."""

    gone = False
    """It is never heard again."""

    def __init__(self, tenant: str, name: str, birth: int, pools: list[list[bytes]]) -> None:
        self.name = name
        self.begin_anew()
        self.waiting: dict[int, Sent] = {}
        """By message id."""
        self.again = 0
        """Batches that went more than once."""
        self._mid = 0
        self._birth = birth
        self._pools = pools
        self._topic = f"sk/1/{tenant}/{name}"
        self._session = ""

    def begin_anew(self) -> None:
        """A new epoch, as after a spool was replaced; nothing may be under way."""
        self.epoch, self.seq = f"{random.getrandbits(64):016x}", 0

    def hello(self) -> bytes:
        """CONNECT."""
        will = msgspec.json.encode({"st": "lost", "bd": self._birth})
        return mqtt.connect(self.name, 60, f"{self._topic}/state", will)

    def subscribe(self) -> bytes:
        return mqtt.subscribe(self._next_mid(), f"{self._topic}/ack")

    def came(self, payload: bytes, now: float) -> bytes:
        """A message that is no acknowledgement."""
        return b""

    def tick(self, now: float) -> bytes:
        """What it has to say by itself."""
        return b""

    def up(self, now: float) -> bytes:
        """The birth, and whatever waited over the reconnect."""
        birth = msgspec.json.encode({"st": "on", "bd": self._birth, "epoch": self.epoch, "next": self.seq + 1})
        out = mqtt.publish(self._next_mid(), f"{self._topic}/state", birth, retain=True)
        for sent in self.waiting.values():
            sent.due_at = now
        return out + self.repeat(now)

    def batch(self, rows: int, now: float) -> bytes:
        """A new batch of `rows` events of one lane."""
        (lane,) = random.choices(range(3), LANE_WEIGHTS)
        pool = self._pools[lane]
        new = [Row(self.seq + n, lane, pool[(self.seq + n) % len(pool)]) for n in range(1, rows + 1)]
        self.seq += rows
        payload = batches.payload(self.epoch, rows, batches.encode_lines(new), packed=False)
        mid = self._next_mid()
        self.waiting[mid] = Sent(lane, new[0].seq, new[-1].seq, payload, now, now + ASK_S)
        return mqtt.publish(mid, f"{self._topic}/ev/{lane}", payload)

    def repeat(self, now: float) -> bytes:
        """Batches whose acknowledgement is overdue."""
        out = b""
        for mid, sent in self.waiting.items():
            if sent.due_at <= now:
                sent.wait_s = min(sent.wait_s * 2, ASK_CAP_S)
                sent.due_at, sent.puback = now + sent.wait_s, False
                self.again += 1
                out += mqtt.publish(mid, f"{self._topic}/ev/{sent.lane}", sent.payload, again=True)
        return out

    def pubacked(self, mid: int) -> None:
        if mid in self.waiting:
            self.waiting[mid].puback = True

    def acknowledged(self, payload: bytes, now: float) -> list[Sent]:
        """Forget what the centre has; returns that."""
        ack = parse_ack(payload)
        if ack.e != self.epoch:
            return []
        if self._session not in ("", ack.s):
            for sent in self.waiting.values():
                sent.due_at = now if sent.puback else sent.due_at
        self._session = ack.s
        gone = [
            mid
            for mid, sent in self.waiting.items()
            if sent.last <= ack.upto
            or any(lane == sent.lane and first <= sent.first and sent.last <= last for lane, first, last in ack.have)
        ]
        return [self.waiting.pop(mid) for mid in gone]

    def _next_mid(self) -> int:
        while True:
            self._mid = self._mid % 65535 + 1
            if self._mid not in self.waiting:
                return self._mid
