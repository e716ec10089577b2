"""The communication log in the browser and in a spreadsheet: what strangers chose is text in both."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from office import THEM, US, Office
from playground import FLOW, MAC, every_kind

from sekisho.center.portal import records
from sekisho.center.portal.audit import AUDIT
from sekisho.center.report.often import Often
from sekisho.telemetry import events as ev
from sekisho.telemetry.events import Device

Ago = Callable[..., str]


def rows(office: Office, query: str = "", **who: str) -> list[list[str]]:
    answer = office.client(**who).get(f"/log.csv{query}")  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="log.csv"'
    return list(csv.reader(io.StringIO(answer.text.removeprefix("\ufeff"))))


def test_who_asked_for_what_is_there_in_plain_words(office: Office, ago: Ago) -> None:
    office.feed(*every_kind(ago(minutes=5)))
    page = office.client().get("/log").text
    for words in (
        "DESKTOP-01",
        "www.example",
        "GET http://www.example/ 200",
        "暗号化された通信",
        "差出人 a@example.com",
    ):
        assert words in page
    assert "無害化（届く前に止めました）: eicar.com" in page
    assert page.count('<td data-label="日時">') == 6, "alerts and health are elsewhere"


def test_the_form_finds_by_device_kind_site_and_day(office: Office, ago: Ago) -> None:
    office.feed(*every_kind(ago(minutes=5)), ev.Tls(at=ago(days=3), flow=FLOW, sni="old.example"))
    client = office.client()

    def number(query: str) -> int:
        return int(client.get("/log?" + query).text.count('<td data-label="日時">'))

    assert number(f"mac={MAC}") == 7
    assert number("mac=02-77-00-00-00-99") == 0
    assert number("kind=dns") == 1
    assert number("site=WWW.example.") == 3
    assert number(f"since={ago(days=1)[:10]}") == 6
    assert number(f"until={ago(days=2)[:10]}") == 1
    assert number("since=nonsense&kind=nonsense&mac=nonsense&box=nonsense&after=nonsense") == 7


def test_the_next_page_goes_on_where_this_one_ended(office: Office, ago: Ago) -> None:
    office.feed(*(ev.Dns(at=ago(minutes=n), name=f"n{n}.example") for n in range(120)))
    client, path, told = office.client(), "/log?kind=dns", []
    while path:
        page = client.get(path).text
        told += [cell.split("<")[0] for cell in page.split('<td data-label="相手">')[1:]]
        path = page.split('<a class="button quiet" href="/log?')[1].split('"')[0] if "前の記録" in page else ""
        path = "/log?" + path.replace("&amp;", "&") if path else ""
    assert told == [f"n{n}.example" for n in range(120)]


def test_what_a_spreadsheet_would_run_is_text(office: Office, ago: Ago) -> None:
    evil = ["=cmd|'/c calc'!A0", "+1", "-1", "@SUM(A1)", '"=1,2', "a\r\n=1+1", "\t=1", "\u202e=1"]
    office.feed(*(ev.FileVerdict(at=ago(minutes=n), host=host, file_name=host) for n, host in enumerate(evil)))
    office.feed(Device(at=ago(hours=1), mac=MAC, name="=DEVICE()"), ev.Web(at=ago(hours=1), flow=FLOW, url="=X"))
    found = rows(office)
    assert len(found) == 1 + len(evil) + 1, "no cell has made a row"
    assert not [cell for row in found for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert found[-1][2] == "'=DEVICE()"


def test_the_file_has_what_the_page_was_asked_for_and_says_where_it_ends(
    office: Office, ago: Ago, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.feed(*(ev.Dns(at=ago(minutes=n), name=f"n{n}.example") for n in range(900)), *every_kind(ago(minutes=1)))
    assert len(rows(office, "?kind=dns")) == 1 + 901
    monkeypatch.setattr(records, "FILE_ROWS", 600)
    cut = rows(office, "?kind=dns", locale="en")
    assert len(cut) == 1 + 600 + 1
    assert cut[-1] == ["This file ends here. For more, choose a shorter period."]
    with office.store.database.reading() as db:
        noted = db.execute(sa.select(AUDIT.c.action, AUDIT.c.about).order_by(AUDIT.c.id.desc())).first()
    assert noted == ("log.export", "kind=dns")


def test_a_name_of_64_kib_and_marks_that_turn_text_around_are_cut_and_shown(office: Office, ago: Ago) -> None:
    name = "<script>alert(1)</script>\u202e" + "x" * 65536
    office.feed(ev.Web(at=ago(minutes=1), host=name, url=name), ev.Mail(at=ago(minutes=1), mail_from=name))
    for path in ("/log", "/log.csv"):
        text = office.client().get(path).text
        assert "\u202e" not in text
        assert len(text) < 40_000
    assert "<script>alert" not in office.client().get("/log").text


@pytest.mark.parametrize("path", ["/log", "/log.csv"])
def test_another_customers_traffic_is_nowhere(office: Office, ago: Ago, path: str) -> None:
    office.feed(ev.Tls(at=ago(minutes=1), flow=FLOW, sni="theirs.example"), tenant=THEM)
    client = office.client()
    for query in ("", "?site=theirs.example", f"?mac={MAC}", "?box=box-baba-1"):
        answer = client.get(path + query).text
        for echo in ('value="theirs.example"', "?site=theirs.example"):  # what was asked for
            answer = answer.replace(echo, "")
        assert "theirs.example" not in answer
    assert "theirs.example" in office.client(tenant=THEM).get(path).text


@pytest.mark.parametrize("role", ["member", "reseller"])
def test_a_member_and_a_chamber_do_not_read_it(office: Office, role: str) -> None:
    client = office.client(role, US)  # type: ignore[arg-type]
    assert client.get("/log").status_code == 403
    assert client.get("/log.csv").status_code == 403


@pytest.mark.parametrize(
    "query", ["site=%00", "site=" + "x" * 300, "after=9" * 3, "since=9999-12-31", "after=999999999999999999-1"]
)
def test_nonsense_is_no_fault(office: Office, ago: Ago, query: str) -> None:
    office.feed(*every_kind(ago(minutes=5)))
    assert office.client().get("/log?" + query).status_code in (200, 400)


def test_one_person_has_so_many_files_a_minute_and_others_have_theirs(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "FILES_A_MINUTE", 2)
    monkeypatch.setattr(Often, "may", _without_clock(Often.may))
    client = office.client()
    assert [client.get("/log.csv").status_code for _ in range(3)] == [200, 200, 429]
    assert client.get("/log").status_code == 200


def _without_clock(may: Callable[[Often, str, float], bool]) -> Callable[[Often, str, float], bool]:
    """No minute ends in between."""
    return lambda often, source, _now: may(often, source, 0.0)
