"""Alerts as they are stored: written with the events, counted once, found by index, gone with their time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from attacks import MAC, calls_out, ids, probed
from office import THEM, US, Office

from sekisho.center.portal import home, live
from sekisho.center.scope import EVERYONE, Scope, only
from sekisho.center.settings import Days
from sekisho.center.store import BoxState
from sekisho.center.views import alert_list, alerts
from sekisho.center.views.alert_list import Wanted
from sekisho.center.views.alerts import ALERT, ALERT_HOUR, ALERT_NOTE
from sekisho.center.views.rebuild import rebuild
from sekisho.telemetry.events import Alert, Bypass, FileVerdict

NOW = dt.datetime(2026, 4, 10, 3, 0, tzinfo=dt.UTC)


@contextmanager
def asked(db: sa.Connection) -> Iterator[list[tuple[str, Any]]]:
    """The statements that go to the database meanwhile."""
    found: list[tuple[str, Any]] = []

    def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            found.append((statement, parameters))

    sa.event.listen(db, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(db, "before_cursor_execute", note)


def _everything(db: sa.Connection, scope: Scope) -> None:
    """Every query of the home page, the list, an alert's page and the stream."""
    for wanted in (
        Wanted(),
        Wanted(before=5),
        Wanted(stars=3),
        Wanted(stars=3, state="open"),
        Wanted(state="done"),
        Wanted(mac=MAC),
        Wanted(mac=MAC, stars=1, state="open", function="signature", text="x", before=9),
        Wanted(function="file"),
        Wanted(text="evil"),
        Wanted(since="2026-01-01", until="2026-12-31"),
    ):
        for line in alert_list.listed(db, scope, wanted).lines[:1]:
            whole = alert_list.find(db, scope, line.id)
            assert whole is not None
            alert_list.others(db, scope, whole)
            alert_list.notes(db, scope, line.id)
    alert_list.waiting(db, scope)
    alert_list.newest(db, scope)
    alert_list.sums(db, scope, "2026-01-01T00")
    home.standing(db, scope, 0, NOW)
    db.execute(live.new_since(3)).all()
    db.execute(sa.select(sa.func.max(ALERT.c.id))).all()


def test_every_query_has_an_index_and_sorts_nothing(office: Office, ago: Callable[..., str]) -> None:
    office.feed(*(calls_out(ago(minutes=minute)) for minute in range(60)))
    with office.store.transaction():
        office.store.set_state(BoxState("box-aoki-1", US, "on", 1, "e1", 1, ago()))
    with office.store.database.reading() as db:
        with asked(db) as statements:
            _everything(db, only(US))
        assert len(statements) > 15
        for statement, parameters in statements:
            for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                step = row[3]
                bounded = step.startswith(("SCAN pulse", "SCAN anon"))  # one row; a query's own bounded rows
                assert not step.startswith("SCAN") or bounded, (statement, step)
                assert "TEMP B-TREE" not in step, (statement, step)
                if "alert.mac = ?" in statement:
                    assert "alert_by_mac" in step, (statement, step)


def test_filters_beyond_an_index_look_through_so_many_rows_and_say_where_to_go_on(
    office: Office, ago: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_list, "WINDOW", 10)
    office.feed(calls_out(ago(), host="needle.example"), *(probed(ago()) for _ in range(25)))
    with office.store.database.reading() as db:
        pages, before = 0, 0
        while True:
            found = alert_list.listed(db, only(US), Wanted(text="needle", before=before))
            pages += 1
            if found.lines:
                break
            assert found.more_to_search and found.next != before
            before = found.next
    assert pages == 3 and found.lines[0].id == ids(office)[0]


