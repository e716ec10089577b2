"""Box health: what is said is what the box said, or that nobody knows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import msgspec
import pytest
import sqlalchemy as sa
from office import BOXES, THEM, US, Office
from playground import MAC, every_kind

from sekisho.appliance.core import utc
from sekisho.center.database import insert_new
from sekisho.center.pulse import PULSE
from sekisho.center.store import BoxState
from sekisho.center.views import FAULT
from sekisho.telemetry import events as ev

Ago = Callable[..., str]
PATH = f"/health-of-boxes/{BOXES[US]}"


def state(office: Office, state_: str, at: str, tenant: str = US) -> None:
    with office.store.transaction():
        office.store.set_state(BoxState(BOXES[tenant], tenant, state_, 1, "e1", 1, at))


def beat(office: Office, at: str) -> None:
    with office.store.transaction() as db:
        db.execute(insert_new(db, PULSE), {"id": 1, "at": at})
        db.execute(PULSE.update().values(at=at))


def page(office: Office, path: str = PATH, **who: str) -> str:
    answer = office.client(**who).get(path)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_alive_gone_and_unknown_are_three_different_things(office: Office, ago: Ago) -> None:
    office.feed(*every_kind(ago(minutes=5)))
    beat(office, ago(seconds=5))
    assert "確認できません" in page(office), "no birth was ever heard"
    state(office, "on", ago(hours=5))
    assert "稼働中" in page(office)
    state(office, "lost", ago(hours=1))
    for path in ("/health-of-boxes", PATH):
        assert "つながっていません" in page(office, path)
    beat(office, ago(minutes=10))
    assert "見守りセンター側の都合で" in page(office), "who hears nothing says nothing of others"


def test_vital_signs_are_the_newest_and_the_chart_has_the_hottest(office: Office, ago: Ago) -> None:
    for hours, temperature in ((3, 50.0), (2, 61.5), (1, 84.0)):
        at = ago(hours=hours)
        disk = {"disk_free": 1 << 30, "disk_size": 20 << 30}
        office.feed(ev.Vitals(at=at, temperature=temperature, uptime=7200, version="1.2.3", **disk))
    told = page(office)
    for words in (
        "84.0 °C",
        "高温です",
        "ディスクの空きが少なくなっています",
        "1.2.3",
        "2時間",
        '<td class="number">61.5</td>',
    ):
        assert words in told
    assert "1.1 GB（全体 21 GB）" in told
    assert "測れません" in told, "memory was not told"


def test_inspection_that_was_off_is_on_its_day_and_in_the_timeline(office: Office) -> None:
    now = dt.datetime.now(dt.UTC)
    hour = now.replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=2)
    at = utc.text(hour + dt.timedelta(hours=1))
    begin = utc.text(hour)[:13] + ":00:00Z"
    office.feed(
        ev.Coverage(at=at, mac=MAC, hour=begin, seconds=3600, inspected=10, off_seconds=90.0),
        ev.Bypass(at=at, part="engine", state="ended", reason="hung", seconds=90.0),
        ev.Health(at=at, part="engine", state="reloaded", rules=20123),
        ev.Gap(at=at, first=1, last=9, count=9),
    )
    told = page(office)
    assert "通信の検査が再開しました（止まっていた時間 2分）" in told
    assert "新しいルールで検査しています（ルール 20,123）" in told
    assert "記録 9件を送れませんでした" in told
    assert told.count("記録がありません</td>") == 6, "days without a word are not called well"
    assert "20,123" in told.split("UTMの中の働き")[1]


def test_nothing_told_is_said_so(office: Office, ago: Ago) -> None:
    office.feed(ev.Dns(at=ago(minutes=1), name="x.example"))
    told = page(office, locale="en")
    assert "Not received in the last 7 days" in told
    assert "Nothing to tell of the last 7 days." in told


def test_another_customers_box_is_not_there(office: Office, ago: Ago) -> None:
    office.feed(*every_kind(ago(minutes=5)), tenant=THEM)
    state(office, "on", ago(hours=1), THEM)
    client = office.client()
    assert BOXES[THEM] not in client.get("/health-of-boxes").text
    assert client.get(f"/health-of-boxes/{BOXES[THEM]}").status_code == 404


@pytest.mark.parametrize(
    "event",
    [
        ev.Health(at="", part="<script>alert(1)</script>", state="x\u202e" * 99, detail="<b>" * 99, rules=1 << 62),
        ev.Vitals(at="", temperature=1e308, disk_free=-1, memory_size=1 << 62, version="\u202e<i>"),
        ev.Bypass(at="", reason="\0", seconds=-1e300),
        ev.Gap(at="", first=1, last=2, count=1 << 62, why="\r\n"),
    ],
)
def test_a_hostile_box_breaks_nothing(office: Office, ago: Ago, event: ev.Event) -> None:
    office.feed(msgspec.structs.replace(event, at=ago(minutes=1)))
    told = page(office)
    assert "<script>alert" not in told
    assert "\u202e" not in told
    assert "できごと" in told
    with office.store.database.reading() as db:
        assert not db.execute(sa.select(FAULT)).all()
