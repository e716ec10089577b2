"""The first page says what is known, and never calls safe what is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from attacks import calls_out, ids, listed, probed
from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center.portal import home
from sekisho.center.pulse import PULSE
from sekisho.center.store import BoxState
from sekisho.center.views.alert_list import Sum
from sekisho.telemetry.events import Bypass

WORDS = {
    "good": "見守り中です",
    "bad": "対応が必要です",
    "unknown": "今は確認できません",
    "none": "UTMがまだつながっていません",
}


def box_is(office: Office, state: str, tenant: str = US) -> None:
    with office.store.transaction():
        office.store.set_state(BoxState(BOXES[tenant], tenant, state, 1, "e1", 1, utc.now()))


def said(office: Office) -> str:
    """Which of the four is the page's heading."""
    page = office.client().get("/").text
    heading = page[page.index('id="standing-title"') :].split("</h1>")[0]
    (level,) = [level for level, words in WORDS.items() if words in heading]
    return level


def test_without_a_box_nothing_is_claimed(office: Office) -> None:
    box_is(office, "on", THEM)
    assert said(office) == "none"


def test_a_box_that_is_there_and_nothing_to_do_is_well(office: Office, ago: Callable[..., str]) -> None:
    box_is(office, "on")
    office.feed(probed(ago()))
    office.feed(calls_out(ago()), tenant=THEM)
    assert said(office) == "good"


def test_a_box_out_of_reach_is_not_called_safe(office: Office) -> None:
    box_is(office, "off")
    assert said(office) == "unknown"


def test_a_centre_that_hears_nothing_knows_nothing(office: Office, ago: Callable[..., str]) -> None:
    box_is(office, "on")
    with office.store.transaction() as db:
        db.execute(PULSE.insert().values(id=1, at=ago(minutes=2)))
    assert said(office) == "unknown"
    with office.store.transaction() as db:
        db.execute(PULSE.update().values(at=ago(seconds=5)))
    assert said(office) == "good"


def test_important_alerts_wait_until_somebody_handles_them(office: Office, ago: Callable[..., str]) -> None:
    box_is(office, "on")
    office.feed(calls_out(ago()))
    assert said(office) == "bad"
    client = office.client()
    (number,) = ids(office)
    assert number in listed(client.get("/").text)
    client.submit(f"/alerts/{number}/state", to="done")
    assert said(office) == "good"


def test_inspection_that_is_off_is_said_until_it_is_back(office: Office, ago: Callable[..., str]) -> None:
    box_is(office, "on")
    office.feed(Bypass(at=ago(minutes=5), state="began", stars=1, why_stars="inspection_off"))
    assert said(office) == "bad"
    office.feed(Bypass(at=ago(minutes=4), state="ended"))
    assert said(office) == "good"


@pytest.mark.parametrize(("zone", "day"), [("Asia/Tokyo", 2), ("UTC", 1), ("America/New_York", 1)])
def test_days_are_those_of_the_viewers_clock(zone: str, day: int) -> None:
    now = dt.datetime(2026, 4, 3, 12, tzinfo=dt.UTC)
    days = home.by_day([Sum("2026-04-01T15", 5, 3, 1)], now, zone)
    assert len(days) == home.DAYS and list(days) == sorted(days)
    assert {at.day for at, one in days.items() if one.detections == 5 and one.blocked == 3} == {day}


def test_who_looks_after_many_is_asked_whom_to_show_and_told_whose_pages_these_are(office: Office) -> None:
    client = office.client("helpdesk", US)
    assert "青木商店 の画面を見ています" in client.get("/").text
    client.submit("/customers/open", tenant=THEM)
    assert "馬場医院 の画面を見ています" in client.get("/").text
    assert "の画面を見ています" not in office.client("admin").get("/").text
