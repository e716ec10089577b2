"""The pages of settings and exceptions: what is saved is sent, what is shown is what the UTM said, nobody else's."""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from office import BOXES, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.orders import boxes as boxes_of
from sekisho.center.orders import choices, wishes
from sekisho.center.orders.wishes import Wish
from sekisho.center.portal.audit import AUDIT
from sekisho.center.portal.sessions import SESSION
from sekisho.center.portal.words import catalogue
from sekisho.center.scope import only
from sekisho.center.store import BoxState
from sekisho.center.views.alerts import ALERT
from sekisho.center.views.orders import uses
from sekisho.policy.model import Exemption
from sekisho.telemetry.events import Alert, Applied, Dns, FileVerdict, Flow

BOX = BOXES[US]
MAC = "02:77:00:00:00:10"
FLOW = Flow("192.168.1.10", 50000, "203.0.113.5", 443, "TCP", MAC)
PAGE = f"/settings/utm/{BOX}"
HOSTILE = '"><script>alert(1)</script>\u202e'


@pytest.fixture(autouse=True)
def boxes(office: Office) -> None:
    with office.store.transaction():
        states = [BoxState(BOXES[tenant], tenant, "on", 1, "a" * 16, 1, utc.now()) for tenant in (US, THEM)]
        office.store.set_states(states)


def wish(office: Office, tenant: str = US) -> Wish | None:
    with office.store.database.reading() as db:
        return wishes.of_box(db, only(tenant), BOXES[tenant])


def number(office: Office) -> str:
    found = wish(office)
    return str(found.n if found else 0)


def says(office: Office, state: str, why: str = "", overruled: int = 0) -> None:
    found = wish(office)
    assert found is not None
    office.feed(Applied(utc.now(), found.n, state, why, overruled))  # type: ignore[arg-type]


def actions(office: Office) -> list[str]:
    with office.store.database.reading() as db:
        return list(db.scalars(sa.select(AUDIT.c.action).where(AUDIT.c.tenant == US).order_by(AUDIT.c.id)))


def alert_id(office: Office) -> int:
    with office.store.database.reading() as db:
        return int(db.scalar(sa.select(sa.func.max(ALERT.c.id))) or 0)


def sentence(section: str, key: str) -> str:
    return html.escape(catalogue().say("ja", section, key), quote=False)


def test_what_is_saved_waits_for_the_utm_and_is_shown_as_the_utm_says(office: Office) -> None:
    client = office.client()
    assert sentence("orders", "none") in client.get(PAGE).text
    form = {"n": "0", "category.gambling": "block", "words": "カジノ", "restart.sun": "yes"}
    assert client.submit(PAGE, **form).headers["location"] == PAGE
    page = client.get(PAGE).text
    assert sentence("orders", "waiting") in page and "カジノ" in page
    assert re.search(r'id="category.gambling".*?<option value="block" selected', page, re.S)
    says(office, "in_force", overruled=2)
    for page in (client.get(PAGE).text, client.get("/settings").text):
        assert sentence("orders", "in_force") in page
        assert html.escape(catalogue().say("ja", "orders", "overruled", count=2)) in page
    assert actions(office) == ["settings.utm"]
    client.submit(PAGE, n=number(office), **{"category.gambling": "log"})
    says(office, "refused", "engine")
    assert sentence("orders", "why_engine") in client.get("/settings").text


def test_the_window_in_which_a_utm_may_restart_needs_a_fresh_proof_of_who_asks(office: Office) -> None:
    client = office.client()
    long_ago = utc.text(dt.datetime.now(dt.UTC) - dt.timedelta(hours=3))
    with office.store.transaction() as db:
        db.execute(SESSION.update().values(confirmed_at=long_ago))
    assert "/confirm" in client.submit(PAGE, n="0", **{"restart.sun": "yes"}).headers["location"]
    assert wish(office) is None and actions(office) == []
    assert client.submit(PAGE, n="0", words="カジノ").headers["location"] == PAGE, "what restarts nothing does not"


@pytest.mark.parametrize("why", ["damaged", "not_understood", "cannot_be_made", "engine", "own_policy"])
def test_every_reason_of_a_utm_has_words(why: str) -> None:
    assert catalogue().has("orders", f"why_{why}")


def test_every_field_that_can_be_wrong_has_words() -> None:
    for field in ("words", "sites", "devices", "isolated", "days", "start", "end", "restart_start", "restart_hours"):
        assert catalogue().has("settings", f"wrong_{field}")


def test_of_two_people_who_save_the_second_is_told_and_loses_nothing_typed(office: Office) -> None:
    first, second = office.client(), office.client()
    assert first.submit(PAGE, n="0", words="first").status_code == 303
    answer = second.submit(PAGE, n="0", words="second")
    assert answer.status_code == 400 and "second" in answer.text
    assert sentence("settings", "wrong_meanwhile") in answer.text
    found = wish(office)
    assert found is not None and choices.shown(found.overlay).words == "first"


