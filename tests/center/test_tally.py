"""Counts are what a person would count in the events, in the days of who looks at them."""

from __future__ import annotations

import datetime as dt
import random
import zoneinfo

import pytest
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import statistics
from sekisho.center.retention import sweep
from sekisho.center.scope import only
from sekisho.center.settings import Retention
from sekisho.center.statistics import By, Count
from sekisho.center.store import NewRow, Store
from sekisho.center.views.counts import SUM_CAP, TALLY, TALLY_DEVICE
from sekisho.telemetry import events as ev
from sekisho.telemetry.events import Event, Flow, encode, lane_of

NOW = dt.datetime(2026, 3, 2, 18, 30, tzinfo=dt.UTC)
FLOW = Flow("192.168.1.9", 1, "203.0.113.7", 443, "TCP", "02:77:00:00:00:01")


def add(store: Store, *events: Event, tenant: str = "t1", first: int = 1) -> None:
    rows = [
        NewRow(n, lane_of(event), str(event.__struct_config__.tag), event.at, encode(event))
        for n, event in enumerate(events, first)
    ]
    with store.transaction():
        store.add(tenant, f"box-{tenant}", "e", rows, utc.text(NOW))


def at(**ago: float) -> str:
    return utc.text(NOW - dt.timedelta(**ago))


def test_every_function_and_outcome_is_counted_with_its_weight(store_url: str) -> None:
    store = Store(store_url)
    add(
        store,
        ev.Alert(at=at(hours=1), flow=FLOW, action="blocked", count=5),
        ev.Alert(at=at(hours=1), flow=FLOW, function="web_guard", action="blocked"),
        ev.Alert(at=at(hours=1), flow=FLOW, function="web_guard", exception="x", count=7),
        ev.Alert(at=at(hours=1), function="keyword"),
        ev.FileVerdict(at=at(hours=1), flow=FLOW, outcome="blocked"),
        ev.FileVerdict(at=at(hours=1), flow=FLOW, outcome="clean"),
        ev.FileVerdict(at=at(hours=1), flow=FLOW, outcome="released_by_policy", reason="too_large"),
        ev.FileVerdict(at=at(hours=1), flow=FLOW, outcome="delivered_then_found"),
        ev.Retro(at=at(hours=1)),
        ev.Web(at=at(hours=1), flow=FLOW),
    )
    add(store, ev.Alert(at=at(hours=1), action="blocked", count=3), first=11)
    add(store, ev.Alert(at=at(hours=1), action="blocked", count=99), tenant="t2")
    with store.database.reading() as db:
        today = statistics.periods(db, only("t1"), "day", "Asia/Tokyo", NOW)[-1]
        (device,) = statistics.devices(db, only("t1"), NOW)
    assert today.functions == {
        "signature": Count(blocked=8),
        "web_guard": Count(blocked=1, excepted=7),
        "keyword": Count(detected=1),
        "file": Count(blocked=1, detected=2, clean=1),
    }
    assert device.functions == {
        "signature": Count(blocked=5),
        "web_guard": Count(blocked=1, excepted=7),
        "file": Count(blocked=1, detected=1),
    }
    assert device.total.found == 8
    store.close()


@pytest.mark.parametrize("by", ["day", "week", "month"])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "UTC", "America/New_York"])
def test_periods_are_those_of_the_viewers_calendar(tmp_path_factory: pytest.TempPathFactory, by: By, zone: str) -> None:
    dice = random.Random(3)
    store = Store(tmp_path_factory.mktemp("tally") / "e.db")
    times = [NOW - dt.timedelta(minutes=dice.randrange(50 * 24 * 60)) for _ in range(300)]
    add(store, *(ev.Alert(at=utc.text(time)) for time in times))
    with store.database.reading() as db:
        told = statistics.periods(db, only("t1"), by, zone, NOW)
    days = [time.astimezone(zoneinfo.ZoneInfo(zone)).date() for time in times]
    assert len(told) == statistics.SPANS[by]
    edges = [period.first for period in told] + [dt.date(2100, 1, 1)]
    for period, after in zip(told, edges[1:], strict=True):
        assert period.total.detected == sum(period.first <= day < after for day in days), period.first
    if by == "week":
        assert {period.first.weekday() for period in told} == {0}
    if by == "month":
        assert {period.first.day for period in told} == {1}
    store.close()


def test_a_box_that_says_any_number_breaks_no_sum(store_url: str) -> None:
    store = Store(store_url)
    for first in (1, 2):
        add(store, ev.Alert(at="1970-01-01T00:00:00Z", flow=FLOW, count=(1 << 62) - 1), first=first)
    with store.database.reading() as db:
        assert statistics.periods(db, only("t1"), "day", "UTC", NOW)[-1].total.detected == 2_000_000
    with store.transaction() as db:
        db.execute(TALLY.update().values(count=SUM_CAP + 1))
    add(store, ev.Alert(at=at(), flow=FLOW), first=3)
    with store.database.reading() as db:
        assert statistics.periods(db, only("t1"), "day", "UTC", NOW)[-1].total.detected == SUM_CAP + 1
    store.close()


def test_counts_go_when_their_time_is_over(store_url: str) -> None:
    store = Store(store_url)
    add(store, ev.Alert(at=at(), flow=FLOW))
    list(sweep(store, Retention(), (NOW + dt.timedelta(days=500)).date()))
    with store.database.reading() as db:
        for table in (TALLY, TALLY_DEVICE):
            assert not db.scalar(sa.select(sa.func.count()).select_from(table))
    store.close()
