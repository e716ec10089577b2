"""Notices: whom they reach, from when to when, and that they are plain text."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from attacks import probed
from office import THEM, US, Client, Office

from sekisho.center import bulletins
from sekisho.center.bulletins import READ
from sekisho.telemetry.events import Health


def entered(**fields: str) -> dict[str, str]:
    """The form, filled in."""
    today = dt.datetime.now(dt.UTC).date()
    days = {"since": str(today - dt.timedelta(days=1)), "until": str(today + dt.timedelta(days=1))}
    texts = {"title_ja": "年末年始の休業", "title_en": "Holidays", "body_ja": "本文です。", "body_en": "The text."}
    return {"audience": "all", "whom": "", **days, **texts, **fields}


def post(office: Office, **fields: str) -> None:
    answer = office.client("operator").submit("/notices/post", **entered(**fields))
    assert answer.status_code == 303, answer.text


@pytest.mark.parametrize(
    ("audience", "whom", "reached"),
    [
        ("all", "", {US, THEM}),
        ("reseller", "kita-cci", {US}),
        ("reseller", "minami-cci", {THEM}),
        ("tenant", THEM, {THEM}),
        ("tenant", "nobody", set()),
    ],
)
def test_a_notice_reaches_whom_it_is_for_and_nobody_else(
    office: Office, audience: str, whom: str, reached: set[str]
) -> None:
    post(office, audience=audience, whom=whom)
    found = {
        tenant for tenant in (US, THEM) if "年末年始の休業" in office.client("member", tenant).get("/notices").text
    }
    assert found == reached


def test_it_is_read_in_the_viewers_language_and_marked_until_it_was_opened(office: Office) -> None:
    post(office)
    client = office.client("member", US, "en")
    assert 'href="/notices">Unread' in client.get("/").text
    assert "The text." in client.get("/notices").text
    assert 'href="/notices">Unread' not in client.get("/").text
    assert 'href="/notices">未読' in office.client("member").get("/").text, "somebody else has not read it"


@pytest.mark.parametrize("days", [("2999-01-01", "2999-01-02"), ("2020-01-01", "2020-01-02")])
def test_before_its_first_day_and_after_its_last_it_is_not_shown(office: Office, days: tuple[str, str]) -> None:
    answer = office.client("operator").submit("/notices/post", **entered(since=days[0], until=days[1]))
    assert answer.status_code == (400 if days[0] > "2200" else 303)
    assert "年末年始の休業" not in office.client().get("/notices").text


@pytest.mark.parametrize(
    "wrong",
    [
        {"title_en": ""},
        {"title_ja": "a\nb"},
        {"title_ja": "\u202eabc"},
        {"body_en": "x" * 4001},
        {"body_ja": "\x1b[31m"},
        {"since": "tomorrow"},
        {"until": "2001-01-01"},
        {"audience": "world"},
        {"audience": "tenant", "whom": "no such/name"},
        {"audience": "tenant", "whom": ""},
    ],
)
def test_what_could_not_be_shown_is_not_posted_and_nothing_entered_is_lost(
    office: Office, wrong: dict[str, str]
) -> None:
    client = office.client("operator")
    answer = client.submit("/notices/post", **entered(**wrong))
    assert answer.status_code == 400
    assert "Holidays" in answer.text or "title_en" in wrong
    with office.store.database.reading() as db:
        assert bulletins.every(db, 10) == []


def test_markup_in_a_notice_is_text(office: Office) -> None:
    post(office, title_ja='"><img src=x onerror=alert(1)>', body_ja="<script>alert(1)</script>\r\n二行目")
    for page in (office.client().get("/notices").text, office.client("operator").get("/notices/post").text):
        assert "<script>alert" not in page and "<img src=x" not in page


def test_a_notice_is_withdrawn_with_the_marks_of_its_readers(office: Office) -> None:
    post(office)
    office.client().get("/notices")
    operator: Client = office.client("operator")
    with office.store.database.reading() as db:
        (one,) = bulletins.every(db, 10)
    assert operator.submit(f"/notices/{one.id}/withdraw").status_code == 303
    assert operator.submit(f"/notices/{one.id}/withdraw").status_code == 404
    with office.store.database.reading() as db:
        assert db.execute(sa.select(READ)).all() == []


@pytest.mark.parametrize("role", ["admin", "member", "helpdesk", "reseller"])
def test_only_operators_post(office: Office, role: str) -> None:
    client = office.client(role)  # type: ignore[arg-type]
    assert client.get("/notices/post").status_code == 403
    assert client.submit("/notices/post", **entered()).status_code == 403
    assert client.submit("/notices/1/withdraw").status_code == 403


def test_what_the_box_says_of_itself_is_there_too(office: Office, ago: Callable[..., str]) -> None:
    office.feed(Health(at=ago(), part="engine", state="failed", stars=2, why_stars="engine_failed"), probed(ago()))
    page = office.client().get("/notices").text
    assert "検査エンジンを開始できません" in page and "外部からの攻撃" not in page


def test_every_query_has_an_index_and_sorts_nothing(office: Office) -> None:
    post(office)
    with office.store.database.reading() as db:
        statements: list[tuple[str, object]] = []
        sa.event.listen(db, "before_cursor_execute", lambda _c, _u, text, values, *_: statements.append((text, values)))
        found = bulletins.of_tenant(db, US, "2026-04-01")
        bulletins.unread(db, "somebody", found or bulletins.every(db, 5))
        for statement, values in list(statements):
            for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values):  # type: ignore[arg-type]
                walked = "SCAN bulletin" in row[3] and "ORDER BY bulletin.id DESC" in statement
                assert not row[3].startswith("SCAN") or walked, (statement, row[3])
                assert "TEMP B-TREE" not in row[3], (statement, row[3])
