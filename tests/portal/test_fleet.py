"""The fleet as the centre's staff sees it: states that are true, noise that is counted once, nobody else's eyes."""

from __future__ import annotations

import datetime as dt
import time

import pytest
import sqlalchemy as sa
from office import BOXES, CHAMBERS, THEM, US, Office

from sekisho.appliance.core import utc
from sekisho.center import customers, fleet, roster
from sekisho.center.ca import registry
from sekisho.center.customers import CUSTOMER
from sekisho.center.roster import Wanted
from sekisho.center.scope import EVERYONE, only
from sekisho.center.settings import Days
from sekisho.center.store import BOX, BoxState
from sekisho.center.views import noise
from sekisho.center.views.noise import NOISE, NOISE_RULE
from sekisho.telemetry.events import Alert, Bypass, Vitals


def today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _on(office: Office, tenant: str, box: str = "", state: str = "on") -> None:
    with office.store.transaction():
        office.store.set_state(BoxState(box or BOXES[tenant], tenant, state, 1, "e1", 1, utc.now()))


def _alert(sid: int, signature: str = "test rule", **more: object) -> Alert:
    return Alert(utc.now(), sid=sid, signature=signature, **more)  # type: ignore[arg-type]


def _counts(office: Office, reseller: str = "") -> dict[str, int]:
    with office.store.database.reading() as db:
        return {str(state): number for state, number in fleet.counted(db, EVERYONE, reseller).items()}


def test_every_box_is_counted_in_its_state(office: Office) -> None:
    _on(office, US)
    _on(office, US, "box-aoki-2", "lost")
    _on(office, THEM)
    office.feed(Bypass(utc.now(), state="began", reason="engine_hung"), tenant=THEM)
    with office.store.transaction() as db:
        registry.expect(db, "box-new", US, utc.now())
    assert _counts(office) == {"online": 2, "offline": 1, "bypass": 1, "waiting": 1}
    assert _counts(office, CHAMBERS[US]) == {"online": 1, "offline": 1, "bypass": 0, "waiting": 1}
    office.feed(Bypass(utc.now(), state="ended", reason="engine_hung"), tenant=THEM)
    assert _counts(office)["bypass"] == 0
    page = office.client("operator").get("/fleet", params={"show": "offline"}).text
    assert "box-aoki-2" in page and BOXES[THEM] not in page and "青木商店" in page


def test_a_customer_whose_contract_is_over_is_not_in_the_fleet(office: Office) -> None:
    _on(office, US)
    with office.store.transaction() as db:
        db.execute(CUSTOMER.update().where(CUSTOMER.c.tenant == US).values(state="ended"))
    assert _counts(office)["online"] == 0


def test_the_fleet_is_for_the_centre(office: Office) -> None:
    for role in ("admin", "member", "reseller", "helpdesk"):
        for path in ("/fleet", "/fleet/noise", "/fleet/versions", "/fleet/certificates"):
            assert office.client(role).get(path).status_code == 403, (role, path)
    with office.store.database.reading() as db:
        _on(office, THEM)
        assert fleet.listed(db, only(US), "online") == []


def test_boxes_are_a_page_at_a_time(office: Office) -> None:
    for number in range(fleet.PAGE + 7):
        _on(office, US, f"box-{number:03}")
    with office.store.database.reading() as db:
        first = fleet.listed(db, EVERYONE, "online")
        assert len(first) == fleet.PAGE + 1
        rest = fleet.listed(db, EVERYONE, "online", after=first[fleet.PAGE - 1].box)
        assert [one.box for one in rest] == [f"box-{number:03}" for number in range(fleet.PAGE, fleet.PAGE + 7)]


def test_a_noisy_rule_is_counted_by_boxes_and_events(office: Office) -> None:
    office.feed(*[_alert(2_000_001, count=5) for _ in range(4)])
    office.feed(_alert(2_000_001), _alert(2_000_002, "other"), tenant=THEM)
    office.feed(_alert(0, function="keyword", policy="the customer's own words"), tenant=THEM)
    with office.store.database.reading() as db:
        found = {(one.function, one.sid): (one.boxes, one.count) for one in fleet.noisy(db, 2, today())}
        stored = repr(db.execute(sa.select(NOISE_RULE)).all()) + repr(db.execute(sa.select(NOISE)).all())
    assert found == {("signature", 2_000_001): (2, 21), ("signature", 2_000_002): (1, 1), ("keyword", 0): (1, 1)}
    assert "own words" not in stored
    page = office.client("operator").get("/fleet/noise").text
    assert page.index("test rule") < page.index("other") and "sid 2000001" in page


