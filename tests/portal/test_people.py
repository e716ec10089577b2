"""Who else has an account, what people change about their own, and the record of it all."""

from __future__ import annotations

import ast
import datetime as dt
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from objects import canary
from office import THEM, US, Office

import sekisho.center.portal as portal
from sekisho.center import tenants
from sekisho.center.portal import accounts, audit, sessions
from sekisho.center.portal.access import factors
from sekisho.center.portal.access.agents import named
from sekisho.center.portal.audit_page import PAGE, _key
from sekisho.center.portal.rights import Role
from sekisho.center.scope import EVERYONE, Scope, only


def someone(office: Office, role: Role = "member", tenant: str = US) -> str:
    """An account with an open session."""
    return office.sign_in(role, tenant)[1].account


def state(office: Office, account: str) -> tuple[str, int]:
    """(role or "", open sessions)."""
    with office.store.database.reading() as db:
        role = db.execute(sa.select(accounts.ACCOUNT.c.role).where(accounts.ACCOUNT.c.id == account)).scalar() or ""
        return role, len(sessions.of_account(db, account, dt.datetime.now(dt.UTC)))


def test_an_administrator_changes_roles_and_closes_accounts_and_the_sessions_end(office: Office) -> None:
    admin, person = office.client(), someone(office)
    assert admin.submit(f"/members/{person}/role", role="admin").status_code == 303
    assert state(office, person) == ("admin", 0)
    assert admin.submit(f"/members/{person}/close").status_code == 303
    assert state(office, person) == ("", 0)
    with office.store.database.reading() as db:
        assert [row.action for row in audit.of(db, only(US))] == ["member.close", "member.role"]


@pytest.mark.parametrize("what", ["role", "close", "reset", "invite"])
def test_an_administrator_reaches_nobody_of_another_customer_and_no_staff(office: Office, what: str) -> None:
    admin = office.client()
    for other in (someone(office, "member", THEM), someone(office, "operator"), someone(office, "reseller", US)):
        before = state(office, other)
        assert admin.submit(f"/members/{other}/{what}", role="member").status_code == 404
        assert admin.submit(f"/staff/{other}/{what}", role="helpdesk").status_code == 403
        assert state(office, other) == before


@pytest.mark.parametrize("role", ["operator", "helpdesk", "reseller", "root", ""])
def test_an_administrator_makes_nobody_more_than_an_administrator(office: Office, role: str) -> None:
    admin, person = office.client(), someone(office)
    assert admin.submit(f"/members/{person}/role", role=role).status_code == 404
    assert (
        admin.submit("/members/invite", login="new@example.com", role=role, reseller="x", tenant=THEM).status_code
        == 404
    )
    assert state(office, person) == ("member", 1)


def test_an_invitation_is_for_ones_own_customer_whatever_the_form_says(office: Office) -> None:
    office.client().submit("/members/invite", login="new@example.com", role="member", tenant=THEM)
    with office.store.database.reading() as db:
        row = accounts.by_login(db, "new@example.com")
    assert row is not None and (row.tenant, row.state) == (US, "invited")


def test_nobody_closes_themselves_or_the_last_administrator(office: Office) -> None:
    admin, operator = office.client(), office.client("operator")
    with office.store.database.reading() as db:
        own = db.execute(sa.select(accounts.ACCOUNT.c.id).where(accounts.ACCOUNT.c.role == "admin")).scalar_one()
    assert admin.submit(f"/members/{own}/close").headers["location"] == "/members"
    assert operator.submit(f"/members/{own}/close").status_code == 303
    assert operator.submit(f"/members/{own}/role", role="member").status_code == 303
    assert state(office, own)[0] == "admin"


def test_an_operator_invites_staff_and_chambers(office: Office) -> None:
    operator = office.client("operator")
    assert (
        "/welcome/"
        in operator.submit("/staff/invite", login="c@example.com", role="reseller", reseller="kita-cci").text
    )
    assert operator.submit("/staff/invite", login="d@example.com", role="reseller").status_code == 422
    assert operator.submit("/staff/invite", login="e@example.com", role="admin").status_code == 404
    with office.store.database.reading() as db:
        row = accounts.by_login(db, "c@example.com")
    assert row is not None and (row.role, row.reseller, row.tenant) == ("reseller", "kita-cci", "")


def test_a_lost_second_factor_is_taken_away_and_the_sessions_end(office: Office) -> None:
    admin, person = office.client(), someone(office)
    with office.store.transaction() as db:
        factors.offer(db, person, dt.datetime.now(dt.UTC))
        db.execute(factors.TOTP.update().values(confirmed_at="2026-01-01T00:00:00.000000Z"))
    assert admin.submit(f"/members/{person}/reset").status_code == 303
    with office.store.database.reading() as db:
        assert not factors.of_account(db, person).any
    assert state(office, person) == ("member", 0)


@pytest.mark.parametrize(
    "login", ["<script>@example.com", "a@example.com\r\nBcc: b@example.com", "a", "あ@example.com", "x" * 64000]
)
def test_a_login_that_is_no_mail_address_is_refused(office: Office, login: str) -> None:
    answer = office.client().submit("/members/invite", login=login, role="member")
    assert answer.status_code in (400, 422) and "<script>@" not in answer.text


