"""The broker is away for the whole run; when it comes back, every event arrives once, the urgent ones first."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from sekisho.appliance.core.settings import load
from sekisho.center.store import Store
from sekisho.lab import office
from sekisho.lab.client import Ftp, Mail, Task, Web
from sekisho.lab.lab import Lab, Stored
from sekisho.lab.layout import SERVER4, SERVER6, SHAPES
from sekisho.telemetry import events
from sekisho.telemetry.spool_view import SpoolView

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

CLEAN, BAD, MAILS, BEACONS, NAMES = 300, 30, 10, 15, 15


@pytest.fixture(scope="module")
def away() -> Iterator[Lab]:
    """A lab whose broker has not been there yet."""
    with Lab(f"ht{os.getpid()}-away") as lab:
        lab.up(stopped=["mosquitto"])
        yield lab


@pytest.fixture(scope="module")
def returned_at(away: Lab) -> dt.datetime:
    """When the broker came back; everything had happened before."""
    hosts = (SERVER4, SERVER6)
    tasks: list[Task] = [
        Web(hosts[n % 2], SHAPES, [f"/identity/clean/1k.bin?mark=away.{n}.{part}" for part in range(3)])
        for n in range(CLEAN // 3)
    ]
    tasks += [Web(hosts[n % 2], SHAPES, [f"/gzip/bad/1k.bin?mark=away.bad.{n}"]) for n in range(BAD)]
    tasks += [Mail(hosts[n % 2], [[("clean", 1000)], [("bad", 1000)]], f"away.{n}") for n in range(MAILS)]
    tasks += [Ftp(SERVER4, ["clean/1k.bin", "bad/1k.bin"], passive) for passive in (True, False)]
    assert len(office.perform(away, tasks)) == len(tasks)
    beacons = [f"http://c{n}.sekisho.test/sk-c2/checkin/{n}" for n in range(BEACONS)]
    at_once = ["--parallel", "--parallel-immediate", "--max-time", "1", "--connect-to", f"::{SERVER4}:80"]
    away.run("lan", ["curl", "-s", *at_once, *beacons])
    for number in range(NAMES):
        away.run("lan", ["dig", f"@{SERVER4}", f"n{number}.sekisho.test", "+short", "+tries=1", "+time=2"])
    away.wait(lambda: waiting(away) > 2 * CLEAN, f"only {waiting(away)} events wait on the box", 20)
    settle(away)
    assert away.events() == []
    at = dt.datetime.now(dt.UTC)
    away.start("mosquitto")
    away.wait_ready(30)
    away.wait(lambda: waiting(away) == 0, "events still wait on the box", 60)
    return at


def waiting(lab: Lab) -> int:
    """Events in the spool."""
    with closing(SpoolView(load(lab.lay.box_settings).spool)) as spool:
        return sum(lane.rows for lane in spool.waiting())


def settle(lab: Lab) -> None:
    """As many verdicts, alerts and facts are in the spool as the traffic must have made."""
    least = (BAD + MAILS + 2, BEACONS, 2 * CLEAN + MAILS + 2 + NAMES)

    def lanes() -> list[int]:
        with closing(SpoolView(load(lab.lay.box_settings).spool)) as spool:
            return [lane.rows for lane in spool.waiting()]

    lab.wait(lambda: all(there >= wanted for there, wanted in zip(lanes(), least, strict=True)), "not all is told", 20)


def test_every_event_arrives_once(away: Lab, returned_at: dt.datetime) -> None:
    rows = away.events()
    assert len(rows) > 500
    assert len({row.epoch for row in rows}) == 1
    assert sorted(row.seq for row in rows) == list(range(1, len(rows) + 1))
    with closing(Store(away.lay.center_store, read_only=True)) as store:
        assert store.missing() == []
        assert store.declared() == [], "nothing was dropped"


def test_every_thing_that_happened_is_told_once(away: Lab, returned_at: dt.datetime) -> None:
    found = [row.event for row in away.events()]
    files = Counter((e.app, e.outcome) for e in found if isinstance(e, events.FileVerdict))
    assert files == {
        ("http", "clean"): CLEAN,
        ("http", "blocked"): BAD,
        ("smtp", "clean"): MAILS,
        ("smtp", "blocked"): MAILS,
        ("ftp-data", "clean"): 2,
        ("ftp-data", "blocked"): 2,
    }
    names = Counter(e.name for e in found if isinstance(e, events.Dns))
    assert {name: names[name] for name in names if name.startswith("n")} == {
        f"n{number}.sekisho.test": 1 for number in range(NAMES)
    }
    beacons = Counter(e.url for e in found if isinstance(e, events.Alert) and e.sid == 9000100)
    assert set(beacons) == {f"/sk-c2/checkin/{number}" for number in range(BEACONS)}


def test_verdicts_and_alerts_arrive_before_metadata(away: Lab, returned_at: dt.datetime) -> None:
    waited = [row for row in away.events() if at(row) < returned_at]
    lanes = [row.lane for row in waited]
    assert set(lanes) == {0, 1, 2}
    assert lanes == sorted(lanes), [lane for lane, _ in itertools.groupby(lanes)]
    urgent = max(row.received_at for row in waited if row.lane < 2)
    assert urgent <= min(row.received_at for row in waited if row.lane == 2)


def at(row: Stored) -> dt.datetime:
    return dt.datetime.fromisoformat(row.event.at)
