"""Alerts on both databases: the same rows, the same answers."""

from __future__ import annotations

import datetime as dt

from sekisho.center.scope import only
from sekisho.center.settings import Days
from sekisho.center.store import NewRow, Store
from sekisho.center.views import alert_list, alerts
from sekisho.center.views.alert_list import Wanted
from sekisho.telemetry.events import Alert, Bypass, Event, Flow, encode, lane_of

AT = "2026-04-01T03:00:00.000000Z"


def rows(*events: Event) -> list[NewRow]:
    return [
        NewRow(n, lane_of(e), str(e.__struct_config__.tag), AT, encode(e), stars=getattr(e, "stars", 0))
        for n, e in enumerate(events, 1)
    ]


def test_both_databases_list_find_count_and_forget_alike(store_url: str) -> None:
    alert = Alert(at=AT, flow=Flow("192.168.1.2", mac="m1"), sid=1 << 60, host="Evil%_.example", stars=3, count=1 << 61)
    off = Bypass(at=AT, state="began", stars=1)
    store = Store(store_url)
    with store.transaction():
        store.add("t1", "b1", "e1", rows(alert, off, alert), AT)
        store.add("t2", "b2", "e1", rows(alert), AT)
    with store.transaction():
        store.add("t1", "b3", "e1", rows(alert), AT)
    with store.database.reading() as db:
        for wanted, number in (
            (Wanted(), 4),
            (Wanted(stars=3, state="open"), 3),
            (Wanted(mac="m1", stars=3), 3),
            (Wanted(function="box"), 1),
            (Wanted(text="evil%_"), 3),
            (Wanted(text="evil__"), 0),
            (Wanted(since=AT, until="2026-04-02"), 4),
            (Wanted(since="2026-04-02"), 0),
        ):
            assert len(alert_list.listed(db, only("t1"), wanted).lines) == number, wanted
        line = alert_list.listed(db, only("t1"), Wanted(stars=3)).lines[0]
        assert line.sid == 1 << 60
        assert alert_list.find(db, only("t2"), line.id) is None
        whole = alert_list.find(db, only("t1"), line.id)
        assert whole is not None and alert_list.others(db, only("t1"), whole) == []
        assert alert_list.waiting(db, only("t1")) == 3
        (hour,) = alert_list.sums(db, only("t1"), "2026")
        assert (hour.detections, hour.important) == (3 * alerts.WEIGHT_CAP, 3)
        assert alert_list.uninspected(db, only("t1")) == [("b1", AT)]
    with store.transaction() as db:
        assert alerts.forget(db, "t1", Days(), dt.date(2028, 1, 1), 100) == 5
    with store.database.reading() as db:
        assert alert_list.listed(db, only("t1"), Wanted()).lines == []
        assert len(alert_list.listed(db, only("t2"), Wanted()).lines) == 1
    store.close()