def test_names_are_shown_as_text_on_one_line(office: Office) -> None:
    client = office.client()
    client.submit("/account", name="<b>太郎</b>\u202e\n" + "長" * 500, locale="ja", zone="Asia/Tokyo")
    for path in ("/account", "/members"):
        page = client.get(path).text
        assert "&lt;b&gt;太郎" in page and "<b>太郎" not in page and "\u202e" not in page
        assert "長" * 81 not in page


def test_language_and_clock_are_ones_own(office: Office) -> None:
    client = office.client()
    assert client.submit("/account", name="T", locale="en", zone="America/New_York").status_code == 303
    page = client.get("/account").text
    assert 'lang="en"' in page and "<option selected>America/New_York</option>" in page
    assert client.submit("/account", name="T", locale="en", zone="../../etc/passwd").status_code == 422
    assert client.submit("/account", name="T", locale="xx", zone="Pacific/Chatham").status_code == 303
    assert "<option selected>Pacific/Chatham</option>" in client.get("/account").text


def test_own_sessions_are_listed_and_ended(office: Office) -> None:
    client = office.client()
    with office.store.transaction() as db:
        row = db.execute(sa.select(accounts.ACCOUNT)).one()
        now = dt.datetime.now(dt.UTC)
        agent = "Mine <i>\u202e" + "x" * 900
        other = sessions.begin(db, row.id, now, agent=agent, source="192.0.2.7")
    page = client.get("/account").text
    assert "192.0.2.7" in page and "Mine &lt;i&gt;" in page and "\u202e" not in page
    assert sessions.digest(other) not in page
    found = re.findall(r'action="(/account/sessions/[0-9a-f]{16}/end)"', page)
    assert len(found) == 1
    stranger = office.client("member", US)
    assert stranger.submit(found[0]).status_code == 404
    assert client.submit(found[0]).status_code == 303
    assert client.submit(found[0]).status_code == 404
    assert state(office, row.id) == ("admin", 1)
    with office.store.transaction() as db:
        sessions.begin(db, row.id, now)
    assert client.submit("/account/sessions/end").status_code == 303
    assert state(office, row.id) == ("admin", 1) and client.get("/account").url.path == "/account"


def test_the_rules_for_everyone_are_one_customers(office: Office) -> None:
    office.client().submit("/members/rules", second_factor="yes", one_session="yes")
    with office.store.database.reading() as db:
        ours, theirs = tenants.load(db, US), tenants.load(db, THEM)
    assert (ours.second_factor, ours.one_session) == (True, True)
    assert (theirs.second_factor, theirs.one_session) == (False, False)


def test_the_record_is_paged_and_each_customers_own(office: Office) -> None:
    with office.store.transaction() as db:
        for number in range(PAGE + 5):
            for tenant in (US, THEM):
                audit._keep(db, "", f"p{number}@example.com", "session.begin", canary(tenant), tenant)
    admin, operator = office.client(), office.client("operator")
    page = admin.get("/audit").text
    assert page.count(canary(US)) == PAGE and canary(THEM) not in page
    older = re.search(r'href="(/audit\?before=\d+)"', page)
    assert older and admin.get(older[1]).text.count(canary(US)) == 5
    assert canary(THEM) not in admin.get("/audit?all=true").text
    assert canary(THEM) not in operator.get("/audit").text, "the customer whose pages are shown"
    assert canary(THEM) in operator.get("/audit?all=true").text
    for wrong in ("-1", "x", str(2**70)):
        assert admin.get(f"/audit?before={wrong}").status_code == 400


@pytest.mark.parametrize("scope", [only(US), EVERYONE])
def test_the_records_page_reads_an_index(office: Office, scope: Scope) -> None:
    query = sa.select(audit.AUDIT).where(scope.of(audit.AUDIT.c.tenant), audit.AUDIT.c.id < 10**6)
    text = str(query.order_by(audit.AUDIT.c.id.desc()).limit(50).compile(compile_kwargs={"literal_binds": True}))
    with office.store.database.reading() as db:
        plan = " ".join(row[-1] for row in db.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")))
    assert "SEARCH audit" in plan and "TEMP B-TREE" not in plan, plan


def test_every_action_has_its_sentence() -> None:
    """One that is new gets its words in the section [audited] of words/auth.toml."""
    for file in Path(portal.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("audit.note", "audit.write")):
                continue
            action = node.args[2]
            if isinstance(action, ast.Constant):
                assert _key(str(action.value)), f"{file.name}: [audited] has no sentence for {action.value!r}"
            elif isinstance(action, ast.JoinedStr) and isinstance(action.values[0], ast.Constant):
                kind = str(action.values[0].value)
                assert _key(kind), f"{file.name}: [audited] has no {kind.partition('.')[0]}_any"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36", "Chrome (Windows)"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge (Windows)"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1", "Safari (iPhone)"),
        ("curl/8.0", "curl/8.0"),
    ],
)
def test_a_browser_is_called_what_people_call_it(agent: str, name: str) -> None:
    assert named(agent) == name
