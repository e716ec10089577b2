"""A gate without a kernel queue, and the TCP packets to feed it with."""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Config, Former, Gate, Kind, Note

ACCEPT, DROP = 1, 0
TAIL = 4096
"""At least so many bytes wait while more of their object is on its way (gate.c, TAIL_MIN)."""
EAGER = 65536
"""Up to so many bytes an object is looked at whenever its sender pushes."""
FRAME_AT = 32768
CLIENT, SERVER = "10.0.0.10", "203.0.113.9"
CLIENT6, SERVER6 = "fd77::10", "2001:db8::9"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class _Verdict(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint32),
        ("verdict", ctypes.c_uint32),
        ("mark", ctypes.c_uint32),
        ("length", ctypes.c_uint32),
        ("packet", ctypes.c_uint8 * 4096),
    )


@dataclass(frozen=True)
class Verdict:
    """What the gate decided about one packet; `packet` is empty when it goes unchanged."""

    verdict: int
    mark: int
    packet: bytes


def config(**changes: int) -> Config:
    """Small numbers, so that a test reaches every limit."""
    values = {
        "queue": 64, "fail_open": 1, "max_flows": 16, "max_held": 64, "spool_limit": 1 << 20,
        "spool_total": 8 << 20, "depth": 1 << 20, "deadline_ms": 1000, "pause_us": 3000,
    }  # fmt: skip
    return Config(**(values | changes))


def packet(src: str, dst: str, sport: int, dport: int, seq: int, ack: int, data: bytes, flags: int = ACK) -> bytes:
    """One whole IP packet, of the family of its addresses; without check sums, which the gate does not read."""
    tcp = struct.pack(">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, 5 << 4, flags, 8192, 0, 0) + data
    ends = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
    if ":" in src:
        return struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64) + ends + tcp
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ends + tcp


class DryGate:
    """Feeds packets and collects every decision about them."""

    def __init__(self, **changes: int) -> None:
        self.config = config(**changes)
        self.gate = Gate(self.config, dry=True)
        self.now = 1_000_000_000
        self.verdicts: dict[int, Verdict] = {}
        self.order: list[int] = []
        self.notes: list[Note] = []
        self._ids = itertools.count(1)
        self._room = (_Verdict * 64)()

    def feed(self, data: bytes, mark: int) -> int:
        """One packet into the gate; its identifier."""
        ident = next(self._ids)
        self.gate.lib.gate_feed(self.gate.handle, ident, mark, data, len(data), self.now)
        self.collect()
        return ident

    def succeed(self) -> None:
        """The gate goes on in another process, as far as it can tell; looks not answered yet are asked for again."""
        self.collect()
        former = self.gate.freeze()
        spools = tuple(os.dup(fd) for fd in former.spools)
        heir = Gate(self.config, dry=True)
        heir.adopt(Former(-1, former.image, spools))
        os.close(former.image)
        self.gate.leave()
        self.gate, self.notes = heir, []

    def tick(self, after_us: int = 0) -> list[Note]:
        """Time passes; what the gate noted since the last look."""
        self.now += after_us
        self.gate.lib.gate_tick(self.gate.handle, self.now)
        self.collect()
        return self.take()

    def pause(self) -> Note:
        """Silence until the gate asks about what waits: its one question. What comes before the answer is held."""
        (note,) = [note for note in self.tick(4000) if note.kind is not Kind.FRAME]
        assert note.kind is Kind.PAUSE
        return note

    def answer(self, note: Note, finished: int = 0) -> None:
        """What the note is about was found clean."""
        self.gate.release(note.flow, note.dir, note.length, finished)
        self.collect()

    def take(self) -> list[Note]:
        """Notes since the last look."""
        self.collect()
        notes, self.notes = self.notes, []
        return notes

    def collect(self) -> None:
        """Read back verdicts and notes."""
        while count := self.gate.lib.gate_take_verdicts(self.gate.handle, self._room, 64):
            for v in self._room[:count]:
                assert v.id not in self.verdicts, f"packet {v.id} was decided twice"
                self.verdicts[v.id] = Verdict(v.verdict, v.mark, bytes(v.packet[: v.length]))
                self.order.append(v.id)
        self.notes += self.gate.take_notes()

    def held(self, ident: int) -> bool:
        return ident not in self.verdicts

    def passed(self, ident: int) -> bool:
        return ident in self.verdicts and self.verdicts[ident].verdict == ACCEPT

    def dropped(self, ident: int) -> bool:
        return ident in self.verdicts and self.verdicts[ident].verdict == DROP

    @property
    def holding(self) -> int:
        return int(self.gate.stats().holding)


@dataclass
class Talk:
    """One TCP connection through a gate; offsets count from the first byte after the handshake."""

    dry: DryGate
    kind: int = marks.HTTP
    client: str = CLIENT
    server: str = SERVER
    client_port: int = 40000
    server_port: int = 80
    client_isn: int = 1000
    server_isn: int = 5000

    def to_client(self, offset: int, data: bytes = b"", flags: int = ACK, *, mark: int = 0, ack: int = 0) -> int:
        ack = (self.client_isn + ack) % 2**32
        seq = self.server_isn + offset
        raw = packet(self.server, self.client, self.server_port, self.client_port, seq, ack, data, flags)
        return self.dry.feed(raw, self.kind | marks.REPLY | mark)

    def whole(self, data: bytes, *, offset: int = 0, size: int = 1400) -> list[int]:
        """All of `data` to the client, in packets of at most `size` bytes."""
        return [self.to_client(offset + at, data[at : at + size]) for at in range(0, len(data), size)]

    def to_server(self, offset: int, data: bytes = b"", flags: int = ACK, *, ack: int = 0) -> int:
        seq, ack = self.client_isn + offset, (self.server_isn + ack) % 2**32
        raw = packet(self.client, self.server, self.client_port, self.server_port, seq, ack, data, flags)
        return self.dry.feed(raw, self.kind)

    def found(self, direction: int = TO_CLIENT) -> tuple[int, int]:
        """(flow, direction) as an engine event about a file in this direction finds them."""
        client, server = (self.client, self.client_port), (self.server, self.server_port)
        first, second = (client, server) if direction == TO_SERVER else (server, client)
        return self.dry.gate.find(*first, *second, self.kind)


@contextmanager
def dry(**changes: int) -> Iterator[DryGate]:
    """A dry gate that is closed at the end, whatever it holds."""
    gate = DryGate(**changes)
    try:
        yield gate
    finally:
        gate.gate.close()


def kinds(notes: list[Note]) -> list[Kind]:
    return [note.kind for note in notes]


def spooled(gate: DryGate, flow: int, direction: int = TO_CLIENT) -> bytes:
    """What the gate has of this direction's unfinished object."""
    fd, length = gate.gate.spool(flow, direction)
    return b"" if fd < 0 else Path(f"/proc/self/fd/{fd}").read_bytes()[:length]


def parsed(raw: bytes) -> tuple[IP | IPv6, TCP]:
    """The packet, once its length and checksums were found right."""
    family = IP if raw[0] >> 4 == 4 else IPv6
    ip = family(raw)
    again = family(raw)
    if family is IP:
        del again.chksum, again.len
    else:
        del again.plen
    del again[TCP].chksum
    assert bytes(again) == raw, "length or checksum is wrong"
    return ip, ip[TCP]
