"""The monthly report: true figures, a PDF that nothing can be fetched by, and a proof that a forger cannot make."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.center.portal import rendering, report
from sekisho.center.report import press, proofs
from sekisho.center.report.figures import Bytes, Device, Figures, figures
from sekisho.center.report.month import Month, read
from sekisho.center.report.proofs import ISSUED, Key
from sekisho.center.report.tally import COUNT, WATCH
from sekisho.center.scope import only
from sekisho.center.store import NewRow
from sekisho.center.tenants import Locale
from sekisho.telemetry.events import Alert, Coverage, Event, FileVerdict, Flow, Share, encode, lane_of

MAC = "02:00:00:00:00:23"
FLOW = Flow("192.168.1.23", 50000, "203.0.113.9", 443, "TCP", MAC)
NOW = dt.datetime.now(dt.UTC)
THIS = read("", "Asia/Tokyo", NOW)
LAST = THIS.before()
HOSTILE = "\u202e</td><script src=http://127.0.0.1:{port}/x></script><img src='http://127.0.0.1:{port}/y'>&{{{{7*7}}}}"
CANARY = "canary-c0ffee"


def in_month(month: Month, day: int, hour: int = 12) -> str:
    return utc.text(month.first + dt.timedelta(days=day - 1, hours=hour))


def told(office: Office, *events: Event, tenant: str = US) -> None:
    """Events that came when they happened."""
    for event in events:
        row = NewRow(next(office._numbers), lane_of(event), str(event.__struct_config__.tag), event.at, encode(event),
                     stars=getattr(event, "stars", 0))  # fmt: skip
        with office.store.transaction():
            office.store.add(tenant, BOXES[tenant], "e1", [row], event.at)


def alert(at: str, stars: int = 3, why: str = "calls_out", action: Any = "blocked", count: int = 1) -> Alert:
    return Alert(at, stars=stars, why_stars=why, flow=FLOW, sid=1, signature="ET X", action=action, count=count)


def a_month(office: Office, month: Month = LAST, tenant: str = US) -> None:
    hour = in_month(month, 3)[:13] + ":00:00Z"
    told(
        office,
        alert(in_month(month, 3), count=4),
        alert(in_month(month, 3), 2, "attack_stopped"),
        alert(in_month(month, 20), 2, "attack_stopped", "allowed"),
        FileVerdict(in_month(month, 4), stars=2, why_stars="file_stopped", flow=FLOW, outcome="blocked", size=68),
        Coverage(in_month(month, 3, 13), mac=MAC, hour=hour, seconds=3600, inspected=800, opaque=150,
                 bypassed=[Share("engine_hung", 50)], off_seconds=90.0),
        Coverage(in_month(month, 3, 13), mac="", hour=hour, seconds=3600, inspected=10, off_seconds=90.0),
        tenant=tenant,
    )  # fmt: skip


def figures_of(office: Office, month: Month = LAST, tenant: str = US) -> Figures:
    with office.store.database.reading() as db:
        return figures(db, tenant, month, NOW)


def texts(sheet: str) -> list[str]:
    """The text of every page as the press lays it out."""
    import weasyprint

    made = weasyprint.HTML(string=sheet).render()
    boxes = ([box for box in page._page_box.descendants() if hasattr(box, "text")] for page in made.pages)
    return ["".join(box.text for box in page) for page in boxes]


def test_a_months_figures_are_what_was_told(office: Office) -> None:
    a_month(office)
    a_month(office, LAST.before())
    a_month(office, tenant=THEM)
    made = figures_of(office)
    assert (made.detections, made.blocked, made.important, made.files, made.over) == (7, 6, 4, 1, True)
    assert [(day.day[-2:], day.blocked, day.passed) for day in made.days if day.blocked + day.passed] == [
        ("03", 5, 0), ("04", 1, 0), ("20", 0, 1),
    ]  # fmt: skip
    assert made.traffic == Bytes(810, 150, 50)
    assert [(box.watched_s, box.off_s) for box in made.boxes] == [(3600, 90)]
    assert (made.cases_opened, made.cases_open) == (1, 1)
    assert [(d.mac, d.detections, d.important, d.traffic.total) for d in made.devices] == [(MAC, 7, 4, 1000)]


def test_the_customers_midnight_divides_the_months(office: Office) -> None:
    edge = LAST.first
    told(office, alert(utc.text(edge - dt.timedelta(seconds=1))), alert(utc.text(edge)))
    assert figures_of(office).detections == 1
    assert figures_of(office, LAST.before()).detections == 1


def test_a_clock_that_runs_ahead_cannot_put_anything_into_the_future(office: Office) -> None:
    row = alert("2199-01-01T00:00:00.000000Z")
    with office.store.transaction():
        office.store.add(US, BOXES[US], "e1", [NewRow(1, 1, "alert", row.at, encode(row), stars=3)], utc.now())
    assert figures_of(office, THIS).detections == 1


def test_a_month_nothing_was_heard_of_is_not_called_safe(office: Office) -> None:
    page = office.client().get(f"/report?month={LAST}").text
    assert "届いていません" in page
    assert "検知されませんでした" not in page
    told(
        office,
        Coverage(in_month(LAST, 3, 13), mac=MAC, hour=in_month(LAST, 3)[:13] + ":00:00Z", seconds=9, inspected=1),
    )
    assert "検知されませんでした" in office.client().get(f"/report?month={LAST}").text


def test_a_month_that_is_not_over_says_so(office: Office) -> None:
    client = office.client()
    assert "まだ終わっていません" in client.get("/report").text
    assert "まだ終わっていません" not in client.get(f"/report?month={LAST}").text
    assert "not over" in office.client(locale="en").get("/report").text


@pytest.mark.parametrize("month", ["2026-13", "2026-1", "abcd", "2999-01", "%00", "2026-04%0d%0a"])
def test_what_is_no_month_is_refused(office: Office, month: str) -> None:
    client = office.client()
    assert client.get(f"/report?month={month}").status_code == 400
    assert client.get(f"/report/pdf?month={month}").status_code == 400


def test_the_pdf_is_issued_once_and_stays_the_same_byte_for_byte(office: Office) -> None:
    a_month(office)
    client = office.client()
    first = client.get(f"/report/pdf?month={LAST}")
    assert first.status_code == 200, first.text
    assert first.content.startswith(b"%PDF-")
    assert len(first.content) < 1 << 20
    assert client.get(f"/report/pdf?month={LAST}").content == first.content
    with office.store.database.reading() as db:
        (issued,) = proofs.listed(db, only(US), str(LAST))
    assert client.get(f"/report/issued/{issued.id}").content == first.content
    assert f"/genuine/{issued.token}" in client.get(f"/report?month={LAST}").text
    told(office, alert(in_month(LAST, 21)))
    assert client.get(f"/report/pdf?month={LAST}").content != first.content, "other figures, another report"
    assert client.get(f"/report/issued/{issued.id}").content == first.content
    for stranger in (office.client("admin", THEM), office.client("reseller", THEM)):
        assert stranger.get(f"/report/issued/{issued.id}").status_code == 404


def _issued(office: Office) -> tuple[proofs.Issued, bytes]:
    """One report, issued as a page does but without pressing it."""
    a_month(office)
    assert office.settings.portal is not None
    key, made, pdf = Key(Path(office.settings.portal.proof_key)), figures_of(office), b"%PDF-x"
    with office.store.transaction() as db:
        return proofs.issue(db, key, US, made, "ja", proofs.new_names(), pdf, utc.now()), pdf


def test_who_asks_too_often_in_a_month_still_gets_the_whole_one_at_its_end(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proofs, "BEFORE_ITS_END", 2)
    monkeypatch.setattr(proofs, "PER_MONTH", 3)
    key = Key(tmp_path / "reports.key")

    def issue(detections: int, *, over: bool) -> None:
        made = msgspec.structs.replace(_empty(), detections=detections, over=over)
        with office.store.transaction() as db:
            proofs.issue(db, key, US, made, "ja", proofs.new_names(), b"%PDF-", utc.now())

    for number in range(2):
        issue(number, over=False)
    with pytest.raises(RejectedInput, match="too often"):
        issue(9, over=False)
    issue(9, over=True)
    with pytest.raises(RejectedInput, match="too often"):
        issue(10, over=True)


def test_a_report_there_is_no_room_for_is_not_even_pressed(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(proofs, "BEFORE_ITS_END", 0)
    monkeypatch.setattr(press, "pressed", made.append)
    assert office.client("member").get("/report/pdf").status_code == 429
    assert not made, "who has had too many takes no press from others"


def test_staff_who_have_chosen_nobody_are_sent_to_choose(office: Office) -> None:
    secret, _ = office.sign_in("operator", "")
    client = office.anonymous()
    client.cookies.set(rendering.COOKIE, secret)
    assert client.get("/report", follow_redirects=False).headers["location"] == "/customers"
    assert client.get("/cases").status_code == 200


def test_who_has_the_paper_can_see_that_it_is_genuine_and_nothing_more(office: Office) -> None:
    issued, pdf = _issued(office)
    page = office.anonymous().get(f"/genuine/{issued.token}")
    assert page.status_code == 200
    for known in (issued.id, "青木商店", hashlib.sha256(pdf).hexdigest(), "証明しません"):
        assert known in page.text
    for hidden in (US, BOXES[US], MAC, "192.168.1.23", "calls_out"):
        assert hidden not in page.text
    assert office.anonymous().get("/genuine/" + "x" * 43).status_code == 404
    assert "BEGIN PUBLIC KEY" in office.anonymous().get("/genuine/key").text


@pytest.mark.parametrize("column", ["figures", "pdf", "statement", "signature"])
def test_a_report_that_was_changed_is_not_called_genuine(office: Office, column: str) -> None:
    issued, _ = _issued(office)
    with office.store.transaction() as db:
        before = db.execute(sa.select(ISSUED.c[column])).scalar_one()
        after = before.replace(b'"detections":7', b'"detections":0').replace(b"%PDF-x", b"%PDF-y")
        db.execute(ISSUED.update().values({column: after if after != before else before[:-1] + b"!"}))
    page = office.anonymous().get(f"/genuine/{issued.token}").text
    assert "発行した本物です" not in page
    assert "一致しません" in page
    assert "青木商店" not in page


def test_a_forger_with_the_database_but_not_the_key_proves_nothing(office: Office, tmp_path: Path) -> None:
    issued, _ = _issued(office)
    forger = Key(tmp_path / "other.key")
    with office.store.transaction() as db:
        row = db.execute(sa.select(ISSUED)).one()
        statement = row.statement.replace(b'"detections":7', b'"detections":0')
        db.execute(ISSUED.update().values(statement=statement, signature=forger.sign(statement)))
    assert "一致しません" in office.anonymous().get(f"/genuine/{issued.token}").text


def test_the_key_is_its_owners_alone_and_the_same_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "reports.key"
    first = Key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Key(path).fingerprint == first.fingerprint
    assert list(tmp_path.iterdir()) == [path]
    path.chmod(0o640)
    with pytest.raises(DeviceFault, match="others can read it"):
        Key(path)


def test_a_proof_is_asked_for_so_often_and_no_more(office: Office) -> None:
    client = office.anonymous()
    found = [client.get("/genuine/" + "y" * 43).status_code for _ in range(40)]
    assert 429 in found
    assert found[:10] == [404] * 10


@pytest.fixture
def listening() -> Iterator[tuple[int, list[Any]]]:
    """A server that must never be called."""
    called: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, peer = server.accept()
                except TimeoutError:
                    continue
                called.append(peer)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], called
        over.set()
        thread.join()


def test_whatever_a_page_names_the_press_fetches_nothing(listening: tuple[int, list[Any]], tmp_path: Path) -> None:
    port, called = listening
    (tmp_path / "secret.txt").write_text(CANARY)
    site, file = f"http://127.0.0.1:{port}", (tmp_path / "secret.txt").as_uri()
    xlink = "xmlns:xlink='http://www.w3.org/1999/xlink'"
    page = (
        f"<html><head><link rel=stylesheet href='{site}/a.css'><link rel=attachment href='{file}'>"
        f"<style>@import url({site}/b.css);@font-face{{font-family:x;src:url({site}/c.woff)}}"
        f"body{{background:url({site}/d.png);font-family:x}}</style></head>"
        f"<body><img src='{site}/e.png'><img src='{file}'><object data='{file}'></object>"
        f"<svg {xlink}><image xlink:href='{site}/f.png'/><use href='{site}/g.svg#x'/></svg>"
        f"<a rel=attachment href='{file}'>a</a><iframe src='{site}/h'></iframe>text</body></html>"
    )
    made = press.pressed(page)
    assert made.startswith(b"%PDF-")
    assert called == []
    assert b"EmbeddedFile" not in made


def test_a_page_that_is_too_large_or_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceFault, match="too large"):
        press.pressed("x" * (press.PAGE_CAP + 1))
    monkeypatch.setattr(press, "TIME_S", 0.05)
    with pytest.raises(DeviceFault, match="seconds"):
        press.pressed("<p>x")


@pytest.mark.parametrize(("locale", "words"), [("ja", "月次レポート"), ("en", "Monthly report")])
def test_what_strangers_wrote_stays_text_on_page_and_paper(office: Office, locale: Any, words: str) -> None:
    made = msgspec.structs.replace(
        _empty(),
        customer=HOSTILE.format(port=1),
        devices=[Device(HOSTILE.format(port=1), MAC, 1, 0, 1, Bytes(1, 1, 1))],
    )
    values = report._values(made, locale, utc.now())
    values |= {"report": "R", "address": "https://portal.example/genuine/x", "fingerprint": "f", "qr": report._qr("x")}
    sheet = rendering.sheet("report/paper.html", locale, "Asia/Tokyo", **values)
    assert words in sheet
    assert not re.search(r"<script|<img|\u202e", sheet)
    assert "{{7*7}}" in sheet


def _empty() -> Figures:
    return Figures("x", str(LAST), "Asia/Tokyo", True, 1, 0, 1, 0, [], [], [], 1, Bytes(), [], 0, 0, 0)


def test_a_host_name_that_looks_like_an_address_to_fetch_is_in_no_report(
    office: Office, listening: tuple[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report holds counts; names of hosts, files and mails, which strangers choose, are in none."""
    port, called = listening
    sheets: list[str] = []
    press_it = press.pressed

    def noting(sheet: str) -> bytes:
        sheets.append(sheet)
        return press_it(sheet)

    monkeypatch.setattr(press, "pressed", noting)
    names: dict[str, Any] = {
        "host": HOSTILE.format(port=port),
        "url": f"http://127.0.0.1:{port}/{CANARY}",
        "file_name": CANARY,
    }
    told(
        office,
        FileVerdict(
            in_month(LAST, 2), stars=3, why_stars="file_arrived", flow=FLOW, outcome="delivered_then_found",
            mail_subject=CANARY, mail_from=CANARY, rules=[CANARY], **names,
        ),
    )  # fmt: skip
    both: dict[Locale, str] = {"ja": "月次レポート", "en": "Monthly report"}
    for locale, words in both.items():
        client = office.client(locale=locale)
        assert client.get(f"/report/pdf?month={LAST}").content.startswith(b"%PDF-")
        assert CANARY not in client.get(f"/report?month={LAST}").text
        laid_out = "".join(texts(sheets[-1]))
        assert words.replace(" ", "") in laid_out.replace(" ", "")
        assert CANARY not in laid_out
    assert called == []
    assert len(sheets) == 2


def test_the_months_queries_use_their_keys(office: Office) -> None:
    a_month(office)
    with office.store.database.reading() as db:
        for table in (COUNT, WATCH):
            query = sa.select(table.c.box).where(
                table.c.tenant == US, table.c.hour >= "2026-01", table.c.hour < "2026-02"
            )
            text = query.compile(db, compile_kwargs={"literal_binds": True})
            plan = " ".join(str(row) for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
            assert "USING PRIMARY KEY (tenant=? AND hour>? AND hour<?)" in plan
