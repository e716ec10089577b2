"""A version lives until a year after its successor, and says so."""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_to_datetime

import pytest
from house import House, Partner

from sekisho.center.api import partners
from sekisho.center.api.versions import VERSIONS, Version

CAME = dt.date(2027, 4, 1)
PRETENDED = (Version("v1", succeeded_on=CAME), Version("v2"))


def at(year: int, month: int, day: int) -> dt.datetime:
    return dt.datetime(year, month, day, tzinfo=dt.UTC)


def test_the_newest_version_says_nothing_of_an_end(house: House) -> None:
    answer = house.client().ask(house.partner(), "GET", "/v1/tenants")
    assert answer.status_code == 200
    assert not {"deprecation", "sunset"} & set(answer.headers)
    assert VERSIONS[-1].succeeded_on is None


@pytest.mark.parametrize("path", ["/v1/tenants", "/v1/tenants/nobody", "/v1/openapi.json", "/v1/tenants?odd=1"])
def test_from_its_successor_on_every_answer_says_until_when_a_version_lives(house: House, path: str) -> None:
    now = at(2027, 4, 1)
    answer = house.client(PRETENDED, lambda: now).ask(_lasting(house), "GET", path)
    assert answer.headers["deprecation"] == f"@{int(now.timestamp())}"  # RFC 9745 2.1
    assert parsedate_to_datetime(answer.headers["sunset"]) == at(2028, 4, 1)  # RFC 8594 3
    assert answer.headers["sunset"].endswith(" GMT")


def test_a_day_before_it_nothing_is_said(house: House) -> None:
    answer = house.client(PRETENDED, lambda: at(2027, 3, 31)).ask(_lasting(house), "GET", "/v1/tenants")
    assert answer.status_code == 200 and "sunset" not in answer.headers


@pytest.mark.parametrize(("now", "status"), [(at(2028, 3, 31), 200), (at(2028, 4, 1), 410)])
def test_it_answers_for_a_whole_year_and_not_longer(house: House, now: dt.datetime, status: int) -> None:
    answer = house.client(PRETENDED, lambda: now).ask(_lasting(house), "GET", "/v1/tenants")
    assert answer.status_code == status
    assert answer.headers["sunset"]


def test_a_version_that_was_succeeded_on_a_leap_day_lives_the_whole_year() -> None:
    assert Version("v1", dt.date(2028, 2, 29)).sunset_at == at(2029, 3, 1)


def _lasting(house: House) -> Partner:
    """A partner whose certificate outlives the years of these tests."""
    made = house.certificate("lasting")
    now = dt.datetime.now(dt.UTC)
    with house.office.store.transaction() as db:
        partners.add(db, made.name, "operator", now=now)
        partners.admit(db, made.name, made.fingerprint, at(2040, 1, 1), now)
    return made
