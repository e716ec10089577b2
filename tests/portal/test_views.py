"""The views as a whole: never a reason for ingest to stop, and to be had anew from the events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from office import THEM, Office
from playground import every_kind

from sekisho.appliance import cli
from sekisho.center import views
from sekisho.center.views import FAULT
from sekisho.center.views.model import Row, Slice


def _content(office: Office) -> dict[str, list[Any]]:
    with office.store.database.reading() as db:
        return {
            table.name: sorted(map(repr, db.execute(sa.select(*(c for c in table.c if c.name != "id"))).all()))
            for slice_ in views.SLICES
            for table in slice_.tables
        }


def test_rebuilt_views_say_the_same(office: Office, ago: Callable[..., str]) -> None:
    for minutes in (4000, 90, 30, 5):
        office.feed(*every_kind(ago(minutes=minutes)))
        office.feed(*every_kind(ago(minutes=minutes)), tenant=THEM)
    before = _content(office)
    with office.store.transaction() as db:
        for slice_ in views.SLICES:
            for table in slice_.tables:
                db.execute(table.delete())
    assert cli.main(["center", "rebuild-views", "--store", str(office.path)]) == 0
    assert _content(office) == before


def test_a_faulty_view_stops_no_event_and_is_counted(
    office: Office, ago: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = sa.Table("half_done", sa.MetaData(), sa.Column("n", sa.Integer))
    with office.store.transaction() as db:
        table.create(db)

    def take(db: sa.Connection, rows: Sequence[Row]) -> None:
        db.execute(table.insert().values(n=1))
        raise ValueError("a slip of ours")

    monkeypatch.setattr(views, "SLICES", (Slice("faulty", (), take), *views.SLICES))
    office.feed(*every_kind(ago(minutes=1)))
    assert len(office.store.events()) == len(every_kind(ago(minutes=1)))
    with office.store.database.reading() as db:
        assert db.execute(sa.select(FAULT.c.slice, FAULT.c.rows)).all() == [("faulty", len(every_kind("")))]
        assert db.execute(sa.select(table)).all() == [], "what it had begun is undone"