@pytest.mark.parametrize("field", ["words", "sites", "isolated"])
def test_a_field_that_cannot_be_used_comes_back_harmless_and_nothing_is_kept(office: Office, field: str) -> None:
    answer = office.client().submit(PAGE, n="0", **{field: HOSTILE + "x" * 70})
    assert answer.status_code == 400
    assert "<script>alert" not in answer.text and 'aria-invalid="true"' in answer.text
    assert wish(office) is None


@pytest.mark.parametrize(
    "form", [{"n": "0", "category.gambling": "explode"}, {"n": "x"}, {"n": "0", "whom": "x" * 65536}]
)
def test_a_forged_form_is_refused(office: Office, form: dict[str, str]) -> None:
    assert office.client().submit(PAGE, **form).status_code in (400, 413)
    assert wish(office) is None


def test_another_customers_utm_is_not_there(office: Office) -> None:
    for role in ("admin", "member", "reseller"):
        client = office.client(role)
        theirs = f"/settings/utm/{BOXES[THEM]}"
        assert client.get(theirs).status_code in (403, 404)
        assert client.submit(theirs, n="0", words="word").status_code in (403, 404)
        form = {"box": BOXES[THEM], "what": "keyword:", "device": MAC, "reason": "r", "days": "1"}
        assert client.submit("/exceptions/new", **form).status_code in (403, 404)
        assert client.submit("/exceptions/remove", box=BOXES[THEM], id="x-1").status_code in (403, 404)
    assert wish(office, THEM) is None


def test_a_revoked_or_unknown_utm_is_not_there(office: Office) -> None:
    for box in ("nobody", "%2e%2e", "%00", "a" * 5000):
        assert office.client().get(f"/settings/utm/{box}").status_code in (400, 404, 414)


def test_who_is_told_is_changed_and_checked(office: Office) -> None:
    client = office.client()
    assert sentence("settings", "mail_nobody") in client.get("/settings").text
    form = {
        "recipients": "a@example.com\r\n b@example.com ", "locale": "en", "threshold": "2", "digest": "weekly",
        "digest_hour": "7", "quiet_from": "22:00", "quiet_to": "06:00", "offline_minutes": "30", "immunity": "yes",
    }  # fmt: skip
    assert client.submit("/settings/mail", **form).headers["location"] == "/settings"
    with office.store.database.reading() as db:
        saved = tenants.load(db, US)
    assert (saved.recipients, saved.threshold, saved.digest) == (("a@example.com", "b@example.com"), 2, "weekly")
    assert (saved.quiet_from, saved.quiet_to, saved.offline_minutes, saved.immunity) == ("22:00", "06:00", 30, True)
    assert saved.name == "青木商店" and saved.locale == "en" and actions(office) == ["settings.mail"]
    for change in (
        {"recipients": "a@example.com\r\nBcc: x@evil.example"}, {"recipients": HOSTILE}, {"threshold": "9"},
        {"digest_hour": "x"}, {"quiet_to": ""}, {"offline_minutes": "-1"}, {"digest": "hourly"},
        {"locale": "xx"},
        {"recipients": "\n".join(f"a{n}@example.com" for n in range(17))},
    ):  # fmt: skip
        answer = client.submit("/settings/mail", **(form | change))
        assert answer.status_code == 400 and "<script>alert" not in answer.text, change
    with office.store.database.reading() as db:
        assert tenants.load(db, US) == saved


def test_a_place_gets_a_name_its_people_know(office: Office) -> None:
    client = office.client()
    assert client.submit(f"{PAGE}/place", place="  本店 ").status_code == 303
    assert "本店" in client.get("/settings").text
    for name in ("x" * 81, "a\nb", "\u202eab"):
        client.submit(f"{PAGE}/place", place=name)
    assert "本店" in client.get("/settings").text
    assert client.submit(f"/settings/utm/{BOXES[THEM]}/place", place="ours").status_code == 404