def test_hours_count_what_was_detected_stopped_and_important(office: Office) -> None:
    at, next_hour = "2026-04-01T03:59:59.000000Z", "2026-04-01T04:00:00.000000Z"
    file = FileVerdict(at=at, outcome="released_by_policy", stars=1, why_stars="file_unread")
    bypass = Bypass(at=at, state="lasts", stars=3, why_stars="inspection_stays_off")
    unseen = Alert(at=at, action="blocked", count=9)
    office.feed(calls_out(at, count=4), probed(at), file, bypass, unseen, probed(next_hour))
    office.feed(calls_out(at), tenant=THEM)
    with office.store.database.reading() as db:
        first, second = alert_list.sums(db, only(US), "2026-04-01T00")
    assert (first.hour, first.detections, first.blocked, first.important) == ("2026-04-01T03", 6, 5, 2)
    assert (second.hour, second.detections, second.blocked, second.important) == ("2026-04-01T04", 1, 1, 0)


def test_a_box_with_a_clock_in_the_future_counts_when_it_was_received(office: Office) -> None:
    office.feed(calls_out("2199-01-01T00:00:00.000000Z"), calls_out("no time at all"))
    with office.store.database.reading() as db:
        (one,) = alert_list.sums(db, only(US), "2026-01-01T00")
    assert one.detections == 2 and one.hour < "2198"


def test_made_anew_views_keep_what_people_did_and_count_nothing_twice(office: Office, ago: Callable[..., str]) -> None:
    office.feed(calls_out(ago()), probed(ago()), Bypass(at=ago(), state="began", stars=1, why_stars="inspection_off"))
    number, lost, _ = ids(office)
    client = office.client()
    client.submit(f"/alerts/{number}/state", to="done")
    client.submit(f"/alerts/{number}/note", text="looked at")
    with office.store.transaction() as db:
        before = db.execute(sa.select(ALERT_HOUR)).all()
        db.execute(ALERT.delete().where(ALERT.c.id == lost))
    rebuild(office.store.database)
    with office.store.database.reading() as db:
        assert db.execute(sa.select(ALERT_HOUR)).all() == before
        assert db.execute(sa.select(ALERT.c.state).where(ALERT.c.id == number)).scalar() == "done"
        assert alert_list.uninspected(db, only(US)) != []
    assert len(ids(office)) == 3
    assert "looked at" in client.get(f"/alerts/{number}").text


def test_alerts_go_with_their_events_and_take_their_notes_along(office: Office, ago: Callable[..., str]) -> None:
    file = FileVerdict(at=ago(), outcome="blocked", stars=2, why_stars="file_stopped")
    office.feed(calls_out(ago()), file)
    office.feed(calls_out(ago()), tenant=THEM)
    office.client().submit(f"/alerts/{ids(office)[0]}/note", text="n")
    today = dt.datetime.now(dt.UTC).date()
    with office.store.transaction() as db:
        assert alerts.forget(db, US, Days(verdicts=30, alerts=10), today + dt.timedelta(days=10), 100) == 0
        assert alerts.forget(db, US, Days(verdicts=30, alerts=10), today + dt.timedelta(days=11), 100) == 1
        assert db.execute(sa.select(ALERT.c.type).where(ALERT.c.tenant == US)).scalars().all() == ["file"]
        assert db.execute(sa.select(ALERT_NOTE)).all() == []
        late = today + dt.timedelta(days=40)
        while alerts.forget(db, US, Days(verdicts=30, alerts=10), late, 1):
            pass
        assert [row.tenant for row in db.execute(sa.select(ALERT_HOUR.c.tenant))] == [THEM]
    assert ids(office) == [] and len(ids(office, THEM)) == 1


def test_a_box_that_stopped_looking_is_known_until_it_looks_again(office: Office, ago: Callable[..., str]) -> None:
    office.feed(Bypass(at=ago(minutes=5), part="engine", state="began", stars=1, why_stars="inspection_off"))
    with office.store.database.reading() as db:
        assert [box for box, _ in alert_list.uninspected(db, EVERYONE)] == ["box-aoki-1"]
    office.feed(Bypass(at=ago(minutes=4), part="engine", state="ended"))
    with office.store.database.reading() as db:
        assert alert_list.uninspected(db, EVERYONE) == []
