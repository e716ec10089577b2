"""Whatever the network and the scanners do to the order of things, the gate's promises hold.

Each schedule is made from its seed alone: segments cut, repeated and put out of order, pushes and acknowledgements,
looks and verdicts at any moment, the gate handed from one process to the next in between. The object is never
delivered whole before a verdict covered all of it, and of a mailbox's stream nothing is; what was changed arrives
changed, in every copy; after clean verdicts nothing waits; what was spooled is what was sent.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from drygate import ACK, FIN, PSH, DryGate, Talk, dry, parsed, spooled

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Kind, Note

ROUNDS = 60
ENDS = (b"0\r\n\r\n", b"\r\n0\r\n\r\n", b"\r\n.\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"POST / HTTP/1.1\r\n")

ASKED = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


@dataclass
class Office:
    """One connection, its receiver, and a daemon that answers when the schedule lets it."""

    seed: int
    gate: DryGate
    random: random.Random
    talk: Talk
    way: int
    sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Packet -> the range of the object that it carries."""
    handed: bool = False
    """The gate goes from process to process meanwhile."""
    waiting: list[tuple[Note, int]] = field(default_factory=list)
    """Notes without an answer, and where in the object the spool began when they were made."""
    judged: int = 0
    anchored: bool = False
    """The gate saw an acknowledgement, and with it where the stream begins."""
    base: int = 0
    """Offset of the object in its connection."""
    data: bytes = b""
    wanted: bytearray = field(default_factory=bytearray)
    """What the receiver is to have: the data, and what was laid over it."""
    pressed: int = 0
    """Behind the last byte that was changed."""

    def send(self, start: int, stop: int, flags: int) -> None:
        feed = self.talk.to_client if self.way == TO_CLIENT else self.talk.to_server
        self.sent[feed(self.base + start, self.data[start:stop], flags)] = (start, stop)

    def acknowledge(self, upto: int) -> None:
        (self.talk.to_server if self.way == TO_CLIENT else self.talk.to_client)(0, ack=self.base + upto)
        self.anchored = True

    def delivered(self) -> int:
        return prefix([r for ident, r in self.sent.items() if self.gate.passed(ident)])

    def begins(self) -> int:
        """Where the spool begins in the object, as far as the gate can know."""
        return 0 if self.anchored else min(start for start, _ in self.sent.values())

    def answer(self, note: Note, began: int, *, press: bool) -> None:
        """The scan of one note ends, and is clean."""
        spool = spooled(self.gate, note.flow, note.dir)
        if spool or not note.length:
            assert spool == self.data[self.begins() : self.begins() + len(spool)], f"{self.seed}: not what was sent"
        if note.kind is Kind.FRAME:
            self.gate.gate.expect(note.flow, note.dir, 0)
            return
        if began == 0 == self.begins():
            self.judged = max(self.judged, note.length)
            for _ in range(self.random.randrange(3) if press else 0):
                self.press(note)
        done = note.length >= len(self.data)
        self.gate.answer(note, note.length if done else 0)

    def press(self, note: Note) -> None:
        """Change some bytes that were not delivered yet."""
        low = max(self.pressed, self.gate.gate.delivered(note.flow, note.dir))
        if low >= note.length:
            return
        start = self.random.randrange(low, note.length)
        stop = self.random.randrange(start + 1, note.length + 1)
        text = bytes(self.random.randrange(32, 127) for _ in range(stop - start))
        assert self.gate.gate.rewrite(note.flow, note.dir, start, text), f"{self.seed}: refused {start}-{stop}"
        self.wanted[start:stop] = text
        self.pressed = stop

    def check(self, after_us: int = 0) -> None:
        notes = self.gate.tick(after_us) if after_us else self.gate.take()
        self.waiting += [(note, self.begins()) for note in notes]
        have = self.delivered()
        assert have < len(self.data) or self.judged >= have, f"{self.seed}: delivered whole before its verdict"
        if self.talk.kind & (marks.POP3 | marks.IMAP):
            assert have <= self.judged, f"{self.seed}: delivered before its verdict"

    def received(self) -> None:
        """Every copy of every byte that left is the one that was to leave."""
        for ident, (start, stop) in self.sent.items():
            if self.gate.passed(ident):
                changed = self.gate.verdicts[ident].packet
                got = bytes(parsed(changed)[1].payload) if changed else self.data[start:stop]
                assert got == self.wanted[start:stop], f"{self.seed}: another copy of {start}-{stop}"


def prefix(ranges: list[tuple[int, int]]) -> int:
    end = 0
    for start, stop in sorted(ranges):
        if start > end:
            break
        end = max(end, stop)
    return end


