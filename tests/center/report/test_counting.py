"""What a report counts, on both databases: once, in the right hour, and gone when its time is over."""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from sekisho.center.report import tally
from sekisho.center.report.month import Month, read
from sekisho.center.report.often import Often
from sekisho.center.report.tally import COUNT, WATCH
from sekisho.center.settings import Days
from sekisho.center.store import NewRow, Store
from sekisho.center.views.rebuild import rebuild
from sekisho.telemetry.events import Alert, Bypass, Coverage, Event, Flow, encode, lane_of

MAC = "02:00:00:00:00:23"
AT = "2026-11-01T03:20:00.000000Z"


def add(store: Store, *events: Event, first: int = 1, received: str = AT) -> None:
    rows = [
        NewRow(first + n, lane_of(e), str(e.__struct_config__.tag), e.at, encode(e), stars=getattr(e, "stars", 0))
        for n, e in enumerate(events)
    ]
    with store.transaction():
        store.add("t1", "b1", "e1", rows, received)


def alert(why: str = "calls_out", mac: str = MAC, count: int = 1, at: str = AT) -> Alert:
    return Alert(at, stars=3, why_stars=why, flow=Flow("192.168.1.2", 1, "203.0.113.1", 2, "TCP", mac), count=count)


def counted(store: Store) -> list[tuple[str, str, str, int]]:
    with store.database.reading() as db:
        query = sa.select(COUNT.c.hour, COUNT.c.mac, COUNT.c.why, COUNT.c.number).order_by(*COUNT.primary_key)
        return [tuple(row) for row in db.execute(query)]


def watched(store: Store) -> list[tuple[str, int, int]]:
    with store.database.reading() as db:
        return [tuple(row) for row in db.execute(sa.select(WATCH.c.hour, WATCH.c.seconds, WATCH.c.off))]


def test_repeats_count_as_often_as_they_were_and_what_is_unknown_has_a_name(store_url: str) -> None:
    store = Store(store_url)
    add(store, alert(count=5), alert(), alert("<script>", "not a mac"), alert(count=1 << 60, mac=""))
    add(store, Bypass(AT, stars=3, why_stars="inspection_was_off"), first=10)
    assert counted(store) == [
        ("2026-11-01T03", "", "calls_out", tally.WEIGHT_CAP),
        ("2026-11-01T03", "", "weak_sign", 1),
        ("2026-11-01T03", MAC, "calls_out", 6),
    ]
    store.close()


def test_all_devices_of_an_hour_tell_its_seconds_once(store_url: str) -> None:
    store = Store(store_url)
    hour = "2026-11-01T02:00:00Z"
    add(
        store,
        *(Coverage(AT, mac=mac, hour=hour, seconds=1800, off_seconds=1.5) for mac in (MAC, "", "ff:ff:ff:ff:ff:ff")),
    )
    add(store, Coverage(AT, mac="02:00:00:00:00:99", hour=hour, seconds=1800, off_seconds=1.5), first=10)
    assert watched(store) == [("2026-11-01T02", 1800, 15)]
    later = "2026-11-01T03:50:00.000000Z"
    add(store, Coverage(later, mac=MAC, hour=hour, seconds=600), first=20)
    assert watched(store) == [("2026-11-01T02", 2400, 15)], "the clock was set back: more of the same hour"
    store.close()


def test_making_the_views_anew_counts_the_same(store_url: str) -> None:
    store = Store(store_url)
    add(store, alert(count=5), Coverage(AT, mac=MAC, hour="2026-11-01T02:00:00Z", seconds=3600, off_seconds=2))
    add(store, alert(), first=10)
    before = counted(store), watched(store)
    rebuild(store.database)
    assert (counted(store), watched(store)) == before
    store.close()


def test_what_is_past_its_time_goes(store_url: str) -> None:
    store = Store(store_url)
    add(store, alert(), Coverage(AT, mac=MAC, hour="2026-11-01T02:00:00Z", seconds=3600))
    with store.transaction() as db:
        assert tally.forget(db, "t1", Days(alerts=30), dt.date(2026, 11, 20), 100) == 0
        assert tally.forget(db, "t2", Days(alerts=30), dt.date(2026, 12, 20), 100) == 0
        assert tally.forget(db, "t1", Days(alerts=30), dt.date(2026, 12, 20), 100) == 2
    assert counted(store) == []
    store.close()


@given(st.integers(2000, 2098), st.integers(1, 12), st.sampled_from(("Asia/Tokyo", "UTC", "America/New_York")))
def test_months_follow_each_other_without_a_gap(year: int, number: int, zone: str) -> None:
    month = Month(year, number, zone)
    assert month.until == month.after().first
    assert month.after().before() == month
    assert month.days[0].day == 1
    assert 28 <= len(month.days) <= 31
    assert read(str(month), zone, month.first) == month


def test_one_source_is_slowed_down_and_no_other() -> None:
    often = Often(3, 60)
    assert [often.may("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert often.may("b", 0.0)
    assert often.may("a", 61.0)
    for n in range(20_000):
        often.may(f"s{n}", 61.0)
    assert len(often._seen) <= 10_000
