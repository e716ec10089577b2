"""Counted traffic through the box: pings, datagrams and downloads at a steady pace, each with its sequence number.

Runs inside one of the lab's namespaces from its first line of input (a `Plan`) until its standard input ends or
`MOST_S` are over, then waits for stragglers and prints one JSON line, `Counted` by name. Nothing is guessed: a packet
is lost when its own number never came. Both ends share the machine's clock, and arrivals carry the kernel's own time
stamp, so that a delay is the packet's and not this program's.
Started by `load.Load`: `python -m sekisho.lab.streams`.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import select
import socket
import struct
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Final

import msgspec

from sekisho.lab.samples import EICAR, clean

MOST_S: Final = 1800.0
MOST_RATE: Final = 2000
STRAGGLERS_S: Final = 2.0
"""How long after the last packet an answer still counts; a packet that comes later is lost."""
PORTS: Final = 16
"""Datagrams leave from so many ports in turn: flows of all queues, and none whose fate was sealed long ago."""
_SO_TIMESTAMPNS: Final = 35
_HEAD: Final = struct.Struct("!QQ")
_ECHO: Final = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY, _IP_HEADER = 8, 0, 20


class Pings(msgspec.Struct, tag="pings", frozen=True):
    """Echo requests of 100 bytes. The second waits for the answer to the first: a kernel that queues packets and
    tracks connections drops one of two that begin the same echo at once, on any box and whatever its rules.
    """

    to: str
    rate: int


class Send(msgspec.Struct, tag="send", frozen=True):
    """Datagrams that carry `word`; who takes them counts them."""

    to: str
    port: int
    rate: int
    word: str


class Take(msgspec.Struct, tag="take", frozen=True):
    """Datagrams as they arrive."""

    port: int


class Fetch(msgspec.Struct, tag="fetch", frozen=True):
    """Files of `size` bytes, one after the other, each with content the box has never seen."""

    host: str
    port: int
    path: str
    size: int
    rate: int
    """Bytes a second; or, where `bad`, files a minute."""
    bad: bool = False
    """Every file is malicious: `got` counts those that came with their last byte."""


class Plan(msgspec.Struct, frozen=True):
    """What to do at once, by name."""

    streams: dict[str, Pings | Send | Take | Fetch]


class Counted(msgspec.Struct, kw_only=True):
    """How one stream went. Of a sender only `sent` is set, of a taker all but `sent`."""

    sent: int = 0
    got: int = 0
    """Different ones that arrived: as they should, or, where nothing should, at all."""
    again: int = 0
    worst_ms: float = 0.0
    p99_ms: float = 0.0
    missing: list[int] = []
    """The first few numbers up to the last arrival that never came."""
    errors: list[str] = []
    """The first few reasons, for people."""


class _Arrivals:
    """Which numbers came, and how late."""

    def __init__(self) -> None:
        self._came = bytearray()
        self._again = 0
        self._ms = array("f")

    def add(self, number: int, ms: float) -> None:
        if number >= MOST_S * MOST_RATE:
            return
        if number >= len(self._came):
            self._came.extend(bytes(number + 1024 - len(self._came)))
        if self._came[number]:
            self._again += 1
            return
        self._came[number] = 1
        self._ms.append(ms)

    def counted(self, sent: int = 0) -> Counted:
        ordered = sorted(self._ms)
        p99 = ordered[int(len(ordered) * 0.99)] if ordered else 0.0
        worst = ordered[-1] if ordered else 0.0
        numbers = range(sent or self._came.rfind(1) + 1)
        missing = [number for number in numbers if number >= len(self._came) or not self._came[number]]
        return Counted(sent=sent, got=len(ordered), again=self._again, worst_ms=worst, p99_ms=p99, missing=missing[:10])


class _Pace:
    """Wakes its caller `rate` times a second, without drifting and without catching up in a burst."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._due = time.monotonic()

    def wait(self, stop: threading.Event) -> bool:
        """False when it is over."""
        now = time.monotonic()
        self._due = max(self._due + self._step, now - 5 * self._step)
        return not stop.wait(max(0.0, self._due - now))


