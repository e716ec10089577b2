"""The page of devices says of each what is known of its traffic, and never more."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from office import BOXES, THEM, US, Office

from sekisho.center.portal.amounts import octets, percent
from sekisho.center.portal.audit import AUDIT
from sekisho.telemetry.events import Coverage, Device, Share

Ago = Callable[..., str]
MAC = "02:77:00:00:00:1{}"


def covered(ago: Ago, number: int, hours: float = 2, **octets: object) -> Coverage:
    hour = ago(hours=hours)[:13] + ":00:00Z"
    return Coverage(at=ago(hours=hours - 1), mac=MAC.format(number), hour=hour, **octets)  # type: ignore[arg-type]


def device(ago: Ago, number: int, name: str = "", **more: object) -> Device:
    return Device(at=ago(hours=3), mac=MAC.format(number), name=name, last_seen=ago(hours=3), **more)  # type: ignore[arg-type]


def text(office: Office, path: str = "/devices", **who: str) -> str:
    answer = office.client(**who).get(path)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_a_device_is_called_protected_only_when_nearly_all_of_it_was_looked_at(office: Office, ago: Ago) -> None:
    whys = [Share("engine_hung", 30)]
    office.feed(
        *(device(ago, n, f"PC-{n}") for n in range(4)),
        covered(ago, 0, inspected=500, opaque=495, unseen=5),
        covered(ago, 1, inspected=900, opaque=70, bypassed=whys),
        covered(ago, 2, hours=50, inspected=1000),
    )
    page = text(office)
    cards = {card.split("</a>")[0].rsplit(">", 1)[1]: card for card in page.split('<li class="card">')[1:]}
    assert list(cards) == ["PC-1", "PC-2", "PC-3", "PC-0"], "what needs a look comes first"
    assert "守られています" in cards["PC-0"]
    assert "一部だけ" in cards["PC-1"]
    assert "検査の機能が応答しなかった" in cards["PC-1"]
    assert "確認できません" in cards["PC-2"]
    assert "最後の記録" in cards["PC-2"]
    assert "この7日間、通信の記録がありません" in cards["PC-3"]
    assert "PC-1" in text(office, "/devices?show=partly")
    assert "PC-0" not in text(office, "/devices?show=partly")


def test_traffic_alone_makes_a_device_known(office: Office, ago: Ago) -> None:
    office.feed(covered(ago, 5, inspected=10), covered(ago, 6, opaque=1))
    assert text(office).count("名前のない端末") == 2


def test_bytes_of_nobody_are_told_apart(office: Office, ago: Ago) -> None:
    hour = ago(hours=2)[:13] + ":00:00Z"
    everybody = Coverage(at=ago(hours=1), mac="ff:ff:ff:ff:ff:ff", hour=hour, unseen=12_000)
    office.feed(covered(ago, 1, inspected=10), everybody, Coverage(at=ago(hours=1), hour=hour, inspected=3_000))
    page = text(office)
    assert page.count('<li class="card">') == 1
    assert "15 KB" in page


def test_people_name_a_device_and_it_is_written_down(office: Office, ago: Ago) -> None:
    office.feed(device(ago, 1, "android-77"))
    client, path = office.client(), f"/devices/{BOXES[US]}/{MAC.format(1)}"
    answer = client.submit(path, name="店長のスマホ", whose="青木", standing="expected")
    assert answer.status_code == 303
    page = client.get("/devices").text
    assert "店長のスマホ" in page
    assert "使う人: 青木" in page
    assert "android-77" in client.get(path).text
    with office.store.database.reading() as db:
        assert db.execute(sa.select(AUDIT.c.action, AUDIT.c.about)).all()[-1] == (
            "device.name",
            f"{BOXES[US]} {MAC.format(1)}",
        )
    office.feed(device(ago, 1, "android-78"))
    assert "店長のスマホ" in client.get("/devices").text, "what the device says does not replace it"


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "\u202ecod"])
def test_a_name_that_could_not_be_shown_is_refused(office: Office, ago: Ago, name: str) -> None:
    office.feed(device(ago, 1, "before"))
    client, path = office.client(), f"/devices/{BOXES[US]}/{MAC.format(1)}"
    assert "64" in client.get(client.submit(path, name=name).headers["location"]).text
    assert client.get(path).text.count(name) == 0


def test_a_member_reads_and_does_not_name(office: Office, ago: Ago) -> None:
    office.feed(device(ago, 1, "PC"))
    client, path = office.client("member"), f"/devices/{BOXES[US]}/{MAC.format(1)}"
    assert "<form class=" not in client.get(path).text
    assert client.submit(path, name="x").status_code == 403


def test_another_customers_device_is_not_there(office: Office, ago: Ago) -> None:
    office.feed(device(ago, 1, "THEIRS"), tenant=THEM)
    client = office.client()
    assert "THEIRS" not in client.get("/devices").text
    for box in BOXES.values():
        path = f"/devices/{box}/{MAC.format(1)}"
        assert client.get(path).status_code == 404
        assert client.submit(path, name="mine").status_code == 404


def test_what_a_device_calls_itself_is_text(office: Office, ago: Ago) -> None:
    office.feed(device(ago, 1, "<b>\u202eexe.fdp", vendor="<script>alert(1)</script>"))
    for path in ("/devices", f"/devices/{BOXES[US]}/{MAC.format(1)}"):
        page = text(office, path)
        assert "<script>alert" not in page
        assert "\u202e" not in page


def test_more_devices_than_the_terms_name_is_said(office: Office, ago: Ago) -> None:
    macs = [f"02:77:00:00:01:{n:02x}" for n in range(250)]
    office.feed(*(Device(at=ago(hours=1), mac=mac, last_seen=ago(hours=1), name=mac) for mac in macs))
    page = text(office)
    assert "250台あり、ご利用の目安の 100台を超えています" in page
    more = page.split('href="/devices?before=')[1].split('"')[0]
    rest = text(office, "/devices?before=" + more)
    assert page.count('<li class="card">') + rest.count('<li class="card">') == 250


def test_both_languages_say_it(office: Office, ago: Ago) -> None:
    office.feed(device(ago, 1, "PC"), covered(ago, 1, inspected=1))
    page = text(office, f"/devices/{BOXES[US]}/{MAC.format(1)}", locale="en")
    assert "Protected" in page
    assert "守" not in page.split("<main")[1]


@pytest.mark.parametrize("before", ["x", "a,b", ",,", "2026-01-01T00:00:00Z,box,mac", "%00,1,2"])
def test_a_place_that_was_made_up_is_no_fault(office: Office, ago: Ago, before: str) -> None:
    office.feed(device(ago, 1, "PC"))
    assert office.client().get("/devices?before=" + before).status_code in (200, 400)


def test_the_days_of_a_device_are_the_viewers(office: Office) -> None:
    now = dt.datetime.now(dt.UTC)
    midnight = now.replace(hour=15, minute=0, second=0, microsecond=0) - dt.timedelta(days=2)
    for hours in (-1, 0):  # 23:00 and 24:00 in Tokyo
        hour = (midnight + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:00:00Z")
        at = (midnight + dt.timedelta(hours=hours + 1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        office.feed(Coverage(at=at, mac=MAC.format(1), hour=hour, inspected=1000))
    page = text(office, f"/devices/{BOXES[US]}/{MAC.format(1)}")
    assert page.count('<th scope="row">') == 2


def test_a_share_is_never_rounded_into_a_claim() -> None:
    assert [percent(*pair) for pair in ((0, 5), (1, 1000), (999, 1000), (5, 5), (1, 3), (0, 0))] == [
        "0%", "<1%", ">99%", "100%", "33%", "0%",
    ]  # fmt: skip
    assert [octets(n) for n in (0, 999, 1000, 1_234_567, 99_960_000, 10**15)] == [
        "0 B", "999 B", "1.0 KB", "1.2 MB", "100 MB", "1,000 TB",
    ]  # fmt: skip
