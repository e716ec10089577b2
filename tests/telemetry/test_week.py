"""Seven days without the centre at 20 events a second fit on the disk, and are gone soon after it is back."""

from __future__ import annotations

import datetime as dt
import random
import resource
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sekisho.center.ingest import parse_batch
from sekisho.telemetry.delivery import SETTLE_S, Ack, Delivery
from sekisho.telemetry.events import Alert, Dns, Event, Flow, Tls, Web
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

RATE = 20
WEEK = 7 * 86400 * RATE
"""12,096,000 events."""
DISK = 2 << 30
DRAIN = 20
"""Times real time."""
COMMIT = 1000
"""Events that one commit brings."""
BEGAN = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


class Office:
    """Sixty devices that ask for what offices ask for: few names often, many names once."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        words = [self._word() for _ in range(3000)]
        self._words = words
        ends = ("com", "co.jp", "net", "jp")
        self._hosts = [f"{self._pick(words)}.{self._pick(words)}.{self._pick(ends)}" for _ in range(20_000)]
        self._macs = [self._dice.randbytes(6).hex(":") for _ in range(60)]

    def events(self, count: int) -> Iterator[Event]:
        for number in range(count):
            at = BEGAN + dt.timedelta(seconds=number / RATE, microseconds=self._dice.randrange(50_000))
            yield self._event(number, at.isoformat(timespec="microseconds").replace("+00:00", "Z"))

    def _event(self, number: int, at: str) -> Event:
        dice, device = self._dice, self._dice.randrange(60)
        host = self._hosts[min(int(dice.paretovariate(0.7)), len(self._hosts)) - 1]
        flow = Flow(
            src_ip=f"192.168.1.{device + 10}",
            src_port=dice.randrange(32768, 61000),
            dst_ip=".".join(map(str, dice.randbytes(4))),
            dst_port=443,
            proto="TCP",
            mac=self._macs[device],
        )
        if number % 500 == 0:
            return Alert(at=at, flow=flow, sid=2_000_000 + dice.randrange(30_000), signature="ET TEST", host=host)
        kind = number % 3
        if kind == 0:
            path = "/".join(self._pick(self._words) for _ in range(dice.randrange(1, 8)))
            url = f"http://{host}/{path}/{dice.getrandbits(64):016x}?{self._pick(self._words)}=*"
            return Web(at=at, flow=flow, method="GET", host=host, url=url, status=200, length=dice.randrange(1 << 17))
        return Tls(at=at, flow=flow, sni=host, version="TLS 1.3") if kind == 1 else Dns(at=at, flow=flow, name=host)

    def _word(self) -> str:
        return "".join(self._dice.choices("abcdefghijklmnopqrstuvwxyz", k=self._dice.randrange(3, 10)))

    def _pick(self, words: list[str] | tuple[str, ...]) -> str:
        return words[self._dice.randrange(len(words))]


def fill(spool: Spool, count: int) -> None:
    waits: list[Event] = []
    for event in Office(7).events(count):
        waits.append(event)
        if len(waits) == COMMIT:
            spool.add(waits)
            spool.tidy([0, 0, 0], 0.0)
            waits = []
    spool.add(waits)


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def drain(spool: Spool) -> tuple[int, int]:
    """Everything to a centre that reads each batch and acknowledges at once; events, bytes on the wire."""
    delivery, now, mid, events, size = Delivery(spool.epoch), 0.0, 0, 0, 0
    delivery.online(now)
    delivery.asked("q", now)
    delivery.acknowledged(Ack(spool.epoch, n="q"), now)
    while True:
        delivery.settle(now, spool)
        runs = []
        while publish := delivery.next(now, spool):
            mid += 1
            delivery.sent(publish, mid)
            delivery.pubacked(mid)
            batch = parse_batch(publish.batch.lane, publish.payload)
            runs.append(batch.run)
            events, size = events + len(batch.rows), size + len(publish.payload)
        if not runs:
            return events, size
        delivery.acknowledged(Ack(spool.epoch, 0, runs), now)
        now += SETTLE_S


def a_week(tmp_path: Path, scale: int) -> None:
    count = WEEK // scale
    began = time.process_time()
    spool = Spool.open(tmp_path / "spool.db", DISK, "2026-01-02T00:00:00.000000Z")
    fill(spool, count)
    filled = time.process_time() - began
    used = on_disk(tmp_path)
    with closing(SpoolView(spool.path)) as view:
        assert sum(lane.rows for lane in view.waiting()) == count
    began = time.process_time()
    spool.close()
    spool = Spool.open(tmp_path / "spool.db", DISK, "2026-01-02T00:00:00.000000Z")
    opened = time.process_time() - began
    began, wall = time.process_time(), time.monotonic()
    events, size = drain(spool)
    drained, wall = time.process_time() - began, time.monotonic() - wall
    print(
        f"\n{count} events: {used / count:.0f} B on the disk and {size / count:.0f} B on the wire for each;"
        f" stored {count / filled:.0f}/s, opened in {opened:.1f} s, drained {events / drained:.0f}/s of CPU"
        f" ({events / wall:.0f}/s by the clock); {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB"
    )
    assert events == count
    assert used / count * WEEK < DISK
    assert events / wall > RATE * DRAIN
    assert not any(spool.holds(lane, 0, 1 << 60) for lane in range(3))
    spool.close()


def test_a_hundredth_of_a_week_takes_a_hundredth_of_the_disk_and_of_the_time(tmp_path: Path) -> None:
    a_week(tmp_path, 100)


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_a_week_fits_on_the_disk_and_drains_twenty_times_as_fast_as_it_came(tmp_path: Path) -> None:
    a_week(tmp_path, 1)
