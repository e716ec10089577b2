"""Thousands of simulated boxes in one process, over real MQTT and TLS with a certificate each.

`python -m sekisho.bench.fleet ...` connects all of them, says so on its standard output, then reads one `Phase` per
line on standard input and answers with one `Told` per line; it ends at the end of its input. One thread, one epoll:
the load must cost little beside what it loads.
"""

from __future__ import annotations

import argparse
import heapq
import random
import select
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from sekisho.bench import mqtt
from sekisho.bench.figures import percentile
from sekisho.bench.fleet_box import Box
from sekisho.bench.fleet_certificates import box_name
from sekisho.bench.mixed_events import pools

CONNECTING: Final = 64
"""Handshakes under way at one time."""
TENANT: Final = "fleet"
TICK_S: Final = 0.02
PING_S: Final = 25.0
RECONNECT_S: Final = 2.0
READ_BYTES: Final = 64 << 10


class Phase(msgspec.Struct, frozen=True):
    """What the boxes do next."""

    seconds: float
    """How long; with `settle` at most, and with `rate` until the next phase is asked for."""
    rate: float = 0.0
    """Batches each second of the whole fleet, at random moments."""
    under_way: int = 0
    """Instead: as many batches as may be unacknowledged at one time, each acknowledgement bringing the next."""
    rows: int = 1
    """Events in a batch."""
    settle: bool = False
    """Nothing new; over when everything is acknowledged."""
    anew: bool = False
    """Every box begins a new epoch first: for a centre with another database."""


class Told(msgspec.Struct, frozen=True):
    """What came of a phase, or of the connecting before the first."""

    seconds: float
    connected: int
    acked: int
    """Events the centre acknowledged."""
    made: int
    """Events made since the start, all phases."""
    waiting: int
    """Batches not acknowledged at the end."""
    batches: int
    again: int
    """Batches that went again."""
    lost: int
    """Connections that ended unasked."""
    p50_ms: float = 0.0
    """From a batch's first sending to the centre's acknowledgement."""
    p99_ms: float = 0.0


class _Link:
    """One box's connection."""

    def __init__(self, number: int, box: Box) -> None:
        self.number, self.box = number, box
        self.sock: ssl.SSLSocket | None = None
        self.packets = mqtt.Packets()
        self.out = bytearray()
        self.shaken = self.up = False
        self.ping_at = 0.0


