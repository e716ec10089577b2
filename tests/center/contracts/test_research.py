"""What is kept for research points to nobody: many share in it, none is most of it, a deletion cannot be read off."""

from __future__ import annotations

import datetime as dt

import hypothesis.strategies as st
import pytest
import sqlalchemy as sa
from hypothesis import given

from sekisho.center import customers
from sekisho.center.contracts import research
from sekisho.center.contracts.tables import RESEARCH
from sekisho.center.database import Database
from sekisho.center.views.counts import TALLY

NOW = dt.datetime(2026, 11, 10, 9, 0, tzinfo=dt.UTC)
DAY = NOW.date() - dt.timedelta(days=research.LATE_DAYS)


@pytest.fixture
def database(store_url: str) -> Database:
    return Database(store_url)


def _tally(database: Database, counts: list[int], day: dt.date = DAY) -> None:
    with database.transaction() as db:
        for number, count in enumerate(counts):
            customers.add(db, f"c-{number:03}")
            key = {
                "tenant": f"c-{number:03}",
                "hour": f"{day}T09",
                "function": "keyword",
                "outcome": "blocked",
                "box": "b",
            }
            db.execute(TALLY.insert().values(**key, count=count))


def _kept(database: Database) -> list[research.Count]:
    with database.reading() as db:
        return research.kept(db, DAY)


def test_a_count_that_many_share_in_is_kept_rounded(database: Database) -> None:
    _tally(database, [7] * 12)
    assert research.step(database, database, NOW)
    assert _kept(database) == [research.Count(str(DAY), "keyword", "blocked", 10, 80)]
    assert not research.step(database, database, NOW), "a day is counted once"
    assert research.step(database, database, NOW + dt.timedelta(days=1))


@pytest.mark.parametrize("counts", [[7] * 9, [1000, *[1] * 50], [], [5]])
def test_a_count_of_few_or_of_one_above_all_is_not_kept(database: Database, counts: list[int]) -> None:
    _tally(database, counts)
    research.step(database, database, NOW)
    assert _kept(database) == []


@given(counts=st.lists(st.integers(0, 10_000), max_size=40))
def test_whatever_is_kept_is_shared_by_many(counts: list[int]) -> None:
    numbers = research.shared(counts)
    if numbers is not None:
        assert len(counts) >= 10 and max(counts) * 2 <= sum(counts)
        assert numbers[0] % 10 == numbers[1] % 10 == 0
        assert 0 <= len(counts) - numbers[0] < 10 and 0 <= sum(counts) - numbers[1] < 10


def test_a_deletion_does_not_change_what_was_kept(database: Database) -> None:
    _tally(database, [7] * 12)
    research.step(database, database, NOW)
    before = _kept(database)
    with database.transaction() as db:
        db.execute(TALLY.delete().where(TALLY.c.tenant == "c-003"))
    research.step(database, database, NOW + dt.timedelta(days=1))
    assert [one for one in _kept(database) if one.day == str(DAY)] == before
    with database.reading() as db:
        assert "tenant" not in RESEARCH.c and db.scalar(sa.select(sa.func.count()).select_from(RESEARCH)) == 3
