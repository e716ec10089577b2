"""A box whose clock is wrong, under a real telemetry daemon with a real broker and centre: times arrive right."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from wrong_clock import WrongClock

from sekisho.telemetry.delivery import ANSWER_S

if TYPE_CHECKING:
    from tests.center.conftest import Heard, Site

pytestmark = pytest.mark.timeout(120)

BOOTS = [dt.datetime(1970, 1, 1, 0, 0, 20, tzinfo=dt.UTC), dt.datetime(2099, 12, 31, tzinfo=dt.UTC)]


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    return WrongClock(tmp_path)


def boot(site: Site, clock: WrongClock) -> None:
    """The box after a power cut: /run is empty."""
    (site.root / "run" / "eve" / ".boot").unlink(missing_ok=True)
    start(site, clock)


def start(site: Site, clock: WrongClock) -> None:
    before = dict(os.environ)
    os.environ.update(clock.env)
    try:
        site.start("box")
    finally:
        os.environ.clear()
        os.environ.update(before)


def happens(site: Site, clock: WrongClock, number: int) -> float:
    """An alert, now; returns the true time."""
    now = time.time()
    site.write(site.alert(number, timestamp=clock.stamp()))
    return now


def errors(site: Site, truth: dict[int, float]) -> dict[int, float]:
    """How wrong the stored time of each alert is, in seconds."""
    site.wait(lambda: set(site.sids()) >= set(truth))
    stored = [json.loads(bytes(row.event)) for row in site.events()]
    at = {event["sid"]: dt.datetime.fromisoformat(event["at"]).timestamp() for event in stored if "sid" in event}
    return {number: at[number] - true for number, true in truth.items()}


@pytest.mark.parametrize("wrong", BOOTS, ids=lambda wrong: str(wrong.year))
def test_events_of_a_box_that_boots_with_a_wrong_clock_arrive_with_the_right_time(
    site: Site, clock: WrongClock, wrong: dt.datetime
) -> None:
    clock.set(wrong.timestamp())
    site.start("broker", "center")
    boot(site, clock)
    truth = {number: happens(site, clock, number) for number in (1, 2, 3)}
    assert {n: e for n, e in errors(site, truth).items() if abs(e) > 1} == {}
    clock.set(time.time())
    truth[4] = happens(site, clock, 4)
    errors(site, truth)
    clock.set(time.time() - 3600)
    truth[5] = happens(site, clock, 5)
    errors(site, truth)
    clock.set(time.time() + 86400)
    truth[6] = happens(site, clock, 6)
    assert {n: e for n, e in errors(site, truth).items() if abs(e) > 1} == {}
    assert site.missing() == []


@pytest.mark.parametrize("wrong", BOOTS, ids=lambda wrong: str(wrong.year))
def test_what_happened_before_the_clock_was_set_is_corrected_when_the_centre_is_back(
    site: Site, clock: WrongClock, wrong: dt.datetime
) -> None:
    clock.set(wrong.timestamp())
    boot(site, clock)
    truth = {1: happens(site, clock, 1)}
    site.wait(lambda: site.waiting() == 1)
    site.kill("box")
    start(site, clock)
    truth[2] = happens(site, clock, 2)
    site.wait(lambda: site.waiting() == 2)
    clock.set(time.time())
    truth[3] = happens(site, clock, 3)
    site.wait(lambda: site.waiting() == 3)
    site.kill("box")
    boot(site, clock)
    truth[4] = happens(site, clock, 4)
    site.start("broker", "center")
    assert {n: e for n, e in errors(site, truth).items() if abs(e) > 1} == {}
    assert site.missing() == []


@pytest.mark.full  # half a minute; its sampled sibling is `test_only_the_fresh_answer_tells_the_time_and_only_once`
@pytest.mark.protocol("P24")
def test_an_answer_from_long_ago_sets_no_clock(site: Site, clock: WrongClock, heard: Heard) -> None:
    """The centre is away; the broker repeats the last answer it kept, to a box that has just booted in 1970."""
    site.start("center")
    boot(site, clock)
    truth = {1: happens(site, clock, 1)}
    errors(site, truth)
    site.wait(lambda: site.waiting() == 0 and any(b'"n":"' in payload for payload in heard.of("ack")))
    answer = next(payload for payload in heard.of("ack") if b'"n":"' in payload)
    answer = json.dumps(json.loads(answer) | {"t": json.loads(answer)["t"] - 3600_000}).encode()
    site.kill("center")
    site.kill("box")
    clock.set(BOOTS[0].timestamp())
    births = len(heard.of("state"))
    heard.client.publish("sk/1/t1/box-1/ack", answer, qos=1, retain=True)
    boot(site, clock)
    truth[2] = happens(site, clock, 2)
    site.wait(lambda: site.waiting() == 1 and len(heard.of("state")) > births)
    published, seen_at = len(heard.of("ev/1")), time.monotonic()
    site.wait(lambda: time.monotonic() > seen_at + ANSWER_S + 1)
    assert len(heard.of("ev/1")) == published, "nothing goes that nobody can put in its place"
    site.start("center")
    assert {n: e for n, e in errors(site, truth).items() if abs(e) > 1} == {}
