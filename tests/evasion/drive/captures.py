"""Reads captured TCP conversations (pcap) into the bytes and segments either side sent, for replaying them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import dpkt

from sekisho.lab.evader import End, Script, Turn

_LINKS = {
    dpkt.pcap.DLT_EN10MB: dpkt.ethernet.Ethernet,
    dpkt.pcap.DLT_LINUX_SLL: dpkt.sll.SLL,
    dpkt.pcap.DLT_RAW: dpkt.ip.IP,
    dpkt.pcap.DLT_NULL: dpkt.loopback.Loopback,
    101: dpkt.ip.IP,
}
_FORWARD_BYTES = 16 << 20


@dataclass
class Side:
    """What one end sent: its segments in the order of their bytes, without retransmissions."""

    next_seq: int = -1
    early: dict[int, bytes] = field(default_factory=dict)
    ended: str = ""

    def take(self, seq: int, data: bytes) -> list[bytes]:
        """The segments that are now in order."""
        if self.next_seq < 0:
            self.next_seq = seq
        if data:
            self.early.setdefault(seq, data)
        ready = []
        while self.early:
            behind = {at: (self.next_seq - at) & 0xFFFFFFFF for at in self.early}
            fits = [at for at, gap in behind.items() if gap < _FORWARD_BYTES]
            if not fits:
                break
            rest = self.early.pop(fits[0])[behind[fits[0]] :]
            if rest:
                ready.append(rest)
                self.next_seq = (self.next_seq + len(rest)) & 0xFFFFFFFF
        return ready


@dataclass
class Talk:
    """One captured connection, in turns of (what the client sent, the server's segments after it)."""

    turns: list[tuple[bytes, list[bytes]]] = field(default_factory=list)
    end: End = "close"

    @property
    def request(self) -> str:
        """Method and target of its first request."""
        return " ".join(self.turns[0][0].split(b"\r\n")[0].decode("latin-1").split(" ")[:2]) if self.turns else ""

    @property
    def answer(self) -> bytes:
        return b"".join(segment for _, segments in self.turns for segment in segments)

    def script(self, *, as_sent: bool = True) -> Script:
        """The server's side; with `as_sent` it waits for exactly the client's captured bytes before each turn."""
        turns = [Turn(segments, len(sent) if as_sent else 0) for sent, segments in self.turns]
        return Script(turns, self.end)


def talks(pcap: Path) -> list[Talk]:
    """The TCP connections of a capture that were seen from their SYN on and in which both ends spoke."""
    found: dict[tuple[bytes, int, bytes, int], tuple[Talk, Side, Side]] = {}
    done: list[Talk] = []
    with pcap.open("rb") as file:
        reader = dpkt.pcap.UniversalReader(file)
        for _, frame in reader:
            packet = _LINKS[reader.datalink()](frame)
            packet = packet if isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6) else packet.data
            tcp = getattr(packet, "data", None)
            if not isinstance(tcp, dpkt.tcp.TCP):
                continue
            there, back = (packet.src, tcp.sport, packet.dst, tcp.dport), (packet.dst, tcp.dport, packet.src, tcp.sport)
            if tcp.flags & dpkt.tcp.TH_SYN and not tcp.flags & dpkt.tcp.TH_ACK:
                found[there] = (Talk(), Side(tcp.seq + 1), Side())
                done.append(found[there][0])
            elif there in found:
                _client(found[there], tcp)
            elif back in found:
                _server(found[back], tcp)
    return [talk for talk in done if talk.turns and talk.answer]


def _client(state: tuple[Talk, Side, Side], tcp: dpkt.tcp.TCP) -> None:
    talk, client, server = state
    for data in client.take(tcp.seq, tcp.data):
        if talk.turns and not talk.turns[-1][1]:
            talk.turns[-1] = (talk.turns[-1][0] + data, [])
        else:
            talk.turns.append((data, []))
    if tcp.flags & (dpkt.tcp.TH_FIN | dpkt.tcp.TH_RST) and not server.ended:
        client.ended, talk.end = "fin", "client"


def _server(state: tuple[Talk, Side, Side], tcp: dpkt.tcp.TCP) -> None:
    talk, client, server = state
    if tcp.flags & dpkt.tcp.TH_SYN:
        server.next_seq = (tcp.seq + 1) & 0xFFFFFFFF
        return
    for data in server.take(tcp.seq, tcp.data):
        if not talk.turns:
            talk.turns.append((b"", []))
        talk.turns[-1][1].append(data)
    if tcp.flags & (dpkt.tcp.TH_FIN | dpkt.tcp.TH_RST) and not server.ended:
        server.ended = "fin"
        if not client.ended:
            talk.end = "reset" if tcp.flags & dpkt.tcp.TH_RST else "close"
