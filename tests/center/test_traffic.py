"""The communication log finds what is in the events, all of it, in the order of time, at a bounded price."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import traffic
from sekisho.center.retention import sweep
from sekisho.center.scope import only
from sekisho.center.settings import Retention
from sekisho.center.store import EVENT, NewRow, Store
from sekisho.center.traffic import Found, Wanted
from sekisho.center.views.passages import ACTIVE, KINDS, PASSAGE, WEEK_US, domain_of, site_of
from sekisho.telemetry import events as ev
from sekisho.telemetry.events import Event, Flow, encode, lane_of

NOW = dt.datetime(2026, 3, 2, 10, tzinfo=dt.UTC)
BOXES = ("box-a", "box-b")
SITES = ("www.example.com", "example.com", "a.b.example.co.jp", "example.co.jp", "", "notexample.com")
MACS = ("02:77:00:00:00:01", "02:77:00:00:00:02", "")


def events_of(dice: random.Random, number: int) -> list[tuple[str, Event]]:
    """So many of every kind, some at the very same time, over five weeks."""
    made = []
    for _ in range(number):
        at = utc.text(NOW - dt.timedelta(minutes=dice.randrange(0, 35 * 24 * 60, 97)))
        site, flow = dice.choice(SITES), Flow("192.168.1.9", 1, "203.0.113.7", 443, "TCP", dice.choice(MACS))
        back = Flow("203.0.113.7", 80, "192.168.1.9", 1, "TCP", flow.mac)
        kinds: tuple[Event, ...] = (
            ev.Web(at=at, flow=flow, host=site, url="/"),
            ev.Tls(at=at, flow=flow, sni=site.upper()),
            ev.Dns(at=at, flow=flow, name=site and site + "."),
            ev.Mail(at=at, flow=flow, mail_from="a@example.com"),
            ev.FileVerdict(at=at, flow=back, host=site, file_name="a.pdf"),
            ev.Alert(at=at, flow=flow, host=site),
        )
        made.append((dice.choice(BOXES), dice.choice(kinds)))
    return made


def fill(store: Store, made: list[tuple[str, Event]], tenant: str = "t1", at: dt.datetime = NOW) -> None:
    for box in BOXES:
        mine = [event for where, event in made if where == box]
        rows = [
            NewRow(n, lane_of(event), str(event.__struct_config__.tag), event.at, encode(event))
            for n, event in enumerate(mine, 1)
        ]
        with store.transaction():
            store.add(tenant, box if tenant == "t1" else f"{box}-{tenant}", "e", rows, utc.text(at))


def every(store: Store, wanted: Wanted, page: int = 19) -> list[tuple[str, Event]]:
    """All pages, one after the other."""
    told: list[tuple[str, Event]] = []
    place, seen = None, set()
    while True:
        with store.database.reading() as db:
            found = traffic.search(db, only("t1"), wanted, place, page=page)
        assert len(found.entries) <= page
        told += [(entry.box, entry.event) for entry in found.entries]
        place = found.place
        if place is None:
            return told
        assert place not in seen
        seen.add(place)


def fits(wanted: Wanted, box: str, event: Any) -> bool:
    at = traffic.micros(dt.datetime.fromisoformat(event.at))
    kind = event.__struct_config__.tag
    site = site_of(event)
    return bool(
        box in wanted.boxes
        and kind in wanted.kinds
        and wanted.since_us <= at < wanted.until_us
        and (not wanted.mac or event.flow.mac == wanted.mac)
        and (not wanted.site or site == wanted.site or site.endswith("." + wanted.site))
    )


WEEK = traffic.micros(NOW - dt.timedelta(days=9)), traffic.micros(NOW - dt.timedelta(days=2))
ASKED = [
    Wanted(BOXES),
    Wanted(("box-a",)),
    Wanted(BOXES, ("mail",)),
    Wanted(BOXES, mac=MACS[0]),
    Wanted(("box-b",), ("tls", "dns"), mac=MACS[1]),
    Wanted(BOXES, site="example.com"),
    Wanted(BOXES, site="www.example.com"),
    Wanted(BOXES, site="b.example.co.jp"),
    Wanted(BOXES, site="203.0.113.7"),
    Wanted(BOXES, ("web",), mac=MACS[0], site="example.co.jp"),
    Wanted(BOXES, since_us=WEEK[0], until_us=WEEK[1]),
    Wanted(BOXES, mac=MACS[0], site="example.com", since_us=WEEK[0], until_us=WEEK[1]),
    Wanted(BOXES, site="nowhere.example"),
    Wanted(("box-x",)),
    Wanted(BOXES, since_us=WEEK[1], until_us=WEEK[0]),
]


@pytest.fixture(scope="module")
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "sqlite":
        url = str(tmp_path_factory.mktemp("traffic") / "events.db")
    else:
        url = request.getfixturevalue("postgres").database()
    store = Store(url)
    made = events_of(random.Random(5), 700)
    fill(store, made)
    fill(store, [(box, ev.Web(at=utc.text(NOW), host="example.com", url="/theirs")) for box in BOXES], tenant="t2")
    yield store, made
    store.close()


@pytest.mark.parametrize(
    ("full", "wanted"),
    [("sqlite", wanted) for wanted in ASKED] + [("postgresql", wanted) for wanted in (ASKED[3], ASKED[11])],
    indirect=["full"],
)
def test_pages_have_everything_that_fits_once_and_in_order(full: Any, wanted: Wanted) -> None:
    store, made = full
    told = every(store, wanted)
    expected = [(box, event) for box, event in made if fits(wanted, box, event)]
    assert sorted(map(repr, told)) == sorted(map(repr, [e for e in expected if e[1].__struct_config__.tag in KINDS]))
    times = [event.at for _, event in told]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("full", ["sqlite"], indirect=True)
def test_a_search_that_reads_too_much_stops_and_goes_on(full: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = full
    monkeypatch.setattr(traffic, "LOOK_CAP", 400)
    wanted = Wanted(BOXES, mac=MACS[0], site="notexample.com")
    with store.database.reading() as db:
        first: Found = traffic.search(db, only("t1"), wanted)
    assert not first.looked
    assert first.place
    told = every(store, wanted)
    assert len(told) == sum(fits(wanted, box, event) for box, event in made if event.__struct_config__.tag in KINDS)


@pytest.mark.parametrize("full", ["sqlite", "postgresql"], indirect=True)
def test_another_customers_events_are_found_by_nobody_else(full: Any) -> None:
    store, _ = full
    with store.database.reading() as db:
        for scope in (only("t1"), only("t3")):
            assert not traffic.search(db, scope, Wanted(("box-a-t2", "box-b-t2"))).entries
        assert traffic.search(db, only("t2"), Wanted(("box-a-t2",))).entries


def test_a_time_nobody_can_believe_is_that_of_the_receipt(store_url: str) -> None:
    store = Store(store_url)
    fill(store, [("box-a", ev.Web(at=at, url=at)) for at in ("1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z")])
    assert len(every(store, Wanted(BOXES))) == 2
    with store.database.reading() as db:
        assert {week for (week,) in db.execute(sa.select(PASSAGE.c.week))} == {traffic.micros(NOW) // WEEK_US}
    store.close()


def test_the_log_goes_with_the_events(store_url: str) -> None:
    store = Store(store_url)
    fill(store, events_of(random.Random(6), 60))
    list(sweep(store, Retention(), (NOW + dt.timedelta(days=100)).date()))
    with store.database.reading() as db:
        assert not db.scalar(sa.select(sa.func.count()).select_from(EVENT).where(EVENT.c.lane == 2))
        assert not db.scalar(sa.select(sa.func.count()).select_from(PASSAGE))
        assert not db.scalar(sa.select(sa.func.count()).select_from(ACTIVE))
    assert not every(store, Wanted(BOXES))
    store.close()


@pytest.mark.parametrize(
    ("site", "domain"),
    [
        ("www.example.com", "example.com"),
        ("example.com", "example.com"),
        ("a.b.example.co.jp", "example.co.jp"),
        ("localhost", "localhost"),
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_names_stand_under_what_was_registered(site: str, domain: str) -> None:
    assert domain_of(site) == domain
