"""Whatever the network and the scanners do to the order of things, three promises of the gate hold.

Each schedule is made from its seed alone: segments cut, repeated and put out of order; the engine's word, looks
and verdicts at any moment. The object is never delivered whole before a verdict covered all of it; after clean
verdicts nothing waits; what was spooled is what was sent.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from drygate import ACK, FIN, DryGate, Talk, dry

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Kind, Note

ROUNDS = 60


@dataclass
class Office:
    """One connection, its receiver, and a daemon that answers when the schedule lets it."""

    seed: int
    gate: DryGate
    random: random.Random
    talk: Talk
    sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Packet -> the range of the object that it carries."""
    waiting: list[Note] = field(default_factory=list)
    pending: int = 0
    judged: int = 0
    asked: bool = False
    """The gate saw the request, and with it where the answer begins."""
    base: int = 0
    """Offset of the object in its connection."""

    def delivered(self) -> int:
        return prefix([r for ident, r in self.sent.items() if self.gate.passed(ident)])

    def begins(self) -> int:
        """Where the spool begins in the object, as far as the gate can know."""
        return 0 if self.asked else min(start for start, _ in self.sent.values())

    def answer(self, data: bytes, note: Note) -> None:
        """The scan of one note ends, and is clean."""
        fd, length = self.gate.gate.spool(note.flow, note.dir)
        if fd >= 0:
            spool = Path(f"/proc/self/fd/{fd}").read_bytes()[:length]
            assert spool == data[self.begins() : self.begins() + length], (
                f"seed {self.seed}: the spool is not what was sent"
            )
        if note.kind is Kind.DEEP:
            self.gate.gate.expect(note.flow, note.dir, 0)
            return
        done = note.length >= len(data)
        if self.begins() == 0:
            self.judged = max(self.judged, note.length)
        self.gate.gate.release(note.flow, note.dir, note.length, note.length if done else 0)
        self.gate.collect()

    def resolve(self, size: int) -> None:
        flow, way = self.talk.found()
        self.judged = size
        while self.pending:
            self.pending -= 1
            self.gate.gate.resolve(flow, way)
        self.gate.collect()

    def check(self, size: int) -> None:
        self.waiting += self.gate.take()
        whole = self.delivered() >= size
        assert not whole or self.judged >= size, f"seed {self.seed}: delivered whole before its verdict"


def prefix(ranges: list[tuple[int, int]]) -> int:
    end = 0
    for start, stop in sorted(ranges):
        if start > end:
            break
        end = max(end, stop)
    return end


def segments(rng: random.Random, size: int) -> list[tuple[int, int]]:
    """Cuts, repeats (some of another shape) and local disorder; every byte is there at least once."""
    cuts = sorted({0, size, *(rng.randrange(1, size) for _ in range(rng.randrange(8)))})
    plan = list(itertools.pairwise(cuts))
    for _ in range(rng.randrange(4)):
        start = rng.randrange(size)
        plan.insert(rng.randrange(len(plan) + 1), (start, rng.randrange(start + 1, size + 1)))
    for _ in range(rng.randrange(3)):
        plan.append(rng.choice(plan))
    for _ in range(rng.randrange(4)):
        i, j = rng.randrange(len(plan)), rng.randrange(len(plan))
        plan[i], plan[j] = plan[j], plan[i]
    return plan


def carry(office: Office, size: int, *, engine: bool, fin: bool) -> None:
    """One object crosses, and everything comes to rest."""
    rng, gate, talk = office.random, office.gate, office.talk
    data = bytes(rng.randrange(128, 256) for _ in range(size))
    office.sent.clear()
    office.judged = 0
    if office.base or rng.random() < 0.5:
        office.asked = True
        talk.to_server(0, ack=office.base)
    got: list[tuple[int, int]] = []
    for start, stop in segments(rng, size):
        got.append((start, stop))
        if engine and prefix(got) == size and not office.judged and not office.pending:
            flow, way = talk.found()
            gate.gate.pending(flow, way)
            office.pending += 1
        flags = ACK | FIN if fin and stop == size else ACK
        office.sent[talk.to_client(office.base + start, data[start:stop], flags)] = (start, stop)
        office.check(size)
        if rng.random() < 0.3:
            office.waiting += gate.tick(rng.choice((1000, 4000, 20_000)))
        while office.waiting and rng.random() < 0.5:
            office.answer(data, office.waiting.pop(0))
            office.check(size)
        if office.pending and rng.random() < 0.2:
            office.resolve(size)
    for _ in range(ROUNDS):
        office.resolve(size) if office.pending else None
        office.waiting += gate.tick(50_000)
        while office.waiting:
            office.answer(data, office.waiting.pop(0))
            office.check(size)
        if not gate.holding:
            break
    assert gate.holding == 0, f"seed {office.seed}: packets are left waiting"
    assert all(not gate.held(ident) for ident in office.sent), f"seed {office.seed}: a packet has no verdict"
    assert office.delivered() == size, f"seed {office.seed}: the clean object did not arrive whole"
    office.base += size


@pytest.mark.parametrize("depth", [1 << 20, 200], ids=["engine", "deep"])
@pytest.mark.parametrize("kind", [marks.HTTP, marks.FTPDATA], ids=["http", "ftp"])
def test_no_schedule_breaks_a_promise(kind: int, depth: int) -> None:
    for seed in range(250):
        rng = random.Random(seed)
        with dry(depth=depth, deadline_ms=60_000) as gate:
            office = Office(seed, gate, rng, Talk(gate, kind=kind, server_isn=rng.randrange(2**32)))
            objects = rng.randrange(1, 4) if kind == marks.HTTP else 1
            for number in range(objects):
                last = number == objects - 1
                engine = depth > 1000 and rng.random() < 0.6
                carry(office, rng.randrange(2, 2000), engine=engine, fin=last and rng.random() < 0.5)
            assert gate.gate.stats().shed == 0
            assert office.talk.found()[1] == TO_CLIENT
            assert not {n.kind for n in gate.tick(0)} & {Kind.SHED, Kind.TOO_BIG}
