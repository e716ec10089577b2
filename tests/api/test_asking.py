"""Lists, filters, limits and refusals as a partner's program meets them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from house import Client, House, Partner
from office import BOXES, THEM, US

from sekisho.appliance.core import utc
from sekisho.center.api import boxes, partners
from sekisho.center.ca import registry
from sekisho.center.scope import only
from sekisho.telemetry import events as ev


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Partner]]:
    """A house in which one alert waits, for what changes nothing."""
    house = House(tmp_path_factory.mktemp("shared"))
    feed(house, 1)
    yield house.client(), house.partner()
    house.close()


ALERTS = f"/v1/tenants/{US}/alerts"
FLOW = ev.Flow("192.168.1.10", 4000, "203.0.113.9", 443, "TCP", "02:77:00:00:00:cc")


def feed(house: House, number: int, stars: int = 3, tenant: str = US, **facts: Any) -> None:
    house.office.feed(
        *(
            ev.Alert(at=utc.now(), flow=FLOW, sid=sid, stars=stars, why_stars="calls_out", **facts)
            for sid in range(1, number + 1)
        ),
        tenant=tenant,
    )


def pages(client: Client, who: Partner, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    """Every page of a list."""
    made, cursor = [], ""
    while True:
        answer = client.ask(who, "GET", path, params={**query, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200, answer.text
        made.append(answer.json()["items"])
        cursor = answer.json()["next"]
        if not cursor:
            return made
        assert len(made) < 100


def test_pages_follow_each_other_without_a_gap_or_a_repeat_while_more_arrives(house: House) -> None:
    client, who = house.client(), house.partner()
    feed(house, 25)
    first = client.ask(who, "GET", ALERTS, params={"limit": 10}).json()
    before = {one["id"] for one in pages(client, who, ALERTS, limit=500)[0]}
    assert len(before) == 25
    seen, cursor = [one["id"] for one in first["items"]], first["next"]
    while cursor:
        feed(house, 3)
        page = client.ask(who, "GET", ALERTS, params={"limit": 10, "cursor": cursor}).json()
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert seen == sorted(before, reverse=True)


def test_filters_narrow_and_pages_keep_them(house: House) -> None:
    client, who = house.client(), house.partner()
    feed(house, 6, stars=3)
    feed(house, 5, stars=1)
    found = pages(client, who, ALERTS, stars=3, limit=4)
    assert [len(page) for page in found] == [4, 2]
    assert {one["stars"] for page in found for one in page} == {3}
    assert not pages(client, who, ALERTS, state="done")[0]
    assert not pages(client, who, ALERTS, device="02:00:00:00:00:01")[0]
    assert not pages(client, who, ALERTS, until="2020-01-01T00:00:00Z")[0]
    assert not pages(client, who, ALERTS, since="2099-01-01T00:00:00+09:00")[0]
    assert len(pages(client, who, ALERTS, device="02:77:00:00:00:cc", since="2020-01-01T00:00:00Z")[0]) == 11


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize("name", ["since", "until"])
def test_times_at_the_ends_of_the_calendar_are_times(shared: tuple[Client, Partner], name: str, text: str) -> None:
    client, who = shared
    answer = client.ask(who, "GET", ALERTS, params={name: text})
    assert answer.status_code == 200
    assert len(answer.json()["items"]) == ((name, text[0]) in (("since", "0"), ("until", "9")))


def test_devices_come_in_pages_too(house: House) -> None:
    at = utc.now()
    house.office.feed(*(ev.Device(at=at, mac=f"02:00:00:00:00:{n:02x}", last_seen=at) for n in range(7)))
    found = pages(house.client(), house.partner(), f"/v1/tenants/{US}/devices", limit=3)
    assert [len(page) for page in found] == [3, 3, 1]
    assert len({one["mac"] for page in found for one in page}) == 7


def test_tenants_and_boxes_come_in_pages_too(house: House) -> None:
    client = house.client()
    found = pages(client, house.partner("operator"), "/v1/tenants", limit=1)
    assert [page[0]["tenant"] for page in found] == [US, THEM]
    with house.office.store.transaction() as db:
        for number in range(4):
            registry.expect(db, f"b{number}", US, utc.now())
        registry.expect(db, "b1-theirs", THEM, utc.now())
    mine = pages(client, house.partner(), f"/v1/tenants/{US}/boxes", limit=3)
    assert [[one["box"] for one in page] for page in mine] == [["b0", "b1", "b2"], ["b3"]]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("star=3", "star"),
        ("stars=4", "stars"),
        ("stars=3&stars=1", "stars"),
        ("state=closed", "state"),
        ("limit=501", "limit"),
        ("limit=0", "limit"),
        ("device=%00", "device"),
        ("since=yesterday", "since"),
        ("%3Cscript%3E=1", "<script>"),
    ],
)
def test_what_is_not_known_is_refused_by_name(shared: tuple[Client, Partner], query: str, name: str) -> None:
    client, who = shared
    answer = client.ask(who, "GET", f"{ALERTS}?{query}")
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["fields"][0]["name"] == name


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzBd", "WyJcdTAwMDAiXQ", "A" * 800, "Wy0xXQ"])
def test_a_page_that_is_none_is_not_found(shared: tuple[Client, Partner], cursor: str) -> None:
    client, who = shared
    for path in ("/v1/tenants", ALERTS, f"/v1/tenants/{US}/devices", f"/v1/tenants/{US}/cases"):
        status = client.ask(who, "GET", path, params={"cursor": cursor}).status_code
        assert status in (404, 400), path


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"state": "done"}',
        b'{"state": "done", "reason": ""}',
        b'{"state": "done", "reason": "\\u0000"}',
        b'{"state": "gone", "reason": "x"}',
        b'{"state": "done", "reason": "x", "tenant": "baba-clinic"}',
        b'{"state": "done", "reason": "' + b"x" * 1001 + b'"}',
        b"\xff\xfe",
        b"[" * 9000,
    ],
)
def test_a_body_that_is_not_what_is_asked_for_changes_nothing(shared: tuple[Client, Partner], body: bytes) -> None:
    client, who = shared
    number = client.ask(who, "GET", ALERTS).json()["items"][0]["id"]
    headers = {"content-type": "application/json"}
    answer = client.ask(who, "PUT", f"{ALERTS}/{number}/state", content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert client.ask(who, "GET", f"{ALERTS}/{number}").json()["alert"]["state"] == "open"


def test_a_body_that_is_too_large_is_refused(shared: tuple[Client, Partner]) -> None:
    client, who = shared
    answer = client.ask(who, "PUT", f"{ALERTS}/1/state", content=b" " * (17 << 10))
    assert answer.status_code == 413


def test_strangers_texts_come_as_data(house: House) -> None:
    hostile = "<script>\u202e\r\nset-cookie: x=1\x00" + "長" * 65536
    feed(house, 1, host=hostile[:250], signature=hostile)
    client, who = house.client(), house.partner()
    listed = client.ask(who, "GET", ALERTS)
    whole = client.ask(who, "GET", f"{ALERTS}/{listed.json()['items'][0]['id']}")
    assert whole.status_code == 200 and whole.headers["content-type"] == "application/json"
    assert whole.headers["x-content-type-options"] == "nosniff" and "set-cookie" not in whole.headers
    assert len(whole.content) < 8000


def test_who_asks_too_often_is_told_how_long_to_wait_and_others_are_not(tmp_path: Path) -> None:
    house = House(tmp_path, requests_per_minute=3)
    client, eager, calm = house.client(), house.partner(), house.partner()
    answers = [client.ask(eager, "GET", "/v1/tenants") for _ in range(9)]
    assert answers[0].status_code == 200 and answers[-1].status_code == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert client.ask(calm, "GET", "/v1/tenants").status_code == 200
    house.close()


def test_a_database_that_is_gone_is_said_without_inner_detail(house: House) -> None:
    client, who = house.client(), house.partner()
    assert client.ask(who, "GET", "/v1/tenants").status_code == 200
    for name in ("partner", "partner_certificate"):
        with house.office.store.transaction() as db:
            db.execute(sa.text(f"ALTER TABLE {name} RENAME TO {name}_gone"))
    answer = client.ask(who, "GET", "/v1/tenants")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert "partner" not in answer.text and "events.db" not in answer.text


def test_partners_and_boxes_are_found_by_an_index(house: House) -> None:
    who = house.partner("reseller")
    with house.office.store.database.reading() as db:
        steps: list[str] = []

        def explain(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT"):
                raw = db.connection.driver_connection.cursor()  # type: ignore[union-attr]
                steps.extend(row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

        sa.event.listen(db, "before_cursor_execute", explain)
        boxes.listed(db, only(US), "a", 50)
        boxes.listed(db, only(US), "", 1, BOXES[US])
        partners.find(db, who.fingerprint, dt.datetime.now(dt.UTC))
    assert len(steps) >= 4 and all(step.startswith("SEARCH") for step in steps), steps