def segments(rng: random.Random, size: int) -> list[tuple[int, int]]:
    """Cuts, repeats (some of another shape) and local disorder; every byte is there at least once."""
    cuts = sorted({0, size, *(rng.randrange(1, size) for _ in range(rng.randrange(8))), *range(0, size, 3500)})
    plan = list(itertools.pairwise(cuts))
    for _ in range(rng.randrange(4)):
        start = rng.randrange(size)
        plan.insert(rng.randrange(len(plan) + 1), (start, rng.randrange(start + 1, min(size, start + 3500) + 1)))
    for _ in range(rng.randrange(3)):
        plan.append(rng.choice(plan))
    for _ in range(rng.randrange(4)):
        i, j = rng.randrange(len(plan)), rng.randrange(len(plan))
        plan[i], plan[j] = plan[j], plan[i]
    return plan


def content(rng: random.Random, size: int) -> bytes:
    """Nothing a fast path takes for itself at the beginning; what looks like ends and beginnings further on."""
    data = bytearray(rng.randbytes(size))
    data[0] |= 128
    for _ in range(rng.randrange(3)):
        text = rng.choice(ENDS)
        if size > len(text) + 1:
            at = rng.randrange(1, size - len(text))
            data[at : at + len(text)] = text
    return bytes(data)


def carry(office: Office, size: int, *, fin: bool, press: bool) -> None:
    """One object crosses, and everything comes to rest."""
    rng, gate = office.random, office.gate
    office.data = content(rng, size)
    office.wanted = bytearray(office.data)
    office.sent.clear()
    office.judged = office.pressed = 0
    if office.base or rng.random() < 0.5:
        office.acknowledge(0)
    for start, stop in segments(rng, size):
        flags = ACK | (FIN if fin and stop == size else 0) | (PSH if rng.random() < 0.3 else 0)
        office.send(start, stop, flags)
        office.check()
        if rng.random() < 0.3:
            office.check(rng.choice((1000, 4000, 20_000)))
        while office.waiting and rng.random() < 0.5:
            office.answer(*office.waiting.pop(0), press=press)
            office.check()
        if office.handed and rng.random() < 0.2:
            gate.succeed()
            office.waiting.clear()
            office.check()
        if rng.random() < 0.2 and office.begins() == 0 and not press:
            office.acknowledge(office.delivered())
    for _ in range(ROUNDS):
        office.check(50_000)
        while office.waiting:
            office.answer(*office.waiting.pop(0), press=press)
            office.check()
        if not gate.holding:
            break
    assert gate.holding == 0, f"{office.seed}: packets are left waiting"
    assert all(not gate.held(ident) for ident in office.sent), f"{office.seed}: a packet has no verdict"
    assert office.delivered() == size, f"{office.seed}: the clean object did not arrive whole"
    office.received()
    office.base += size


CASES = {
    "http": (marks.HTTP, TO_CLIENT, 1 << 20),
    "http past the engine's depth": (marks.HTTP, TO_CLIENT, 200),
    "upload": (marks.HTTP, TO_SERVER, 1 << 20),
    "ftp": (marks.FTPDATA, TO_CLIENT, 1 << 20),
    "ftp past the engine's depth": (marks.FTPDATA, TO_SERVER, 200),
    "mail": (marks.MAIL, TO_SERVER, 1 << 20),
    "pop3": (marks.POP3, TO_CLIENT, 1 << 20),
    "imap past the engine's depth": (marks.IMAP, TO_CLIENT, 200),
    "smb": (marks.SMB, TO_SERVER, 1 << 20),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("handed", [False, True], ids=["one process", "handed on"])
def test_no_schedule_breaks_a_promise(name: str, handed: bool) -> None:
    kind, way, depth = CASES[name]
    for seed in range(120):
        rng = random.Random(f"{name} {seed}")
        with dry(depth=depth, deadline_ms=60_000) as gate:
            isn = rng.randrange(2**32)
            talk = Talk(gate, kind=kind, server_isn=isn, client_isn=(isn + 99) % 2**32)
            office = Office(seed, gate, rng, talk, way, handed=handed)
            objects = 1 if kind == marks.FTPDATA else rng.randrange(1, 4)
            if kind == marks.HTTP and (way == TO_SERVER or rng.random() < 0.5):
                assert gate.passed(talk.to_server(0, ASKED))
                office.base = len(ASKED) if way == TO_SERVER else 0
                office.anchored = way == TO_CLIENT
            press = bool(kind & (marks.POP3 | marks.IMAP)) and rng.random() < 0.8
            for number in range(objects):
                last = number == objects - 1
                size = rng.randrange(2, rng.choice((2000, 12_000)))
                carry(office, size, fin=last and rng.random() < 0.5, press=press)
            assert gate.gate.stats().shed == 0
            assert talk.found(way)[1] == way
            assert not {n.kind for n in gate.tick(0)} & {Kind.SHED, Kind.TOO_BIG}
