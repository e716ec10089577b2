"""The alerts' pages: what somebody sees of a detection, and what they do about it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from attacks import MAC, calls_out, ids, listed, probed
from office import THEM, Office

from sekisho.telemetry.events import Alert, Bypass, Device, Event, FileVerdict, Flow, Health

HOSTILE = "\"><script>alert(1)</script>\u202e'{{7*7}}" + "x" * 65_536


@pytest.mark.parametrize(("locale", "words"), [("ja", "ウイルスの指令元と通信"), ("en", "malware control server")])
def test_an_alert_says_in_plain_words_what_happened_and_what_to_do(
    office: Office, ago: Callable[..., str], locale: str, words: str
) -> None:
    device = Device(at=ago(days=1), mac=MAC, name="KEIRI-PC", kind="computer", vendor="NEC")
    office.feed(device, calls_out(ago(minutes=5), host="evil.example"))
    client = office.client(locale=locale)  # type: ignore[arg-type]
    assert words in client.get("/alerts").text
    page = client.get(f"/alerts/{ids(office)[0]}").text
    for said in (words, "KEIRI-PC", "NEC", "evil.example", "2029340", "192.168.1.10", MAC):
        assert said in page


def test_what_nobody_is_told_of_is_no_alert(office: Office, ago: Callable[..., str]) -> None:
    office.feed(Alert(at=ago(), sid=1), Health(at=ago(), part="engine", state="started"))
    assert ids(office) == []


def test_filters_narrow_the_list_and_combine(office: Office, ago: Callable[..., str]) -> None:
    box = Bypass(at=ago(), state="lasts", stars=2, why_stars="inspection_stays_off")
    file = FileVerdict(
        at=ago(), outcome="blocked", file_name="請求書.EXE", stars=2, why_stars="file_stopped", flow=Flow(mac=MAC)
    )
    office.feed(calls_out(ago(), host="Evil.Example"), probed(ago()), box, file)
    first, second, third, fourth = ids(office)
    client = office.client()
    for query, found in {
        "": [fourth, third, second, first],
        "stars=3": [first],
        "stars=2": [fourth, third],
        f"mac={MAC}": [fourth, first],
        f"mac={MAC}&stars=3": [first],
        "function=box": [third],
        "function=file&stars=2&show=open": [fourth],
        "q=evil.EX": [first],
        "q=請求書": [fourth],
        "q=%25": [],
        "show=done": [],
        "since=2000-01-01": [fourth, third, second, first],
        "until=2000-01-01": [fourth, third, second, first],  # nothing is that late: it ends nothing
        "since=2199-01-01": [],
        "stars=9&show=x&function=y&since=z&before=-1": [fourth, third, second, first],
    }.items():
        expected = [] if query == "until=2000-01-01" else found
        assert listed(client.get(f"/alerts?{query}").text) == expected, query


def test_pages_follow_each_other_without_a_gap(office: Office, ago: Callable[..., str]) -> None:
    office.feed(*(probed(ago(seconds=number)) for number in range(120)))
    client, path, seen = office.client(), "/alerts", list[int]()
    while path:
        page = client.get(path).text
        seen += listed(page)
        further = re.search(r'href="(/alerts\?[^"]*before=\d+)"', page)
        path = further[1].replace("&amp;", "&") if further else ""
    assert seen == list(reversed(ids(office)))


def test_what_is_handled_is_marked_and_remembered_with_who_did_it(office: Office, ago: Callable[..., str]) -> None:
    office.feed(calls_out(ago()))
    (number,) = ids(office)
    client = office.client()
    path = f"/alerts/{number}"
    assert client.submit(f"{path}/state", to="done").headers["location"] == path
    page = client.get(path).text
    assert "対応済みにしました。" in page and "未対応に戻す" in page
    assert listed(client.get("/alerts?show=done").text) == [number]
    client.submit(f"{path}/state", to="open")
    assert listed(client.get("/alerts?show=done").text) == []
    assert client.get(path).text.count("未対応に戻しました。") >= 1


def test_a_note_is_kept_as_plain_text(office: Office, ago: Callable[..., str]) -> None:
    office.feed(calls_out(ago()))
    path, client = f"/alerts/{ids(office)[0]}", office.client()
    assert client.submit(f"{path}/note", text="<b>検査した</b>\r\n\u202e問題なし" + "y" * 5000).status_code == 303
    page = client.get(path).text
    assert "&lt;b&gt;検査した&lt;/b&gt;" in page and "<b>検査" not in page and "\u202e" not in page
    assert page.count("y") < 1500
    assert client.submit(f"{path}/note", text=" \n ").status_code == 303
    assert office.client("member").submit(f"{path}/note", text="x").status_code == 403


def test_who_opened_it_first_is_remembered_for_the_customers_people_only(
    office: Office, ago: Callable[..., str]
) -> None:
    office.feed(calls_out(ago()))
    path = f"/alerts/{ids(office)[0]}"
    assert "この画面を開きました" not in office.client("helpdesk").get(path).text
    assert "この画面を開きました" in office.client("member").get(path).text


def test_another_customers_alert_is_as_if_it_were_not_there(office: Office, ago: Callable[..., str]) -> None:
    office.feed(calls_out(ago()), tenant=THEM)
    (theirs,) = ids(office, THEM)
    client = office.client()
    assert client.get(f"/alerts/{theirs}").status_code == 404
    assert client.submit(f"/alerts/{theirs}/state", to="done").status_code == 404
    assert client.submit(f"/alerts/{theirs}/note", text="x").status_code == 404
    assert listed(client.get("/alerts").text) == []
    assert office.client("helpdesk").get(f"/alerts/{theirs}").status_code == 200


@pytest.mark.parametrize("number", ["0", "99999999999999999999999", "-1", "abc"])
def test_a_number_that_is_none_is_not_found(office: Office, number: str) -> None:
    assert office.client().get(f"/alerts/{number}").status_code == 404


def test_strangers_words_are_shown_harmless_everywhere(office: Office, ago: Callable[..., str]) -> None:
    word = HOSTILE[:60]
    hostile: list[Event] = [
        Device(at=ago(days=1), mac=MAC, name='"><script>alert(2)</script>', kind="camera"),
        calls_out(ago(), host=HOSTILE, url=HOSTILE, signature=HOSTILE, mail_subject=HOSTILE, file_name=HOSTILE),
        FileVerdict(at=HOSTILE, outcome="blocked", file_name="\x00" + HOSTILE, stars=2, why_stars=HOSTILE, rules=["r"]),
    ]
    office.feed(*hostile)
    client = office.client()
    for path in ("/", "/alerts", f"/alerts?q={word}&mac={word}", *(f"/alerts/{number}" for number in ids(office))):
        answer = client.get(path, params=None)
        assert answer.status_code == 200, path
        assert "<script>alert" not in answer.text and "\u202e" not in answer.text, path
        assert len(answer.text) < 120_000


def test_an_exception_is_offered_where_a_rule_decided(office: Office, ago: Callable[..., str]) -> None:
    box = Bypass(at=ago(), state="lasts", stars=2, why_stars="inspection_stays_off")
    office.feed(calls_out(ago()), box)
    rule, own = ids(office)
    client = office.client()
    assert f"/exceptions/new?alert={rule}" in client.get(f"/alerts/{rule}").text
    assert "/exceptions/new" not in client.get(f"/alerts/{own}").text
    assert "/exceptions/new" not in office.client("member").get(f"/alerts/{rule}").text


def test_other_times_of_the_same_thing_are_listed(office: Office, ago: Callable[..., str]) -> None:
    office.feed(calls_out(ago(days=2)), calls_out(ago(days=1)), probed(ago()))
    first, second, _ = ids(office)
    assert listed(office.client().get(f"/alerts/{second}").text) == [first]
