"""Cases: an important alert opens one, people work it off, and nobody sees another customer's."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from office import BOXES, EPOCH, THEM, US, Client, Office

from sekisho.appliance.core import utc
from sekisho.center.cases import desk, record, vendors
from sekisho.center.cases.tables import CASE, LOG
from sekisho.center.cases.vendors import Vendor
from sekisho.center.notify.tables import mail, request
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import NewRow
from sekisho.telemetry.events import Alert, FileVerdict, Flow, encode

Ago = Callable[..., str]
HOSTILE = '<script>alert(1)</script>\u202etxt.exe"\r\nX: y' + "長" * 300


def important(at: str, ip: str = "192.168.1.23", mac: str = "02:00:00:00:00:23", **more: Any) -> Alert:
    flow = Flow(ip, 50000, "203.0.113.9", 443, "TCP", mac)
    return Alert(
        at, stars=3, why_stars="calls_out", flow=flow, sid=1, signature="ET MALWARE C2", direction="out", **more
    )


def opened(office: Office, tenant: str = US) -> list[desk.Case]:
    with office.store.database.reading() as db:
        return desk.listed(db, only(tenant), closed=False)


def the_case(office: Office, ago: Ago, tenant: str = US) -> str:
    office.feed(important(ago(minutes=2)), tenant=tenant)
    return opened(office, tenant)[0].id


def check_all(client: Client, case: str) -> None:
    for check in ("ours", "updated", "scanned"):
        client.submit(f"/cases/{case}/check", check=check, done="yes", finding="remains" if check == "scanned" else "")


def said(client: Client, answer: Any) -> str:
    assert answer.status_code == 303, answer.text
    return str(client.get(answer.headers["location"]).text)


def test_three_stars_open_one_case_and_repeats_go_into_it(office: Office, ago: Ago) -> None:
    office.feed(important(ago(minutes=5)), Alert(ago(minutes=5), stars=2, why_stars="attack_stopped"))
    office.feed(important(ago(minutes=4)), important(ago(minutes=3)))
    office.feed(important(ago(minutes=3), ip="192.168.1.77", mac="02:00:00:00:00:77"))
    found = {case.told.device: case.number for case in opened(office)}
    assert found == {"192.168.1.23": 3, "192.168.1.77": 1}


def test_the_same_events_again_change_nothing_and_those_after_a_restore_open_none(office: Office, ago: Ago) -> None:
    event = important(ago(minutes=5))
    row = NewRow(900, 1, "alert", event.at, encode(event), stars=3, again=True)
    with office.store.transaction():
        office.store.add(US, BOXES[US], EPOCH, [row], utc.now())
    assert opened(office) == []


def test_after_the_end_a_new_alert_opens_another_case(office: Office, ago: Ago) -> None:
    first = the_case(office, ago)
    staff = office.client("helpdesk")
    staff.submit(f"/cases/{first}/close", outcome="false_alarm", why="検証用の端末")
    assert opened(office) == []
    assert the_case(office, ago) != first


def test_a_customer_goes_from_the_alert_to_the_visit(office: Office, ago: Ago) -> None:
    case, admin, staff = the_case(office, ago), office.client("member"), office.client("helpdesk")
    page = admin.get(f"/cases/{case}").text
    assert "あと30日" in page
    assert "192.168.1.23" in page
    assert "フルスキャン" in said(admin, admin.submit(f"/cases/{case}/ask", contact="青木"))
    with office.store.database.reading() as db:
        assert desk.load(db, EVERYONE, case).work.state == "open"  # type: ignore[union-attr]
    check_all(admin, case)
    assert "駆け付けを依頼中" in said(admin, admin.submit(f"/cases/{case}/ask", contact="青木 03-1111-2222"))
    with office.store.transaction() as db:
        vendor = vendors.save(db, Vendor("", "", "新潟市", "越後サポート", "025-000-0000", "平日9時-18時"))
    today = dt.datetime.now(dt.UTC).date().isoformat()
    assert admin.submit(f"/cases/{case}/dispatch", vendor=vendor, visit=today).status_code == 403
    assert "越後サポート" in said(staff, staff.submit(f"/cases/{case}/dispatch", vendor=vendor, visit=today))
    staff.submit(f"/cases/{case}/count", used="yes")
    assert "完了" in said(staff, staff.submit(f"/cases/{case}/close", outcome="helped", why="駆除を確認"))
    case2 = the_case(office, ago)
    assert "ご利用: 1回" in admin.get(f"/cases/{case2}").text


def test_nobody_may_be_sent_who_is_not_on_the_customers_list(office: Office, ago: Ago) -> None:
    case, admin, staff = the_case(office, ago), office.client(), office.client("operator")
    check_all(admin, case)
    admin.submit(f"/cases/{case}/ask", contact="青木")
    with office.store.transaction() as db:
        theirs = vendors.save(db, Vendor("", "minami-cci", "大阪市", "浪速サポート", "06-0000-0000", ""))
    assert "リストから" in said(staff, staff.submit(f"/cases/{case}/dispatch", vendor=theirs, visit="2026-12-01"))


@pytest.mark.parametrize("role", ["admin", "member", "reseller"])
def test_another_customers_case_is_as_if_it_were_not_there(office: Office, ago: Ago, role: Any) -> None:
    theirs, stranger = the_case(office, ago, THEM), office.client(role, US)
    for path in (f"/cases/{theirs}", f"/cases/{theirs}/export", f"/cases/{theirs}/export?as=json"):
        assert stranger.get(path).status_code == 404
    for form in ("check", "ask", "withdraw", "note", "call"):
        answer = stranger.submit(f"/cases/{theirs}/{form}", check="ours", done="yes", contact="x", text="x")
        assert answer.status_code == 404, form
    assert theirs not in stranger.get("/cases?everyone=true").text
    with office.store.database.reading() as db:
        assert len(record.read(db, theirs, 10)) == 1, "only that it was opened"


def test_which_case_an_alert_is_in_is_told_only_to_its_own(office: Office, ago: Ago) -> None:
    case = the_case(office, ago)
    with office.store.database.reading() as db:
        found = opened(office)[0]
        assert desk.case_of(db, only(US), found.box, found.epoch, found.seq) == case
        assert desk.case_of(db, only(THEM), found.box, found.epoch, found.seq) is None


def test_what_strangers_wrote_is_harmless_on_every_page_of_a_case(office: Office, ago: Ago) -> None:
    flow = Flow("203.0.113.9", 443, "192.168.1.23", 50000, "TCP", "02:00:00:00:00:23")
    event = FileVerdict(
        ago(minutes=1), stars=3, why_stars="file_arrived", flow=flow, outcome="delivered_then_found",
        file_name=HOSTILE, host="http://evil.example/x", mail_subject=HOSTILE, mail_from=HOSTILE, rules=[HOSTILE],
    )  # fmt: skip
    office.feed(event)
    case, client, staff = opened(office)[0].id, office.client(), office.client("helpdesk")
    for text in (HOSTILE[:60], '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "\x00\ud800"[:1]):
        client.submit(f"/cases/{case}/note", text=text)
        client.submit(f"/cases/{case}/call", contact=text)
    staff.submit("/vendors", area="<b>新潟", name='"><svg onload=x>', phone="+1", hours="=cmd()")
    for path in ("/cases", f"/cases/{case}", f"/cases/{case}/export", "/vendors"):
        page = client.get(path).text
        assert not re.search(r"<script>alert|<img src=x|<svg onload|<b>新潟|\u202e", page), path
        assert 'href="http://evil' not in page, path


def test_a_text_that_is_too_long_is_refused_and_not_cut(office: Office, ago: Ago) -> None:
    case, client = the_case(office, ago), office.client()
    assert "長すぎます" in said(client, client.submit(f"/cases/{case}/note", text="a" * 70_000))
    assert client.submit(f"/cases/{case}/check", check="nonsense", done="yes").status_code == 303


def test_the_record_is_whole_anybody_can_check_it_and_a_change_shows(office: Office, ago: Ago) -> None:
    case, client = the_case(office, ago), office.client()
    check_all(client, case)
    client.submit(f"/cases/{case}/note", text="電源は入れたまま")
    answer = client.get(f"/cases/{case}/export?as=json")
    assert answer.headers["content-disposition"].startswith("attachment")
    whole = json.loads(answer.content)
    made = whole["record"]
    public = serialization.load_pem_public_key(client.get("/genuine/key").content)
    text = json.dumps(made, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert isinstance(public, Ed25519PublicKey)
    public.verify(base64.b64decode(whole["signature"]), b"sekisho case record 1\0" + text.encode())
    previous = "0" * 64
    for one in made["log"]:
        body = json.dumps(one["entry"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        previous = hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()
        assert previous == one["digest"]
    assert (len(made["log"]), made["log_is_whole"]) == (5, True)
    assert "抜けや書き換えは見つかりませんでした" in client.get(f"/cases/{case}/export").text
    with office.store.transaction() as db:
        entry = db.execute(sa.select(LOG.c.entry).where(LOG.c.case == case, LOG.c.n == 5)).scalar_one()
        db.execute(
            LOG.update().where(LOG.c.case == case, LOG.c.n == 5).values(entry=entry.replace("電源".encode(), b"x"))
        )
    assert json.loads(client.get(f"/cases/{case}/export?as=json").content)["record"]["log_is_whole"] is False
    assert "合いません" in client.get(f"/cases/{case}/export").text


def test_an_entry_that_is_missing_shows(office: Office, ago: Ago) -> None:
    case, client = the_case(office, ago), office.client()
    check_all(client, case)
    with office.store.transaction() as db:
        db.execute(LOG.delete().where(LOG.c.case == case, LOG.c.n == 2))
    assert json.loads(client.get(f"/cases/{case}/export?as=json").content)["record"]["log_is_whole"] is False


def test_an_answer_by_mail_is_in_the_case_until_somebody_has_seen_to_it(office: Office, ago: Ago) -> None:
    case = opened_id = the_case(office, ago)
    found = opened(office)[0]
    row = {"tenant": US, "action": "call", "mail": "m", "recipient": "aoki@example.com", "about": found.alert}
    with office.store.transaction() as db:
        db.execute(request.insert().values(id="m-call", asked_at=ago(minutes=1), done_at="", done_by="", **row))
    staff = office.client("helpdesk")
    assert "電話がほしい" in office.client().get(f"/cases/{case}").text
    assert "対応しました" in said(staff, staff.submit(f"/cases/{opened_id}/called", answer="m-call"))
    assert staff.submit(f"/cases/{case}/called", answer="m-call").status_code == 404, "only once"


def test_asking_to_be_called_reaches_the_list_of_the_staff_once(office: Office, ago: Ago) -> None:
    case, client = the_case(office, ago), office.client()
    for _ in range(3):
        client.submit(f"/cases/{case}/call", contact="青木 03-1111-2222")
    with office.store.database.reading() as db:
        rows = db.execute(sa.select(request).where(request.c.done_at == "")).all()
    assert [(row.tenant, row.action) for row in rows] == [(US, "call")]


def test_the_thirty_days_begin_when_the_mail_was_delivered(office: Office, ago: Ago) -> None:
    case = the_case(office, ago)
    found, later = opened(office)[0], utc.text(dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    assert found.window.counted_from == "received"
    row = {"id": "m", "tenant": US, "recipient": "a@example.com", "kind": "alert", "about": found.alert, "stars": 3}
    times = {"created_at": later, "due_at": later, "done_at": later, "state": "sent", "attempts": 1, "reply": ""}
    with office.store.transaction() as db:
        db.execute(mail.insert().values(letter=b"{}", **row, **times))
    now = opened(office)[0].window
    assert (now.counted_from, now.since) == ("mail", dt.datetime.fromisoformat(later))
    assert "通知メールをお届けした時刻から30日間" in office.client().get(f"/cases/{case}").text


def test_a_chamber_keeps_its_own_list_and_no_other(office: Office) -> None:
    ours, theirs, customer = (
        office.client("reseller", US),
        office.client("reseller", THEM),
        office.client("admin", THEM),
    )
    ours.submit("/vendors", area="新潟市", name="越後サポート", phone="025-000-0000", hours="平日")
    with office.store.database.reading() as db:
        made = vendors.seen_by(db, EVERYONE)[0]
    assert made.reseller == "kita-cci"
    assert "越後サポート" in office.client("member", US).get("/vendors").text
    assert "越後サポート" not in customer.get("/vendors").text
    for path in ("/vendors", "/vendors/remove"):
        assert theirs.submit(path, vendor=made.id, area="x", name="x", phone="x", hours="").status_code == 404
    assert customer.submit("/vendors", area="x", name="x", phone="x").status_code == 403


def test_lists_of_cases_use_an_index_and_a_limit(office: Office, ago: Ago) -> None:
    for number in range(40):
        office.feed(important(ago(minutes=5), ip=f"192.168.1.{number}", mac=f"02:00:00:00:01:{number:02x}"))
    client = office.client()
    page = client.get("/cases").text
    assert page.count('href="/cases/') == 30
    older = re.search(r'href="(/cases\?before=[^"]+)"', page)
    assert older is not None
    assert client.get(older[1].replace("&amp;", "&")).text.count('href="/cases/') == 10
    with office.store.database.reading() as db:
        query = sa.select(CASE.c.id).where(only(US).of(CASE.c.tenant), CASE.c.state != "closed")
        text = str(
            query.order_by(CASE.c.opened_at.desc(), CASE.c.id.desc())
            .limit(30)
            .compile(db, compile_kwargs={"literal_binds": True})
        )
        plan = " ".join(str(row) for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "case_by_tenant" in plan
    assert "TEMP B-TREE" not in plan


def test_every_alert_has_its_own_thirty_days(office: Office, ago: Ago) -> None:
    """What is seen again after weeks must not be told that its time is over."""
    for number, days in ((901, 40), (902, 0)):
        event = important(ago(days=days, minutes=1))
        row = NewRow(number, 1, "alert", event.at, encode(event), stars=3)
        with office.store.transaction():
            office.store.add(US, BOXES[US], EPOCH, [row], ago(days=days))
        left = opened(office)[0].window.days_left(dt.datetime.now(dt.UTC))
        assert left == (-1 if days else 30)
    assert len(opened(office)) == 1


def test_alert_and_case_lead_to_each_other(office: Office, ago: Ago) -> None:
    case, client = the_case(office, ago), office.client()
    alert = re.search(r'href="(/alerts/\d+)"', client.get(f"/cases/{case}").text)
    assert alert is not None
    assert f'href="/cases/{case}"' in client.get(alert[1]).text
