"""Every question a page asks the database is answered by an index, however much is stored."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import sqlalchemy as sa
from objects import rollout
from office import BOXES, US, Client, Office
from playground import MAC, every_kind

from sekisho.appliance.core import utc
from sekisho.center.portal.rendering import MENU

GROWS: Final = (
    *("event", "passage", "active", "alert", "alert_note", "alert_hour", "covered", "covered_why", "device_seen"),
    *("box_release", "rollout_box", "rollout_note", "job_state", "job_box"),
    *("tally", "tally_device", "box_moment", "box_vitals", "report_count", "report_watch", "notice", "audit"),
)
"""Tables that grow with what is stored: no page reads one from end to end."""
PATHS: Final = (
    *sorted({path for _, path, _ in MENU}),
    *("/devices?show=partly", f"/devices?before=2026-11-01T00:00:00Z,{BOXES[US]},{MAC}"),
    f"/devices/{BOXES[US]}/{MAC}",
    *("/log?kind=tls", f"/log?mac={MAC}", "/log?site=www.example", f"/log?mac={MAC}&site=www.example&kind=web"),
    *(
        "/log?after=1790000000000000-5",
        "/log?since=2026-01-01&until=2026-12-31",
        "/log.csv",
        "/log.csv?site=www.example",
    ),
    *("/statistics?by=week", "/statistics?by=month", "/statistics.csv"),
    f"/health-of-boxes/{BOXES[US]}",
    *(f"/settings/utm/{BOXES[US]}", f"/settings/utm/{BOXES[US]}/update", "/fleet/rollouts"),
    *("/alerts?stars=3", "/alerts?state=open"),
)


@contextmanager
def asked() -> Iterator[list[tuple[str, Any]]]:
    """What is asked of any database meanwhile, with its values."""
    heard: list[tuple[str, Any]] = []

    def hear(_db: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")) and not many:
            heard.append((statement, values))

    sa.event.listen(sa.Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", hear)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Office, Client]]:
    office = Office(tmp_path_factory.mktemp("plans"))
    for hours in (1, 30, 200):
        office.feed(*every_kind(utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(hours=hours))))
    rollout(office, US)
    yield office, office.client("operator")
    office.close()


@pytest.mark.parametrize("path", PATHS)
def test_no_page_reads_a_growing_table_from_end_to_end(full: tuple[Office, Client], path: str) -> None:
    office, client = full
    with asked() as heard:
        assert client.get(path).status_code == 200
    assert heard
    tables = "|".join(GROWS)
    with office.store.database.reading() as db:
        for statement, values in heard:
            for plan in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):
                assert not re.match(rf"SCAN ({tables})\b", plan[3]), (statement, plan[3])


@pytest.mark.parametrize("path", ["/log", f"/log?mac={MAC}", "/devices"])
def test_pages_are_read_in_the_order_of_their_index(full: tuple[Office, Client], path: str) -> None:
    """Nothing is sorted that grows: a page of the log is the end of an index."""
    office, client = full
    with asked() as heard:
        assert client.get(path).status_code == 200
    with office.store.database.reading() as db:
        for statement, values in heard:
            if "FROM passage" in statement or ("FROM device_seen" in statement and "LIMIT" in statement):
                plans = [plan[3] for plan in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
                assert not [plan for plan in plans if "TEMP B-TREE FOR ORDER BY" in plan], (statement, plans)
                assert any("tenant=?" in plan for plan in plans), (statement, plans)
