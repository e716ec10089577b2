"""The list of customers: each viewer's own, found by name, a page at a time, whatever they call themselves."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa
from office import BOXES, CHAMBERS, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import customers, roster, tenants
from sekisho.center.portal.audit import AUDIT
from sekisho.center.roster import Wanted
from sekisho.center.scope import EVERYONE, only
from sekisho.center.store import BoxState
from sekisho.center.tenants import Tenant
from sekisho.telemetry.events import Health


def _many(office: Office, number: int, reseller: str = "") -> None:
    with office.store.transaction() as db:
        for count in range(number):
            customers.add(db, f"shop-{count:03}", reseller, at=utc.now())


def test_each_chamber_sees_its_own_customers_only(office: Office) -> None:
    for ours, theirs in ((US, THEM), (THEM, US)):
        page = office.client("reseller", ours).get("/customers").text
        assert f'value="{ours}"' in page
        assert theirs not in page and CHAMBERS[theirs] not in page
        searched = office.client("reseller", ours).get("/customers", params={"q": theirs, "reseller": CHAMBERS[theirs]})
        assert f'name="tenant" value="{theirs}"' not in searched.text


def test_the_centres_staff_sees_everyone_and_a_customer_nobody(office: Office) -> None:
    for role in ("operator", "helpdesk"):
        page = office.client(role).get("/customers").text
        assert US in page and THEM in page
    assert office.client("admin").get("/customers").status_code == 403
    assert office.client("member").get("/customers").status_code == 403


def test_a_customer_is_found_by_a_part_of_its_name(office: Office) -> None:
    page = office.client("operator").get("/customers", params={"q": "馬場"}).text
    assert THEM in page and US not in page


@pytest.mark.parametrize("clue", ["%", "_", "'", "\\", "x" * 80, "\u202e", "<b>"])
def test_a_strange_search_finds_nothing_and_harms_nothing(office: Office, clue: str) -> None:
    answer = office.client("operator").get("/customers", params={"q": clue, "after": "", "contract": clue})
    assert answer.status_code in (200, 400)
    assert f'value="{US}"' not in answer.text and "<b>" not in answer.text


def test_a_row_tells_the_boxes_and_when_they_were_last_heard(office: Office) -> None:
    with office.store.transaction():
        office.store.set_state(BoxState(BOXES[US], US, "on", 1, "e1", 1, utc.now()))
        office.store.set_state(BoxState("box-aoki-2", US, "lost", 1, "e1", 1, utc.now()))
    office.feed(Health(at=utc.now(), part="engine", state="started"))
    with office.store.database.reading() as db:
        found = {one.tenant: one for one in roster.listed(db, EVERYONE, Wanted())}
    assert (found[US].boxes, found[US].online, bool(found[US].heard_at)) == (2, 1, True)
    assert (found[THEM].boxes, found[THEM].online, found[THEM].heard_at) == (0, 0, "")
    assert "2台のうち1台が接続中" in office.client("operator").get("/customers").text


def test_every_customer_is_on_one_page_exactly(office: Office) -> None:
    _many(office, 120)
    client, path, seen = office.client("operator"), "/customers", []
    while path:
        page = client.get(path).text
        seen += re.findall(r'name="tenant" value="([^"]+)"', page)
        found = re.search(r'href="(/customers\?[^"]+after=[^"]+)"', page)
        path = found[1].replace("&amp;", "&") if found else ""
    assert sorted(seen) == sorted([US, THEM, *(f"shop-{n:03}" for n in range(120))])


def test_a_hostile_name_is_text(office: Office) -> None:
    with office.store.transaction() as db:
        tenants.save(db, Tenant(US, name='"><script>alert(1)</script>'))
    page = office.client("operator").get("/customers").text
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page


def test_an_operator_enters_a_customer_once(office: Office) -> None:
    client = office.client("operator")
    assert client.submit("/customers/new", tenant="new-shop", name="新店", reseller="kita-cci").status_code == 303
    assert client.submit("/customers/new", tenant="new-shop", name="別の店", reseller="minami-cci").status_code == 303
    with office.store.database.reading() as db:
        made = roster.one(db, EVERYONE, "new-shop")
        assert made is not None and (made.name, made.reseller, made.state) == ("新店", "kita-cci", "active")
        noted = db.execute(sa.select(AUDIT.c.action).where(AUDIT.c.tenant == "new-shop")).scalars().all()
    assert noted == ["customer.add"]
    assert "new-shop" in office.client("reseller", US).get("/customers").text
    assert "new-shop" not in office.client("reseller", THEM).get("/customers").text


@pytest.mark.parametrize("tenant", ["", "a b", "x" * 65, "../x", "<i>", "店"])
def test_an_identifier_that_could_not_be_one_is_refused(office: Office, tenant: str) -> None:
    office.client("operator").submit("/customers/new", tenant=tenant, name="x")
    with office.store.database.reading() as db:
        assert len(roster.listed(db, EVERYONE, Wanted())) == 2


def test_the_centre_changes_a_customers_basics_and_nobody_else_does(office: Office) -> None:
    client = office.client("operator")
    given = {"name": "青木", "reseller": "minami-cci", "locale": "en", "time_zone": "Asia/Seoul"}
    assert client.submit(f"/customers/{US}", **given).status_code == 303
    with office.store.database.reading() as db:
        settings = tenants.load(db, US)
    assert (settings.name, settings.locale, settings.time_zone) == ("青木", "en", "Asia/Seoul")
    assert US in office.client("reseller", THEM).get("/customers").text, "the other chamber looks after it now"
    for wrong in ({"time_zone": "Mars/Olympus"}, {"locale": "xx"}, {"name": "x" * 81}, {"reseller": "a b"}):
        assert client.submit(f"/customers/{US}", **{**given, **wrong}).status_code == 400
    for role in ("reseller", "admin", "helpdesk", "member"):
        assert office.client(role).submit(f"/customers/{US}", **given).status_code == 403
    assert client.submit("/customers/nobody", **given).status_code == 404


def test_a_scope_of_many_customers_holds_on_every_query(office: Office) -> None:
    _many(office, 60, "kita-cci")
    with office.store.database.reading() as db:
        mine = customers.of_reseller(db, "kita-cci")
        found = roster.listed(db, only(*mine), Wanted(reseller="minami-cci"))
        assert found == []
        assert roster.one(db, only(*mine), THEM) is None
        assert roster.resellers(db, only(*mine)) == ["kita-cci"]


def test_every_question_has_its_index(office: Office) -> None:
    questions = (
        "SELECT * FROM customer WHERE tenant > ? ORDER BY tenant LIMIT 51",
        "SELECT * FROM customer WHERE state = ? AND tenant > 'a' ORDER BY tenant LIMIT 51",
        "SELECT * FROM customer WHERE reseller = ? AND tenant > 'a' ORDER BY tenant LIMIT 51",
        "SELECT tenant, count(*) FROM box WHERE tenant IN (?, 'b') GROUP BY tenant",
        "SELECT tenant, max(last_at) FROM stream WHERE tenant IN (?, 'b') GROUP BY tenant",
    )
    with office.store.database.reading() as db:
        for question in questions:
            plan = " ".join(row[3] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}", ("a",)))
            assert "SEARCH" in plan and "SCAN" not in plan and "TEMP B-TREE" not in plan, (question, plan)
