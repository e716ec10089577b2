"""Cases open in the transaction that stores their alert, on both databases; nothing of a person's work is lost."""

from __future__ import annotations

import datetime as dt
import threading

import pytest
import sqlalchemy as sa

from sekisho.center.cases import desk, opening, record
from sekisho.center.cases.desk import Actor
from sekisho.center.cases.steps import Close, Mark, Note, Refused
from sekisho.center.cases.tables import ALERT, CASE, LOG
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import NewRow, Store
from sekisho.center.views.rebuild import rebuild
from sekisho.telemetry.events import Alert, Flow, encode

AT = "2026-11-01T03:00:00.000000Z"
NOW = dt.datetime(2026, 11, 2, tzinfo=dt.UTC)
SOMEBODY = Actor("aoki@example.com", "member")


def row(seq: int, device: int = 23, why: str = "calls_out", *, again: bool = False, at: str = AT) -> NewRow:
    flow = Flow(f"192.168.1.{device}", 5, "203.0.113.9", 443, "TCP", f"02:00:00:00:00:{device:02x}")
    event = Alert(at, stars=3, why_stars=why, flow=flow, sid=1, direction="out")
    return NewRow(seq, 1, "alert", at, encode(event), stars=3, again=again)


def add(store: Store, *rows: NewRow, box: str = "b1", tenant: str = "t1") -> None:
    with store.transaction():
        store.add(tenant, box, "e1", rows, AT)


def cases(store: Store, tenant: str = "t1") -> list[desk.Case]:
    with store.database.reading() as db:
        return desk.listed(db, only(tenant), closed=False)


def kinds(store: Store, case: str) -> list[str]:
    with store.database.reading() as db:
        kept = record.read(db, case, 100)
    assert record.whole(kept)
    return [one.entry.kind for one in kept]


def test_one_case_for_each_box_device_and_reason(store_url: str) -> None:
    store = Store(store_url)
    add(store, row(1), row(2), row(3, device=24), row(4, why="broken_in"))
    add(store, row(5), row(6))
    add(store, row(1), box="b2")
    add(store, row(1), box="b3", tenant="t2")
    assert sorted((case.box, case.why, case.number) for case in cases(store)) == [
        ("b1", "broken_in", 1), ("b1", "calls_out", 1), ("b1", "calls_out", 4), ("b2", "calls_out", 1),
    ]  # fmt: skip
    assert len(cases(store, "t2")) == 1
    store.close()


def test_a_flood_of_repeats_is_written_down_ever_more_rarely(store_url: str) -> None:
    store = Store(store_url)
    for start in range(0, 40, 4):
        add(store, *(row(start + n) for n in range(1, 5)))
    (case,) = cases(store)
    assert case.number == 40
    assert kinds(store, case.id) == ["opened", "repeated", "repeated", "repeated", "repeated"]
    with store.database.reading() as db:
        assert db.execute(sa.select(sa.func.count()).select_from(ALERT)).scalar_one() == 40
    store.close()


def test_making_the_views_anew_keeps_what_people_did_and_opens_nothing(store_url: str) -> None:
    store = Store(store_url)
    add(store, row(1), row(2, device=24), row(3, device=25, again=True))
    first, second = (case.id for case in cases(store))
    with store.transaction() as db:
        desk.move(db, EVERYONE, first, SOMEBODY, Note("見ました"), NOW)
        desk.move(db, EVERYONE, second, SOMEBODY, Close("false_alarm", "x"), NOW)
    with store.database.reading() as db:
        before = [db.execute(sa.select(table)).all() for table in (CASE, ALERT, LOG)]
    rebuild(store.database)
    with store.database.reading() as db:
        assert [db.execute(sa.select(table)).all() for table in (CASE, ALERT, LOG)] == before
    store.close()


def test_two_workers_that_see_the_same_open_one_case(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(2)]
    begin = threading.Barrier(2)

    def work(store: Store, epoch: str) -> None:
        for n in range(1, 11):
            begin.wait(10)
            with store.transaction():
                store.add("t1", "b1", epoch, [row(n, device=30 + n)], AT)

    threads = [threading.Thread(target=work, args=(s, f"e{i}")) for i, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = cases(stores[0])
    assert [case.number for case in found] == [2] * 10
    for case in found:
        assert kinds(stores[0], case.id) == ["opened", "repeated"]
    for store in stores:
        store.close()


def test_two_people_at_once_leave_one_whole_log(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(2)]
    add(stores[0], row(1))
    (case,) = cases(stores[0])
    begin = threading.Barrier(2)

    def work(store: Store) -> None:
        for n in range(10):
            begin.wait(10)
            with store.transaction() as db:
                desk.move(db, EVERYONE, case.id, SOMEBODY, Note(str(n)), NOW)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(stores[0], case.id) == ["opened"] + ["note"] * 20
    for store in stores:
        store.close()


def test_a_box_gone_mad_cannot_open_cases_without_end(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "OPEN_CAP", 5)
    store = Store(store_url)
    add(store, *(row(n, device=n) for n in range(1, 20)))
    add(store, row(1), box="b2", tenant="t2")
    assert (len(cases(store)), len(cases(store, "t2"))) == (5, 1)
    store.close()


def test_a_refused_move_leaves_no_trace(store_url: str) -> None:
    store = Store(store_url)
    add(store, row(1))
    (case,) = cases(store)
    with pytest.raises(Refused, match="update_first"), store.transaction() as db:
        desk.move(db, EVERYONE, case.id, SOMEBODY, Mark("scanned", done=True, finding="nothing"), NOW)
    with store.transaction() as db:
        assert desk.move(db, only("t2"), case.id, SOMEBODY, Note("x"), NOW) is None
    assert kinds(store, case.id) == ["opened"]
    store.close()
