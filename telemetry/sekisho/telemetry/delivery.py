"""Which rows go to the broker next, which go again, and when: the sender's decisions, without a socket.

A batch is a run of one lane: (lane, first, last), all rows of that lane between two numbers. It stays
in the window until the *centre* has acknowledged it; the broker's PUBACK only says that the MQTT
client no longer repeats the batch by itself, so that repeating it becomes our business. The lowest
lane number always goes first. All times are monotonic seconds given by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.telemetry.events import LANES
from sekisho.telemetry.spool import Row, Spool

BATCH_BYTES: Final = 128 << 10
BATCH_ROWS: Final = 1000
WINDOW_BATCHES: Final = 64
WINDOW_BYTES: Final = 1 << 20
RETAINED_S: Final = 2.0
"""How long the retained acknowledgement is waited for after a connection."""
SETTLE_S: Final = 0.5
"""How long acknowledgements are gathered before the rows go: a deletion costs the flash as much as an event."""
RESEND_S: Final = 15.0
RESEND_CAP_S: Final = 120.0
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
    puback: bool = False
    wait_s: float = RESEND_S


@dataclass(frozen=True)
class Publish:
    """Hand this payload to the MQTT client, then tell `sent` the message id it got."""

    batch: Batch
    payload: bytes


class Delivery:
    """The window of one connection after another; rebuilt from the spool at every start."""

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._cursor = [0] * LANES
        self._window: list[Batch] = []
        self._by_mid: dict[int, Batch] = {}
        self._retained_at = 0.0
        self._acks: list[Ack] = []
        self._settle_at = 0.0
        self._session = ""
        self.connected = False

    def online(self, now: float) -> None:
        """Connected and subscribed: the retained acknowledgement is waited for, `RETAINED_S` at most."""
        self.connected = True
        self._retained_at = now + RETAINED_S
        self._repeat_all()

    def offline(self) -> None:
        self.connected = False

    def pubacked(self, mid: int) -> None:
        batch = self._by_mid.pop(mid, None)
        if batch:
            batch.puback = True

    def sent(self, publish: Publish, mid: int) -> None:
        self._by_mid[mid] = publish.batch

    def acknowledged(self, ack: Ack, now: float) -> None:
        """Note what the centre has, for `settle`. Another epoch's acknowledgement changes nothing."""
        self._retained_at = 0.0
        if ack.e != self._epoch:
            return
        if not self._acks:
            self._settle_at = now + SETTLE_S
        self._acks.append(ack)
        if self._session not in ("", ack.s):
            self._repeat_all()
        self._session = ack.s

    def settle(self, now: float, spool: Spool) -> None:
        """Forget what the centre has, several acknowledgements in one transaction (a lost one costs a repetition).

        Raises:
            DeviceFault: the spool refused; the rows stay and go again later.

        """
        if not self._acks or (now < self._settle_at and not self._full()):
            return
        self._settle_at = now + SETTLE_S
        spool.acknowledge(max(ack.upto for ack in self._acks), [run for ack in self._acks for run in ack.have])
        self._acks = []
        self._window = [b for b in self._window if spool.holds(b.lane, b.first, b.last)]

    def next(self, now: float, spool: Spool) -> Publish | None:
        """The next batch to publish, or None while there is nothing to do or the window is full."""
        if not self.connected or now < self._retained_at:
            return None
        return self._again(now, spool) or self._fresh(now, spool)

    def _again(self, now: float, spool: Spool) -> Publish | None:
        for batch in list(self._window):
            if not batch.puback or now < batch.sent_at + batch.wait_s:
                continue
            rows = spool.take(batch.lane, batch.first - 1, batch.last, BATCH_ROWS, BATCH_BYTES)
            if not rows:
                self._window.remove(batch)
                continue
            batch.sent_at, batch.puback = now, False
            batch.wait_s = min(max(batch.wait_s, RESEND_S / 2) * 2, RESEND_CAP_S)
            return Publish(batch, encode_batch(self._epoch, rows))
        return None

    def _fresh(self, now: float, spool: Spool) -> Publish | None:
        if self._full():
            return None
        for lane in range(LANES):
            rows = spool.take(lane, self._cursor[lane], None, BATCH_ROWS, BATCH_BYTES)
            if rows:
                payload = encode_batch(self._epoch, rows)
                batch = Batch(lane, rows[0].seq, rows[-1].seq, len(payload), now)
                self._cursor[lane] = batch.last
                self._window.append(batch)
                return Publish(batch, payload)
        return None

    def _full(self) -> bool:
        return len(self._window) >= WINDOW_BATCHES or sum(b.size for b in self._window) >= WINDOW_BYTES

    def _repeat_all(self) -> None:
        """What the MQTT client no longer holds is due at once; what it holds it repeats by itself."""
        for batch in self._window:
            if batch.puback:
                batch.wait_s = 0.0


def encode_batch(epoch: str, rows: list[Row]) -> bytes:
    """Header line, then one line `[seq,lane,event]` per row."""
    lines = [b'{"v":1,"e":"%s","n":%d}' % (epoch.encode(), len(rows))]
    lines += [b"[%d,%d,%s]" % (row.seq, row.lane, row.body) for row in rows]
    return b"\n".join(lines) + b"\n"