def pings(task: Pings, stop: threading.Event) -> Counted:
    found = _Arrivals()
    ours = os.getpid() & 0xFFFF
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as link:
        link.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        over, answered = threading.Event(), threading.Event()

        def take(data: bytes, at_ns: int) -> None:
            kind, _, _, ident, _ = _ECHO.unpack_from(data, _IP_HEADER)
            if (kind, ident) == (_ECHO_REPLY, ours):
                number, sent_ns = _HEAD.unpack_from(data, _IP_HEADER + _ECHO.size)
                found.add(number, (at_ns - sent_ns) / 1e6)
                answered.set()

        taker = threading.Thread(target=_receive, args=(link, take, over))
        taker.start()
        pace, number = _Pace(task.rate), 0
        while pace.wait(stop):
            body = _HEAD.pack(number, time.time_ns()) + bytes(76)
            head = _ECHO.pack(_ECHO_REQUEST, 0, 0, ours, number & 0xFFFF)
            link.sendto(
                _ECHO.pack(_ECHO_REQUEST, 0, _checksum(head + body), ours, number & 0xFFFF) + body, (task.to, 0)
            )
            if number == 0:
                answered.wait(STRAGGLERS_S)
            number += 1
        time.sleep(STRAGGLERS_S)
        over.set()
        taker.join()
    return found.counted(number)


def send(task: Send, stop: threading.Event) -> Counted:
    links = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PORTS)]
    pace, number = _Pace(task.rate), 0
    while pace.wait(stop):
        links[number % PORTS].sendto(_HEAD.pack(number, time.time_ns()) + task.word.encode(), (task.to, task.port))
        number += 1
    for link in links:
        link.close()
    return Counted(sent=number)


def take(task: Take, stop: threading.Event) -> Counted:
    found = _Arrivals()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        link.bind(("", task.port))

        def note(data: bytes, at_ns: int) -> None:
            number, sent_ns = _HEAD.unpack_from(data)
            found.add(number, (at_ns - sent_ns) / 1e6)

        _receive(link, note, stop)
    return found.counted()


def fetch(task: Fetch, stop: threading.Event) -> Counted:
    counted = Counted(errors=[])
    body = clean(task.size)
    pace = _Pace(task.rate / 60 if task.bad else task.rate / task.size)
    while pace.wait(stop):
        mark = f"{os.getpid()}.{task.bad:d}.{counted.sent:06d}."
        counted.sent += 1
        began = time.monotonic()
        data, why = _download(task, mark)
        if task.bad:
            counted.got += data[-len(EICAR) :] == EICAR
            continue
        whole = hashlib.sha256(mark.encode() + body[len(mark) :]).digest() == hashlib.sha256(data).digest()
        counted.got += whole
        counted.worst_ms = max(counted.worst_ms, (time.monotonic() - began) * 1e3)
        if not whole and len(counted.errors) < 5:
            counted.errors.append(why or f"{len(data)} bytes that are not the file's")
    return counted


def _download(task: Fetch, mark: str) -> tuple[bytes, str]:
    """The bytes that came, and why no more did."""
    link = http.client.HTTPConnection(task.host, task.port, timeout=20)
    try:
        link.request("GET", f"{task.path}?mark={mark}")
        return link.getresponse().read(task.size + 1), ""
    except http.client.IncompleteRead as err:
        return err.partial, "cut short"
    except (OSError, http.client.HTTPException) as err:
        return b"", f"{type(err).__name__}: {err}"
    finally:
        link.close()


def _receive(link: socket.socket, note: Callable[[bytes, int], None], over: threading.Event) -> None:
    """Hand each packet to `note` with the kernel's time of its arrival, until `over`."""
    link.settimeout(0.1)
    while not over.is_set():
        try:
            data, told, _, _ = link.recvmsg(2048, 64)
        except TimeoutError:
            continue
        seconds, ns = struct.unpack("@qq", told[0][2])
        note(data, seconds * 1_000_000_000 + ns)


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    stop = threading.Event()
    done: dict[str, Counted] = {}

    def run(name: str, task: Pings | Send | Take | Fetch) -> None:
        match task:
            case Pings():
                done[name] = pings(task, stop)
            case Send():
                done[name] = send(task, stop)
            case Take():
                done[name] = take(task, stop)
            case Fetch():
                done[name] = fetch(task, stop)

    threads = [threading.Thread(target=run, args=item, name=item[0]) for item in plan.streams.items()]
    for thread in threads:
        thread.start()
    select.select([sys.stdin], [], [], MOST_S)
    stop.set()
    for thread in threads:
        thread.join()
    if len(done) < len(plan.streams):
        sys.exit(1)  # a thread's own last words are on stderr
    sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")


if __name__ == "__main__":
    main()
