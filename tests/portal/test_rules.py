"""The kill switch on the fleet's pages: for operators alone, with a reason, on record, and shown as it is."""

from __future__ import annotations

import datetime as dt
from typing import get_args

import sqlalchemy as sa
from office import Office

from sekisho.appliance.core import utc
from sekisho.center.portal.audit import AUDIT
from sekisho.center.portal.rights import Role
from sekisho.center.portal.sessions import SESSION
from sekisho.center.rules import switching
from sekisho.telemetry.events import Alert, FileVerdict


def _off(office: Office) -> list[str]:
    with office.store.database.reading() as db:
        return [one.rule for one in switching.listed(db)]


def _record(office: Office) -> list[tuple[str, str]]:
    with office.store.database.reading() as db:
        rows = db.execute(sa.select(AUDIT).where(AUDIT.c.action.startswith("rule.")).order_by(AUDIT.c.id))
        return [(row.action, row.about) for row in rows]


def test_a_rule_is_switched_off_and_on_again_and_both_are_on_record(office: Office) -> None:
    office.feed(Alert(utc.now(), sid=2_000_001, signature="too loud"))
    client = office.client("operator")
    page = client.get("/fleet/noise").text
    assert "/fleet/rules?rule=2000001" in page
    assert 'value="2000001"' in client.get("/fleet/rules?rule=2000001").text
    assert client.submit("/fleet/rules/off", rule="2000001", why="stops the <b>mail</b>").status_code == 303
    page = client.get("/fleet/rules").text
    assert "sid 2000001" in page and "stops the &lt;b&gt;mail" in page and "送信待ち" in page
    assert "/fleet/rules?rule=2000001" not in client.get("/fleet/noise").text
    assert _off(office) == ["2000001"]
    assert client.submit("/fleet/rules/on", rule="2000001").status_code == 303
    assert _off(office) == []
    assert _record(office) == [
        ("rule.off", "sid 2000001: stops the <b>mail</b>"), ("rule.on", "sid 2000001"),
    ]  # fmt: skip
    audit = office.client("operator", locale="en").get("/audit", params={"all": "1"}).text
    assert "Switched a rule off on all boxes" in audit or "ルールをすべてのUTMで止めた" in audit


def test_a_yara_rule_is_counted_shown_and_switched_off_by_its_name(office: Office) -> None:
    office.feed(*[FileVerdict(utc.now(), outcome="blocked", rules=["Too_Wide"]) for _ in range(3)])
    client = office.client("operator")
    page = client.get("/fleet/noise").text
    assert "Too_Wide" in page and "/fleet/rules?rule=Too_Wide" in page and "ファイルの検査" in page
    client.submit("/fleet/rules/off", rule="Too_Wide", why="takes documents")
    assert _off(office) == ["Too_Wide"]


def test_a_policys_function_cannot_be_switched_off_for_everybody(office: Office) -> None:
    office.feed(Alert(utc.now(), function="keyword", policy="x"))
    assert "/fleet/rules?rule=" not in office.client("operator").get("/fleet/noise").text


def test_only_an_operator_sees_and_does_it(office: Office) -> None:
    for role in get_args(Role):
        client = office.client(role)
        assert client.get("/fleet/rules").status_code == (200 if role == "operator" else 403), role
        for way in ("off", "on") if role != "operator" else ():
            assert client.submit(f"/fleet/rules/{way}", rule="7", why="x").status_code == 403, role
    assert _off(office) == [] and _record(office) == []


def test_it_needs_the_pages_token_and_a_fresh_proof_of_who_asks(office: Office) -> None:
    client = office.client("operator")
    assert client.post("/fleet/rules/off", data={"rule": "7", "why": "x"}).status_code == 403
    long_ago = utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(hours=3))
    with office.store.transaction() as db:
        db.execute(SESSION.update().values(confirmed_at=long_ago))
    answer = client.submit("/fleet/rules/off", rule="7", why="x")
    assert "/confirm" in answer.headers.get("location", "")
    assert _off(office) == []


def test_what_cannot_be_is_refused_and_nothing_happens(office: Office) -> None:
    wrong = [("7", " "), ("", "x"), ("<b>", "x"), ("a b", "x"), ("0", "x"), ("9" * 200, "x"), ("7", "x" * 999)]
    client = office.client("operator")
    for rule, why in wrong:
        answer = client.submit("/fleet/rules/off", rule=rule, why=why)
        assert answer.status_code == 400 and "<b>" not in answer.text and 'role="alert"' in answer.text, (rule, why)
    assert client.get("/fleet/rules?rule=" + "x" * 4000).status_code == 400
    assert _off(office) == [] and _record(office) == []