class Fleet:
    """All boxes; `run` one phase after another."""

    def __init__(
        self, hosts: list[tuple[str, int]], ca: Path, certificates: Path, boxes: int, members: Sequence[Box] = ()
    ) -> None:
        """`members`: in place of so many boxes that make events of a pool."""
        self._hosts, self._certificates = hosts, certificates
        self._selector = selectors.EpollSelector()
        self._tls = ssl.create_default_context(cafile=str(ca))
        shared, birth = pools(), int(time.time())
        members = members or [Box(TENANT, box_name(number), birth, shared) for number in range(boxes)]
        self._links = [_Link(number, box) for number, box in enumerate(members)]
        self._down = list(reversed(self._links))
        self._later: list[tuple[float, int]] = []
        self._broken: list[_Link] = []
        self._connecting = self._up = self._lost = self._batches = self._acked = 0
        self._latencies: list[float] = []
        self._on_ack: Callable[[_Link], None] = lambda _link: None

    def connect(self, timeout_s: float) -> Told:
        """Bring every box up."""
        return self._told(time.monotonic(), lambda: self._up == len(self._links), timeout_s)

    def until(self, fact: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came true in time."""
        self._told(time.monotonic(), fact, timeout_s)
        return fact()

    def run(self, phase: Phase) -> Told:
        began = time.monotonic()
        self._batches = self._acked = 0
        self._latencies = []
        if phase.anew:
            for link in self._links:
                link.box.begin_anew()
        if phase.under_way:
            self._on_ack = lambda link: self._batch(link, phase.rows)
            for link in random.choices([link for link in self._links if link.up], k=phase.under_way):
                self._batch(link, phase.rows)
        elif phase.rate:
            self._on_ack = lambda _link: None
            rate, made = phase.rate, 0

            def make_what_is_due() -> bool:
                """Whether the next phase is asked for."""
                nonlocal made
                while made < (time.monotonic() - began) * rate:
                    made += 1
                    self._batch(random.choice(self._links), phase.rows)
                return bool(select.select([sys.stdin], [], [], 0)[0])

            return self._told(began, make_what_is_due, phase.seconds)
        else:
            self._on_ack = lambda _link: None
        settled = (lambda: not any(link.box.waiting for link in self._links)) if phase.settle else (lambda: False)
        return self._told(began, settled, phase.seconds)

    def close(self) -> None:
        for link in self._links:
            if link.sock:
                link.sock.close()

    def _told(self, began: float, over: Callable[[], bool], seconds: float) -> Told:
        again, lost, sweep = sum(link.box.again for link in self._links), self._lost, 0.0
        while time.monotonic() < began + seconds and not over():
            while self._broken:
                self._drop(self._broken.pop())
            self._open_more()
            for key, events in self._selector.select(TICK_S):
                link: _Link = key.data
                if link.sock:
                    self._ready(link, link.sock, events)
            if time.monotonic() >= sweep:
                sweep = time.monotonic() + 1.0
                self._sweep()
        return Told(
            seconds=time.monotonic() - began,
            connected=self._up,
            acked=self._acked,
            made=sum(link.box.seq for link in self._links),
            waiting=sum(len(link.box.waiting) for link in self._links),
            batches=self._batches,
            again=sum(link.box.again for link in self._links) - again,
            lost=self._lost - lost,
            p50_ms=percentile(self._latencies, 50) * 1000 if self._latencies else 0.0,
            p99_ms=percentile(self._latencies, 99) * 1000 if self._latencies else 0.0,
        )

    def _batch(self, link: _Link, rows: int) -> None:
        out = link.box.batch(rows, time.monotonic())
        self._batches += 1
        if link.up:
            self._write(link, out)

    def _open_more(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            self._down.append(self._links[heapq.heappop(self._later)[1]])
        while self._down and self._connecting < CONNECTING:
            self._open(self._down.pop())

    def _open(self, link: _Link) -> None:
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        host = random.choice(self._hosts)
        raw.connect_ex(host)
        # A connection keeps the certificate its context had when it was made.
        self._tls.load_cert_chain(self._certificates / f"{link.box.name}.pem")
        try:
            link.sock = self._tls.wrap_socket(raw, server_hostname=host[0], do_handshake_on_connect=False)
        except OSError:  # refused already: nobody listens there
            raw.close()
            self._come_again(link)
            return
        link.packets, link.out, link.shaken, link.up = mqtt.Packets(), bytearray(), False, False
        self._connecting += 1
        self._selector.register(link.sock, selectors.EVENT_WRITE, link)

    def _ready(self, link: _Link, sock: ssl.SSLSocket, events: int) -> None:
        try:
            if not link.shaken:
                self._shake(link, sock)
            elif events & selectors.EVENT_READ:
                self._read(link, sock)
            if link.shaken and link.out:
                self._flush(link, sock)
        except (OSError, ValueError):
            self._drop(link)

    def _shake(self, link: _Link, sock: ssl.SSLSocket) -> None:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(sock, selectors.EVENT_READ, link)
        except ssl.SSLWantWriteError:
            self._selector.modify(sock, selectors.EVENT_WRITE, link)
        else:
            link.shaken = True
            self._selector.modify(sock, selectors.EVENT_READ, link)
            self._write(link, link.box.hello())

    def _read(self, link: _Link, sock: ssl.SSLSocket) -> None:
        while True:
            try:
                data = sock.recv(READ_BYTES)
            except ssl.SSLWantReadError:
                return
            if not data:
                raise ConnectionResetError
            for first, body in link.packets.feed(data):
                self._packet(link, first, body)

    def _packet(self, link: _Link, first: int, body: bytes) -> None:
        now = time.monotonic()
        match first >> 4:
            case mqtt.CONNACK:
                if body[1]:
                    raise ConnectionRefusedError
                self._write(link, link.box.subscribe())
            case mqtt.SUBACK:
                if body[2] & 0x80:
                    raise ConnectionRefusedError
                link.up = True
                link.ping_at = now + PING_S * random.random()
                self._connecting -= 1
                self._up += 1
                self._write(link, link.box.up(now))
            case mqtt.PUBACK:
                link.box.pubacked(int.from_bytes(body, "big"))
            case mqtt.PUBLISH:
                topic, mid, payload = mqtt.published(first, body)
                if mid:
                    self._write(link, mqtt.puback(mid))
                if not topic.endswith("/ack"):
                    self._write(link, link.box.came(payload, now))
                    return
                for sent in link.box.acknowledged(payload, now):
                    self._acked += sent.last - sent.first + 1
                    self._latencies.append(now - sent.made_at)
                    self._on_ack(link)

    def _sweep(self) -> None:
        """Once a second: what must go again, and a sign of life where it is quiet."""
        now = time.monotonic()
        for link in self._links:
            if not link.up:
                continue
            out = link.box.repeat(now) + link.box.tick(now)
            if now >= link.ping_at:
                link.ping_at = now + PING_S
                out += mqtt.PINGREQ
            if out:
                self._write(link, out)
            if link.box.gone:
                self._drop(link, for_ever=True)

    def _write(self, link: _Link, data: bytes) -> None:
        if not data:
            return
        link.out += data
        if link.sock and len(link.out) == len(data):
            try:
                self._flush(link, link.sock)
            except OSError:
                self._broken.append(link)

    def _flush(self, link: _Link, sock: ssl.SSLSocket) -> None:
        wanted = selectors.EVENT_READ
        try:
            while link.out:
                del link.out[: sock.send(link.out)]
        except ssl.SSLWantWriteError:
            wanted |= selectors.EVENT_WRITE
        if self._selector.get_key(sock).events != wanted:
            self._selector.modify(sock, wanted, link)

    def _drop(self, link: _Link, *, for_ever: bool = False) -> None:
        if not link.sock:
            return
        self._selector.unregister(link.sock)
        link.sock.close()
        link.sock, link.out = None, bytearray()
        if link.up:
            self._up -= 1
            self._lost += 1
        else:
            self._connecting -= 1
        link.up = link.shaken = False
        if not for_ever:
            self._come_again(link)

    def _come_again(self, link: _Link) -> None:
        at = time.monotonic() + RECONNECT_S * random.random()
        heapq.heappush(self._later, (at, link.number))


def main(argv: list[str] | None = None) -> int:
    """Connect, then answer each phase on standard input."""
    parser = argparse.ArgumentParser(prog="sekisho.bench.fleet")
    parser.add_argument("--host", action="append", required=True, help="HOST:PORT of a broker; several are chosen from")
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--certificates", type=Path, required=True)
    parser.add_argument("--boxes", type=int, required=True)
    parser.add_argument("--connect-s", type=float, default=120.0)
    args = parser.parse_args(argv)
    hosts = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in args.host)]
    fleet = Fleet(hosts, args.ca, args.certificates, args.boxes)
    try:
        _say(fleet.connect(args.connect_s))
        for line in sys.stdin:
            _say(fleet.run(msgspec.json.decode(line, type=Phase)))
    finally:
        fleet.close()
    return 0


def _say(told: Told) -> None:
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