def test_an_exception_is_made_from_its_alert_narrow_and_counted(office: Office, ago: Callable[..., str]) -> None:
    client = office.client()
    office.feed(
        Dns(at=ago(minutes=6), flow=FLOW, name="bets.example"),  # an event that is no alert: their numbers differ
        Alert(at=ago(minutes=5), flow=FLOW, function="url_category", policy="gambling", host="bets.example",
              action="blocked", sid=9000001, stars=1, why_stars="rule_broken")
    )  # fmt: skip
    link = f"/exceptions/new?alert={alert_id(office)}"
    assert link in client.get(f"/alerts/{alert_id(office)}").text
    page = client.get(link).text
    for value in (MAC, "bets.example", "url_category:gambling"):
        assert f'value="{value}"' in page
    form = {"box": BOX, "what": "url_category:gambling", "device": MAC, "destination": "bets.example"}
    assert client.submit("/exceptions/new", **form, reason="", days="30").status_code == 400
    answer = client.submit("/exceptions/new", **form, reason="経理で使います", days="30")
    assert answer.headers["location"] == "/exceptions"
    found = wish(office)
    assert found is not None
    (one,) = found.overlay.exception
    assert isinstance(one, Exemption) and one.domains == ("bets.example",) and one.expires is not None
    page = client.get("/exceptions").text
    assert "経理で使います" in page and sentence("exceptions", "hits_none") in page
    assert sentence("orders", "waiting") in page
    says(office, "in_force")
    office.feed(Alert(at=ago(minutes=1), exception=one.id, count=12, until=ago(minutes=1)))
    page = client.get("/exceptions").text
    assert "12 回" in page and sentence("orders", "in_force") in page
    assert client.submit("/exceptions/remove", box=BOX, id=one.id).headers["location"] == "/exceptions"
    assert sentence("exceptions", "removing") in client.get("/exceptions").text
    says(office, "in_force")
    assert sentence("exceptions", "empty") in client.get("/exceptions").text
    assert actions(office) == ["exception.add", "exception.remove"]


def test_an_alert_of_a_file_offers_no_exception_and_anothers_alert_is_not_there(
    office: Office, ago: Callable[..., str]
) -> None:
    client = office.client()
    office.feed(
        FileVerdict(at=ago(minutes=5), stars=2, flow=FLOW, outcome="blocked", rules=["eicar"], file_name="eicar.com")
    )
    assert sentence("exceptions", "none_title") in client.get(f"/exceptions/new?alert={alert_id(office)}").text
    office.feed(Alert(at=ago(minutes=5), stars=1, flow=FLOW, sid=7, host="canary.example"), tenant=THEM)
    for alert in (str(alert_id(office)), "0", "-1", "x", "9" * 40, "１２", "1 OR 1=1"):
        answer = client.get("/exceptions/new", params={"alert": alert})
        assert answer.status_code == 404 and "canary" not in answer.text


def test_strangers_words_do_nothing_on_the_pages(office: Office, ago: Callable[..., str]) -> None:
    client = office.client()
    flow = Flow("192.168.1.10", 1, "203.0.113.5", 2, "TCP", HOSTILE)
    office.feed(Alert(at=ago(minutes=5), stars=1, flow=flow, function="keyword", policy="words", host=HOSTILE))
    assert "<script>alert" not in client.get(f"/exceptions/new?alert={alert_id(office)}").text
    form = {"box": BOX, "what": "keyword:", "device": HOSTILE, "destination": HOSTILE, "reason": HOSTILE, "days": "1"}
    for change in (
        {},
        {"device": ""},
        {"device": MAC, "destination": ""},
        {"what": HOSTILE},
        {"what": "sid:" + "9" * 99},
    ):
        answer = client.submit("/exceptions/new", **(form | change))
        assert answer.status_code == 400 and "<script>alert" not in answer.text and "\u202e" not in answer.text, change
    good = form | {"device": MAC, "destination": "", "reason": '<img src=x onerror="alert(1)">'}
    assert client.submit("/exceptions/new", **good).status_code == 303
    assert "<img src=x" not in client.get("/exceptions").text


def test_who_may_only_look_has_no_buttons(office: Office) -> None:
    page = office.client("helpdesk").get(PAGE)
    assert page.status_code == 200 and sentence("settings", "read_only") in page.text
    assert f'action="{PAGE}"' in page.text and sentence("settings", "save_utm") not in page.text
    assert office.client("member").get("/settings").status_code == 403


def test_staff_without_a_chosen_customer_see_nobodys(office: Office) -> None:
    client = office.client("operator", tenant=US)
    with office.store.transaction() as db:
        db.execute(sa.text("UPDATE session SET tenant = ''"))
    assert client.get("/settings").status_code in (303, 404)
    assert client.get("/exceptions").status_code in (200, 303, 404)


def test_the_pages_ask_by_index(office: Office) -> None:
    client = office.client()
    client.submit(PAGE, n="0", words="word")
    plans: list[str] = []
    with office.store.database.reading() as db:
        seen: list[tuple[str, Any]] = []
        sa.event.listen(db, "before_cursor_execute", lambda *args: seen.append((args[2], args[3])))
        wishes.of_tenant(db, only(US))
        wishes.exceptions(db, only(US))
        uses(db, only(US))
        boxes_of.devices(db, only(US), BOX)
        for statement, values in list(seen):
            plans += [row[-1] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert plans and not [plan for plan in plans if plan.startswith("SCAN")]
