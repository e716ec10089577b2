"""After an outage: how fast the box catches up, what a reconnect costs on the wire, and a centre from a backup."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sekisho.telemetry import batches
from sekisho.telemetry.events import Dns
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

if TYPE_CHECKING:
    from tests.center.conftest import Site

pytestmark = pytest.mark.timeout(180)

REAL_TIME = 20
"""Events a second of a busy office."""
NOW = "2026-01-02T03:04:05.000006Z"

TAPPED = """
import sys
from pathlib import Path
import paho.mqtt.client as mqtt
from sekisho.telemetry import daemon
heard = Path(sys.argv.pop(1)).open("ab", buffering=0)
real = mqtt.Client._send_publish

def tapped(client, mid, topic, payload=b"", *args, **more):
    if b"/ev/" in topic:
        heard.write(len(payload).to_bytes(4, "big") + payload)
    return real(client, mid, topic, payload, *args, **more)

mqtt.Client._send_publish = tapped
sys.exit(daemon.main())
"""
"""The box's telemetry, which writes down every batch that goes to its socket, also what the MQTT client repeats."""


def waiting(site: Site) -> int:
    with closing(SpoolView(site.root / "state" / "telemetry" / "spool.db")) as view:
        return sum(lane.rows for lane in view.waiting())


def start_tapped(site: Site) -> None:
    argv = [sys.executable, "-I", "-c", TAPPED, str(site.root / "wire"), "--settings", str(site.box_toml)]
    with (site.root / "box.log").open("ab") as log:
        site.processes["box"] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)


def on_the_wire(site: Site) -> Iterator[list[int]]:
    """The numbers in every batch that was sent."""
    data, place = (site.root / "wire").read_bytes(), 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        head, _, lines = data[place + 4 : place + 4 + size].partition(b"\n")
        yield batches.numbers(batches.expand(lines) if b'"zstd"' in head else lines)
        place += 4 + size


def test_a_backlog_drains_at_many_times_real_time(site: Site) -> None:
    path = site.root / "state" / "telemetry" / "spool.db"
    dice = random.Random(3)
    spool = Spool.open(path, 512 << 20, NOW)
    count = 20_000
    for start in range(0, count, 1000):
        spool.add([Dns(at=NOW, name=f"{dice.getrandbits(64):x}.example") for _ in range(start, start + 1000)])
        spool.tidy([0, 0, 0], 0.0)
    spool.close()
    site.start("broker", "center")
    began = time.monotonic()
    site.start("box")
    site.wait(lambda: waiting(site) == 0, count / (20 * REAL_TIME))
    rate = count / (time.monotonic() - began)
    print(f"\n{rate:.0f} events/s from the spool to the centre's acknowledgement")
    assert len(site.events()) == count


def test_reconnects_cost_few_events_twice(site: Site) -> None:
    dice = random.Random(5)
    site.start("broker", "center")
    start_tapped(site)
    number = 0
    for victim in dice.sample(["broker", "center", "box"] * 4, 12):
        for _ in range(dice.randrange(20, 60)):
            number += 1
            site.write(site.alert(number) + b"".join(site.dns(number * 10 + n) for n in range(4)))
        site.wait_more(len(site.events()))
        site.kill(victim)
        number += 1
        site.write(site.alert(number))
        start_tapped(site) if victim == "box" else site.start(victim)
    site.wait(lambda: waiting(site) == 0, 90)
    assert sorted(site.sids()) == list(range(1, number + 1))
    sent = [seq for batch in on_the_wire(site) for seq in batch]
    twice = len(sent) / len(set(sent)) - 1
    print(f"\n{len(set(sent))} events, {100 * twice:.1f} % sent again over 12 kills")
    assert set(sent) >= set(range(1, len(site.events()) + 1))
    assert twice <= 0.05


def test_a_centre_that_was_put_back_to_an_earlier_state_is_made_whole_by_the_box(site: Site) -> None:
    site.start("broker", "center", "box")
    for number in range(1, 101):
        site.write(site.alert(number) + site.dns(number))
    site.wait(lambda: len(site.events()) == 200)
    site.kill("center")
    backup = site.store_path.read_bytes(), site.store_path.with_name("events.db-wal").read_bytes()
    site.start("center")
    for number in range(101, 201):
        site.write(site.alert(number) + site.dns(number))
    site.wait(lambda: len(site.events()) == 400)
    site.wait(lambda: waiting(site) == 0)
    site.kill("center")
    for path in site.root.glob("events.db*"):
        path.unlink()
    site.store_path.write_bytes(backup[0])
    site.store_path.with_name("events.db-wal").write_bytes(backup[1])
    site.start("center")
    site.wait(lambda: len(site.events()) == 400)
    assert sorted(site.sids()) == list(range(1, 201))
    assert len({(stored.epoch, stored.seq) for stored in site.events()}) == 400
    names = [json.loads(bytes(stored.event)).get("name") for stored in site.events()]
    assert len(set(names)) == 201


def test_a_centre_that_begins_empty_gets_all_that_the_box_keeps(site: Site) -> None:
    site.start("broker", "center", "box")
    for number in range(1, 51):
        site.write(site.alert(number))
    site.wait(lambda: len(site.events()) == 50)
    site.wait(lambda: waiting(site) == 0)
    site.kill("center")
    for path in site.root.glob("events.db*"):
        path.unlink()
    site.start("center")
    site.wait(lambda: Path(site.store_path).exists() and len(site.events()) == 50)
    assert sorted(site.sids()) == list(range(1, 51))
