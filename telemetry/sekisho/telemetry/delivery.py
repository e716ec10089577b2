"""Which rows go to the broker next, which go again, and when: the sender's decisions, without a socket.

A batch is a run of one lane: (lane, first, last), all rows of that lane between two numbers. It stays
in the window until the *centre* has acknowledged it; the broker's PUBACK only says that the MQTT
client no longer repeats the batch by itself. Repeating is for what is known to be lost: the box asks
(a birth with a nonce), and the centre's answer comes after its word about all that the broker had
before the question. What is not acknowledged by then never arrived, and goes again. The lowest lane
number always goes first. All times are monotonic seconds given by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry import batches
from sekisho.telemetry.blocks import Load
from sekisho.telemetry.events import LANES
from sekisho.telemetry.spool import Spool

WINDOW_BATCHES: Final = 64
WINDOW_BYTES: Final = 1 << 20
METADATA_SHARE: Final = 4
"""The last lane has a quarter of the window: an alert does not queue behind a week's backlog on its way."""
ANSWER_S: Final = 10.0
"""How long the centre's answer is waited for after a connection before rows go to a broker that must keep them."""
SETTLE_S: Final = 0.5
"""How long acknowledgements are gathered before the rows go: a deletion costs the flash as much as an event."""
ASK_S: Final = 15.0
"""How long a batch may stay unacknowledged before the box asks; twice as long after each try."""
ASK_CAP_S: Final = 120.0
UNASKED_S: Final = 600.0
"""A broker that carries events and no questions: after this a batch goes again without an answer."""
QUESTIONS: Final = 8
"""As many of the last questions may still be answered."""
ACK_CAP_BYTES: Final = 32 << 10
ACK_RUNS: Final = 256


class Ack(msgspec.Struct, frozen=True):
    """What the centre has of one epoch: everything to `upto`, and whole runs (lane, first, last) beyond."""

    e: str
    upto: int = 0
    have: list[tuple[int, int, int]] = []
    s: str = ""
    """Changes when the centre connects anew: what was under way to it may be lost."""
    g: int = 0
    """Generation of the centre's store; grows when it was restored from a backup."""
    t: int = 0
    """The centre's unix time in milliseconds, in a fresh answer to a birth; 0 elsewhere."""
    n: str = ""
    """The nonce of the birth that was answered."""


_decode_ack = msgspec.json.Decoder(Ack).decode


def parse_ack(payload: bytes) -> Ack:
    """The centre's acknowledgement.

    Raises:
        RejectedInput: too large, malformed, or numbers that no spool has.

    """
    try:
        if len(payload) > ACK_CAP_BYTES:
            raise ValueError("too large")
        ack = _decode_ack(payload)
        if len(ack.have) > ACK_RUNS or not all(
            0 <= n < 1 << 62 for run in (*ack.have, (ack.upto, ack.g, ack.t)) for n in run
        ):
            raise ValueError("out of range")
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise RejectedInput(f"An acknowledgement was refused: {err}.") from err
    return ack


@dataclass
class Batch:
    """A run of one lane that is on its way."""

    lane: int
    first: int
    last: int
    size: int
    sent_at: float
    asked: int = -1
    """How many questions had gone out when the broker had it; -1 while the MQTT client still repeats it."""
    lost: bool = False
    """The centre has answered a later question and does not have it."""
    wait_s: float = ASK_S
    """How long it may stay unacknowledged before the box asks; doubles each time it goes again."""


@dataclass(frozen=True)
class Publish:
    """Hand this payload to the MQTT client, then tell `sent` the message id it got."""

    batch: Batch
    payload: bytes


