"""Views are written with the events they show, on both databases, and go when these do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest
import sqlalchemy as sa

from sekisho.center import views
from sekisho.center.report import tally
from sekisho.center.retention import sweep
from sekisho.center.settings import Retention
from sekisho.center.store import EVENT, Arrival, NewRow, Store
from sekisho.center.views import devices, health, orders
from sekisho.center.views.devices import COVERED, SEEN, WHY
from sekisho.center.views.model import Row, Slice
from sekisho.center.views.orders import HITS_CAP, USE
from sekisho.telemetry.events import Alert, Coverage, Device, Event, FileVerdict, Flow, Health, Share, encode, lane_of

MAC = "02:00:5e:10:00:01"
NOW = "2026-03-02T10:05:00.000000Z"


def row(seq: int, event: Event) -> NewRow:
    return NewRow(seq, lane_of(event), str(event.__struct_config__.tag), event.at, encode(event))


def add(store: Store, *events: Event, first: int = 1, tenant: str = "t1") -> None:
    with store.transaction():
        store.add(tenant, f"box-{tenant}", "e", [row(first + n, event) for n, event in enumerate(events)], NOW)


def hour(**more: object) -> Coverage:
    return Coverage(at="2026-03-02T10:00:01Z", mac=MAC, hour="2026-03-02T09:00:00Z", **more)  # type: ignore[arg-type]


def test_rows_have_the_ids_under_which_their_events_are_stored(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Row] = []
    monkeypatch.setattr(views, "SLICES", (Slice("test", (), lambda _db, rows: taken.extend(rows)),))
    store = Store(store_url)
    add(store, Device(at=NOW, mac=MAC), hour())
    add(store, Device(at=NOW, mac=MAC), Device(at=NOW, mac=MAC), first=2)
    with store.database.reading() as db:
        stored = db.execute(sa.select(EVENT.c.id, EVENT.c.seq).order_by(EVENT.c.id)).all()
    assert [(r.id, r.seq) for r in taken] == [tuple(pair) for pair in stored]
    assert [r.seq for r in taken] == [1, 2, 3]
    store.close()


def test_a_fault_in_a_view_stops_no_event_and_is_counted(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(db: sa.Connection, rows: object) -> None:
        db.execute(SEEN.delete())
        raise KeyError("ours")

    store = Store(store_url)
    add(store, Device(at=NOW, mac=MAC))
    monkeypatch.setattr(views, "SLICES", (Slice("test", (), fail),))
    add(store, Device(at=NOW, mac=MAC), first=2)
    with store.database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(SEEN)) == 1, "what it began is undone"
        assert db.execute(sa.select(views.FAULT.c.slice, views.FAULT.c.rows)).all() == [("test", 1)]
    assert store.last_id() >= 2
    store.close()


def test_an_hour_told_again_word_for_word_counts_once_and_another_word_is_added(store_url: str) -> None:
    store = Store(store_url)
    told = hour(inspected=100, opaque=50, bypassed=[Share("engine_hung", 7)])
    add(store, told, told)
    add(store, Coverage(at="2026-03-02T10:00:09Z", mac=MAC, hour=told.hour, inspected=1), first=3)
    with store.database.reading() as db:
        assert db.execute(sa.select(COVERED.c.inspected, COVERED.c.opaque, COVERED.c.bypassed)).all() == [(101, 50, 7)]
        assert db.execute(sa.select(WHY.c.why, WHY.c.octets)).all() == [("engine_hung", 7)]
    store.close()


def test_a_device_keeps_its_newest_word_and_its_first_and_last_sight(store_url: str) -> None:
    store = Store(store_url)
    add(store, hour(inspected=1))
    add(store, Device(at="2026-03-02T08:00:00Z", mac=MAC, name="new", ipv4=["192.168.1.2", "no"]), first=2)
    add(store, Device(at="2026-03-01T08:00:00Z", mac=MAC, name="old", first_seen="2026-03-01T07:00:00Z"), first=3)
    with store.database.reading() as db:
        found = db.execute(sa.select(SEEN.c.name, SEEN.c.addresses, SEEN.c.first_seen, SEEN.c.last_seen)).one()
    assert tuple(found) == ("new", "192.168.1.2", "2026-03-01T07:00:00Z", "2026-03-02T10:00:00Z")
    store.close()


@pytest.mark.parametrize(
    "event",
    [
        hour(inspected=1 << 62, opaque=-5, bypassed=[Share("x" * 65, 1 << 62)] * 20),
        Coverage(at=NOW, mac="<script>", hour="2026-03-02T09:00:00Z"),
        Coverage(at=NOW, mac=MAC, hour="2099-03-02T09:00:00Z"),
        Coverage(at=NOW, mac=MAC, hour="2026-13-02T09:00:00Z"),
        Device(at=NOW, mac=MAC, name="a\0b", first_seen="\0", last_seen="2026", ipv4=["\0"]),
        Alert(at=NOW, sid=1 << 63),
        Alert(at=NOW, flow=Flow(mac="\0"), exception="\0", until="\0"),
        Alert(at=NOW, exception="e", until="\0"),
        FileVerdict(at=NOW, flow=Flow(mac="\0"), outcome="blocked"),
    ],
)
def test_a_hostile_box_stops_no_view(store_url: str, event: Event) -> None:
    store = Store(store_url)
    add(store, event)
    with store.database.reading() as db:
        assert not db.execute(sa.select(views.FAULT)).all()
        assert db.scalar(sa.select(sa.func.coalesce(sa.func.max(COVERED.c.opaque), 0))) == 0
    store.close()


def test_counts_that_no_database_can_add_stop_no_view(store_url: str) -> None:
    store = Store(store_url)
    add(store, *[Alert(at=NOW, exception="e", count=(1 << 62) - 1)] * 8)
    add(store, Alert(at=NOW, exception="e", count=3), first=9)
    with store.database.reading() as db:
        assert not db.execute(sa.select(views.FAULT)).all()
        assert db.scalar(sa.select(USE.c.hits)) == HITS_CAP
    store.close()


def test_what_one_box_says_costs_no_other_box_its_rows(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(db: sa.Connection, rows: Sequence[Row]) -> None:
        devices.take(db, rows)
        if any(row.box == "bad" for row in rows):
            raise OverflowError("what nobody thought of")

    monkeypatch.setattr(views, "SLICES", (Slice("test", (), take),))
    store = Store(store_url)
    with store.transaction():
        arrivals = [Arrival(f"t-{box}", box, "e", [row(1, Device(at=NOW, mac=MAC))]) for box in ("a", "bad", "z")]
        store.add_all(arrivals, NOW)
    with store.database.reading() as db:
        assert set(db.scalars(sa.select(SEEN.c.box))) == {"a", "z"}
        assert db.execute(sa.select(views.FAULT.c.slice, views.FAULT.c.rows)).all() == [("test", 1)]
    store.close()


def test_names_a_box_makes_up_fill_no_table(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "USES_CAP", 3)
    store = Store(store_url)
    add(store, *(Health(at=NOW, part=f"p{n:03}", state="new") for n in range(health.PARTS_CAP + 20)))
    add(store, *(Alert(at=NOW, exception=f"e{n}") for n in range(5)), first=200)
    add(store, Health(at=NOW, part="p000", state="newer"), Health(at=NOW, part="q"), Alert(at=NOW, exception="e0"),
        Alert(at=NOW, exception="e9"), first=300)  # fmt: skip
    with store.database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(health.PART)) == health.PARTS_CAP
        assert db.scalar(sa.select(health.PART.c.state).where(health.PART.c.part == "p000")) == "newer"
        assert {name: hits for name, hits in db.execute(sa.select(USE.c.exception, USE.c.hits))} == dict(
            e0=2, e1=1, e2=1
        )
    store.close()


def test_nothing_told_of_the_far_future_stays_for_ever(store_url: str) -> None:
    store = Store(store_url)
    add(store, Device(at=NOW, mac=MAC, first_seen="9999-01-01T00:00:00Z", last_seen="9999-01-01T00:00:00Z"),
        Coverage(at=NOW, mac=MAC, hour="9999-01-01T00:00:00Z", seconds=3600),
        Coverage(at=NOW, mac=MAC, hour="2026-13-01T00:00:00Z", seconds=3600))  # fmt: skip
    list(sweep(store, Retention(), dt.date(2029, 7, 3)))
    with store.database.reading() as db:
        assert not any(db.scalar(sa.select(sa.func.count()).select_from(table)) for table in (SEEN, tally.WATCH))
    store.close()


def test_what_views_keep_goes_when_its_time_is_over(store_url: str) -> None:
    store = Store(store_url)
    add(store, Device(at="2026-03-02T08:00:00Z", mac=MAC), hour(bypassed=[Share("too_large", 3)]))
    list(sweep(store, Retention(), dt.date(2026, 3, 3)))
    with store.database.reading() as db:
        assert all(db.scalar(sa.select(sa.func.count()).select_from(table)) for table in (SEEN, COVERED, WHY))
    list(sweep(store, Retention(), dt.date(2026, 7, 3)))
    with store.database.reading() as db:
        assert not any(db.scalar(sa.select(sa.func.count()).select_from(table)) for table in (SEEN, COVERED, WHY))
    store.close()