def test_a_rules_name_is_text(office: Office) -> None:
    office.feed(_alert(1, "<script>alert(1)</script>\u202e" + "x" * 10_000))
    page = office.client("operator").get("/fleet/noise").text
    assert "<script>alert" not in page and "\u202e" not in page and "x" * 300 not in page


def test_what_one_box_may_name_on_a_day_is_bounded_and_nothing_is_lost(office: Office) -> None:
    office.feed(*[_alert(number) for number in range(1, noise.RULES_CAP + 51)])
    with office.store.database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(NOISE)) == noise.RULES_CAP + 1
        assert db.scalar(sa.select(sa.func.sum(NOISE_RULE.c.count))) == noise.RULES_CAP + 50
        rest = db.scalar(sa.select(NOISE_RULE.c.count).where(NOISE_RULE.c.function == noise.REST))
    assert rest == 50


def test_a_sum_never_overflows(office: Office) -> None:
    office.feed(*[_alert(7, count=(1 << 62) - 1) for _ in range(5)])
    with office.store.database.reading() as db:
        assert db.scalar(sa.select(NOISE_RULE.c.count)) == 5 * noise.COUNT_CAP


def test_boxes_behind_the_newest_version_are_named(office: Office) -> None:
    for tenant, version in ((US, "1.10.0"), (THEM, "1.9.3<b>")):
        _on(office, tenant)
        office.feed(Vitals(utc.now(), version=version), tenant=tenant)
    _on(office, US, "box-silent")
    with office.store.database.reading() as db:
        assert [(one.version, one.boxes) for one in fleet.versions(db, EVERYONE)] == [
            ("1.10.0", 1),
            ("1.9.3<b>", 1),
            ("", 1),
        ]
        assert [one.box for one, _ in fleet.behind(db, EVERYONE, "1.10.0")] == [BOXES[THEM]]
        assert fleet.behind(db, only(US), "1.10.0") == []
    page = office.client("operator").get("/fleet/versions").text
    assert "1.9.3&lt;b&gt;" in page and "<b>" not in page and BOXES[THEM] in page


def test_old_days_go(office: Office) -> None:
    office.feed(_alert(7))
    later = today() + dt.timedelta(days=noise.KEPT_DAYS + 1)
    with office.store.transaction() as db:
        assert noise.forget(db, US, Days(), later, 100) == 1
        assert noise.forget(db, US, Days(), later, 100) == 0
        assert db.execute(sa.select(NOISE_RULE)).all() == []


def test_open_important_alerts_are_on_the_list_of_customers(office: Office) -> None:
    office.feed(*[_alert(number, stars=3, why_stars="file_arrived") for number in (1, 2)], _alert(3, stars=2))
    with office.store.database.reading() as db:
        found = {one.tenant: one.important for one in roster.listed(db, EVERYONE, Wanted())}
    assert found == {US: 2, THEM: 0}


@pytest.mark.parametrize("query", ["show=%00", "show=<b>", "after=%F0%9F%92%A9", "days=-1", "days=" + "9" * 30])
def test_strange_questions_are_answered_or_refused(office: Office, query: str) -> None:
    client = office.client("operator")
    for path in ("/fleet", "/fleet/noise", "/fleet/certificates"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code in (200, 400) and "<b>" not in answer.text


def test_ten_thousand_boxes_are_shown_in_time(office: Office) -> None:
    now, many = utc.now(), range(10_000)
    with office.store.transaction() as db:
        for tenant in range(500):
            customers.add(db, f"c-{tenant:04}", "kita-cci", at=now)
        rows = [{"box": f"b-{n:05}", "tenant": f"c-{n % 500:04}", "state": "on" if n % 9 else "lost"} for n in many]
        db.execute(BOX.insert(), [{**row, "birth": 1, "epoch": "e", "next": 1, "changed_at": now} for row in rows])
        day = {"day": str(today()), "function": "signature", "boxes": 1, "count": 1, "name": "x"}
        db.execute(NOISE_RULE.insert(), [{**day, "sid": sid} for sid in range(5_000)])
    client = office.client("operator")
    for path in (
        "/fleet",
        "/fleet?show=online&reseller=kita-cci",
        "/fleet/noise?days=7",
        "/customers",
        "/customers?q=c-04",
    ):
        took = []
        for _ in range(5):
            began = time.perf_counter()
            assert client.get(path).status_code == 200
            took.append(time.perf_counter() - began)
        assert min(took) < 0.2, (path, took)