class Delivery:
    """The window of one connection after another; rebuilt from the spool at every start."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self.reached = [0] * LANES
        """Of each lane, the number to which rows have been handed to the MQTT client."""
        self._window: list[Batch] = []
        self._by_mid: dict[int, Batch] = {}
        self._quiet_until = 0.0
        self._acks: list[Ack] = []
        self._settle_at = 0.0
        self._session = ""
        self._answer: Ack | None = None
        self._suspicious = False
        self._questions: dict[str, int] = {}
        self._asked = self._answered = 0
        self._ask_now = False
        self._ask_at, self._ask_wait_s = 0.0, ASK_S
        self.connected = False

    def online(self, now: float) -> None:
        """Connected and subscribed: the centre's answer is waited for, `ANSWER_S` at most."""
        self.connected = True
        self._quiet_until = now + ANSWER_S
        self._ask_now = True

    def offline(self) -> None:
        self.connected = False

    def wants_answer(self, now: float) -> bool:
        """Whether the centre must be asked what it has: something has been under way for too long."""
        late = now >= self._ask_at and any(now >= batch.sent_at + batch.wait_s for batch in self._confirmed())
        return self.connected and (self._ask_now or late)

    def asked(self, nonce: str, now: float) -> None:
        """A birth with this nonce goes to the broker now, after all that has been published so far."""
        self._asked += 1
        self._questions[nonce] = self._asked
        while len(self._questions) > QUESTIONS:
            del self._questions[next(iter(self._questions))]
        self._ask_now = False
        self._ask_at = now + self._ask_wait_s
        self._ask_wait_s = min(2 * self._ask_wait_s, ASK_CAP_S)

    def pubacked(self, mid: int) -> None:
        batch = self._by_mid.pop(mid, None)
        if batch:
            batch.asked = self._asked

    def sent(self, publish: Publish, mid: int) -> None:
        self._by_mid[mid] = publish.batch

    def acknowledged(self, ack: Ack, now: float) -> None:
        """Note what the centre has, for `settle`. Another epoch's acknowledgement changes nothing."""
        if ack.e != self._epoch:
            return
        if not self._acks:
            self._settle_at = now + SETTLE_S
        self._acks.append(ack)
        if self._session not in ("", ack.s):
            self._ask_now = True
        self._session = ack.s
        if ack.n in self._questions:
            self._answered = max(self._answered, self._questions.pop(ack.n))
            self._ask_at, self._ask_wait_s = 0.0, ASK_S
            self._quiet_until = 0.0
            # Settled before anything goes: what the answer names must not go again.
            self._settle_at, self._answer = 0.0, ack

    def settle(self, now: float, spool: Spool) -> None:
        """Forget what the centre has, several acknowledgements in one transaction (a lost one costs a repetition).

        Raises:
            DeviceFault: the spool refused; the rows stay and go again later.

        """
        if not self._acks or (now < self._settle_at and not self._full(LANES - 1)):
            return
        self._settle_at = now + SETTLE_S
        if lost := self._lost(spool):
            spool.resend(lost.g, lost.upto)
            self._window, self.reached = [], [0] * LANES
        # What a store said that has been replaced by its backup is not true any more.
        acks = [ack for ack in self._acks if ack.g == spool.generation]
        if acks:
            spool.acknowledge(max(ack.upto for ack in acks), [run for ack in acks for run in ack.have])
        self._acks = []
        self._window = [b for b in self._window if spool.holds(b.lane, b.first, b.last)]
        for batch in self._confirmed():
            batch.lost |= batch.asked < self._answered

    def _lost(self, spool: Spool) -> Ack | None:
        """What a centre says that has lost rows it had: it was restored, which it says by its generation.

        A higher generation is believed at once; replayed, it is not higher any more. A lower one, or a store that was
        put back by hand, shows in the answers to our own questions only: in two, for several workers of a centre may
        overtake each other.
        """
        newest = max(self._acks, key=lambda ack: ack.g)
        answer, self._answer = self._answer, None
        if newest.g > spool.generation:
            return newest
        if answer is None:
            return None
        behind = answer.g != spool.generation or answer.upto < spool.had or spool.keeps(answer.upto + 1)
        again, self._suspicious = self._suspicious, behind and not self._suspicious
        self._ask_now |= self._suspicious
        return answer if behind and again else None

    def next(self, now: float, spool: Spool) -> Publish | None:
        """The next batch to publish, or None while there is nothing to do or the window is full."""
        if not self.connected or now < self._quiet_until:
            return None
        return self._again(now, spool) or self._fresh(now, spool)

    def _again(self, now: float, spool: Spool) -> Publish | None:
        for batch in list(self._confirmed()):
            if not batch.lost and now < batch.sent_at + UNASKED_S:
                continue
            self._window.remove(batch)
            load = spool.next_load(batch.lane, batch.first - 1, batch.last)
            if load:
                if load.last < batch.last:
                    self._window.append(replace(batch, first=load.last + 1, lost=True))
                return self._publish(load, now, spool, min(2 * batch.wait_s, ASK_CAP_S))
        return None

    def _fresh(self, now: float, spool: Spool) -> Publish | None:
        for lane in range(LANES):
            if self._full(lane):
                continue
            reached, again = self.reached[lane], spool.again[lane]
            load = spool.next_load(lane, reached, again) if reached < again else None
            load = load or spool.next_load(lane, reached)
            if load and spool.clocks.off(load.clock) is not None:
                self.reached[lane] = load.last
                return self._publish(load, now, spool)
        return None

    def _publish(self, load: Load, now: float, spool: Spool, wait_s: float = ASK_S) -> Publish:
        off = spool.clocks.off(load.clock) or 0.0
        payload = batches.payload(
            self._epoch, load.count, load.lines, packed=load.packed, off=off, again=load.last <= spool.again[load.lane]
        )
        batch = Batch(load.lane, load.first, load.last, len(payload), now, wait_s=wait_s)
        self._window.append(batch)
        return Publish(batch, payload)

    def _confirmed(self) -> Iterator[Batch]:
        """Batches whose repetition is our business."""
        return (batch for batch in self._window if batch.asked >= 0)

    def _full(self, lane: int) -> bool:
        share = METADATA_SHARE if lane == LANES - 1 else 1
        size = sum(batch.size for batch in self._window)
        return len(self._window) >= WINDOW_BATCHES // share or size >= WINDOW_BYTES // share
