"""What is too old goes, whole days at a time; the rest stays, and nothing that went comes back."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import partitions, retention
from sekisho.center.notify import desk
from sekisho.center.settings import Days, Retention
from sekisho.center.store import EVENT, NewRow, Store
from sekisho.lab.postgres import Postgres
from sekisho.telemetry.events import Alert, encode

TODAY = dt.date(2026, 11, 21)
POLICY = Retention(Days(verdicts=30, alerts=20, metadata=10), {"brief": Days(verdicts=5, alerts=5, metadata=5)})


def put(store: Store, tenant: str, box: str, seq: int, lane: int, days_ago: int) -> None:
    received = f"{TODAY - dt.timedelta(days=days_ago)}T03:04:05.000006Z"
    row = NewRow(seq, lane, "alert", received, encode(Alert(at=received, sid=seq)))
    with store.transaction():
        store.add(tenant, box, "e", [row], received)


def left(store: Store) -> list[tuple[str, int]]:
    with store.database.reading() as db:
        found = db.execute(sa.select(EVENT.c.box, EVENT.c.seq).order_by(EVENT.c.box, EVENT.c.seq))
        return [(box, seq) for box, seq in found]


def fill(store: Store) -> None:
    ages = (40, 30, 25, 20, 15, 10, 6, 5, 0)
    for seq, days in enumerate(ages, 1):
        for tenant, box in (("t", "long"), ("brief", "short")):
            for lane in range(3):
                put(store, tenant, box, seq + 10 * lane, lane, days)


def test_each_lane_and_each_tenant_keeps_its_days(store_url: str) -> None:
    store = Store(store_url)
    fill(store)
    gone = list(retention.sweep(store, POLICY, TODAY))
    long = [("long", seq) for seq in (*range(2, 10), *range(14, 20), *range(26, 30))]
    short = [("short", seq + 10 * lane) for lane in range(3) for seq in (8, 9)]
    assert left(store) == long + short
    assert gone and sum(retention.sweep(store, POLICY, TODAY)) == 0
    assert [row.box for row in store.events(limit=1)] == ["long"]


def test_a_step_is_small_and_a_sweep_may_end_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 4)
    store = Store(tmp_path / "events.db")
    fill(store)
    whole = len(left(store))
    sweep = retention.sweep(store, POLICY, TODAY)
    assert 0 < next(sweep) <= 4
    sweep.close()
    assert whole - 4 <= len(left(store)) < whole
    assert all(step <= 4 for step in retention.sweep(store, POLICY, TODAY))
    assert len(left(store)) == 18 + 6


def test_what_went_does_not_come_back_however_late_it_is_repeated(store_url: str) -> None:
    store = Store(store_url)
    put(store, "t", "b", 1, 2, 40)
    put(store, "t", "b", 3, 2, 40)
    list(retention.sweep(store, POLICY, TODAY))
    for days in (39, 3, 0):
        for seq in (1, 3):
            put(store, "t", "b", seq, 2, days)
    assert left(store) == []
    assert [(hole.first, hole.last) for hole in store.missing()] == [(2, 2)]


def test_rows_of_a_wrong_clocks_future_hide_nothing_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_ROWS", 4)
    store = Store(tmp_path / "events.db")
    for seq in range(1, 13):
        put(store, "t", "b", seq, 1, -20_000)
    put(store, "t", "b", 13, 1, 40)
    list(retention.sweep(store, POLICY, TODAY))
    assert left(store) == [("b", seq) for seq in range(1, 13)]


def test_the_daemon_sweeps_daily_and_a_clock_that_leaps_takes_little(store_url: str) -> None:
    store = Store(store_url)
    for seq, days in enumerate((40, 25, 19, 18, 16, 0), 1):
        put(store, "t", "b", seq, 1, days)

    def sweep(day: dt.date, hour: int = 0) -> list[int]:
        sweeper = retention.Sweeper(store, POLICY)  # as after a restart
        while sweeper.step(dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC)):
            pass
        return [seq for _, seq in left(store)]

    assert sweep(TODAY) == [3, 4, 5, 6]
    leap = dt.date(2099, 1, 1)
    assert sweep(leap) == [4, 5, 6]
    assert sweep(leap, 18) == [4, 5, 6]
    assert sweep(leap, 20) == [5, 6]
    assert sweep(TODAY + dt.timedelta(days=1)) == [5, 6]
    assert sweep(TODAY + dt.timedelta(days=3)) == [5, 6]
    assert sweep(TODAY + dt.timedelta(days=5)) == [6]


def test_days_are_made_while_notices_are_planned(postgres: Postgres) -> None:
    store = Store(postgres.database())
    with store.database.transaction() as planning:
        desk.planner_lock(planning)
        with store.database.transaction() as db:
            db.execute(sa.text("SET LOCAL lock_timeout = 500"))
            partitions.make(db, [TODAY])
    store.close()


def test_days_are_made_before_they_come_and_dropped_whole(postgres: Postgres) -> None:
    store = Store(postgres.database())
    put(store, "t", "b", 1, 1, 25)
    put(store, "t", "b", 2, 1, 0)

    def days(lane: int) -> list[dt.date]:
        with store.database.reading() as db:
            return [day for of, day in partitions.existing(db) if of == lane]

    assert days(1)[-1] == TODAY + dt.timedelta(days=partitions.AHEAD_DAYS)
    assert TODAY - dt.timedelta(days=25) in days(1)
    list(retention.sweep(store, POLICY, TODAY))
    assert days(1)[0] == TODAY - dt.timedelta(days=20)
    assert days(2)[0] == TODAY


def test_dropping_waits_for_no_reader_and_is_done_the_next_time(postgres: Postgres) -> None:
    store = Store(postgres.database())
    put(store, "t", "b", 1, 1, 25)
    with store.database.reading() as reader:
        reader.execute(sa.select(EVENT)).all()
        with pytest.raises(DeviceFault):
            list(retention.sweep(store, POLICY, TODAY))
        put(store, "t", "b", 2, 1, 0)
    list(retention.sweep(store, POLICY, TODAY))
    assert left(store) == [("b", 2)]
