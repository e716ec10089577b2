"""What is decided at the centre holds in the office seconds later; what cannot be put in force changes nothing."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest

from sekisho.center.database import Database
from sekisho.center.orders import wishes
from sekisho.center.orders.wishes import Wish
from sekisho.center.scope import only
from sekisho.center.views.orders import uses
from sekisho.lab import layout
from sekisho.lab.lab import Lab
from sekisho.lab.layout import SERVER4
from sekisho.policy.model import Exemption, UrlCategory, WebGuard
from sekisho.telemetry.events import Alert, Applied

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

WITHIN_S = 20.0
"""On two cores that others use, with a reload of all rules in between."""
TENANT = layout.TENANT
HERE = only(TENANT)
GAMBLING = UrlCategory(categories=("gambling",), dns="log")
ADULT = UrlCategory(categories=("adult",), dns="log")


class Office:
    """The lab, and the customer's wishes at its centre."""

    def __init__(self, lab: Lab, database: Database) -> None:
        self.lab = lab
        self.database = database

    def wish(self) -> Wish:
        with self.database.reading() as db:
            return wishes.of_box(db, HERE, layout.BOX_NAME) or Wish(layout.BOX_NAME, TENANT)

    def decide(self, **change: Any) -> int:
        wish = self.wish()
        made = wishes.prepare(wish, lambda now: msgspec.structs.replace(now, **change))
        if made is None:
            return wish.n
        with self.database.transaction() as db:
            return wishes.commit(db, made, "花子")

    def http(self, host: str) -> str:
        argv = ["curl", "-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*"]
        done = self.lab.run("lan", [*argv, "--resolve", f"{host}:80:{SERVER4}", f"http://{host}/"])
        return {"200": "ok", "404": "ok", "403": "page"}.get(done.stdout.decode(), f"curl {done.returncode}")

    def until(self, host: str, answer: str) -> float:
        """Seconds until it is answered so."""
        began = time.monotonic()
        self.lab.wait(lambda: self.http(host) == answer, f"{host} was never answered with {answer}", 60)
        return time.monotonic() - began

    def until_state(self, state: str) -> Wish:
        self.lab.wait(lambda: self.wish().state == state, f"the box never said {state}", 60)
        return self.wish()

    def told(self) -> list[Applied]:
        return [row.event for row in self.lab.events() if isinstance(row.event, Applied)]


@pytest.fixture(scope="module")
def office() -> Iterator[Office]:
    with Lab(f"orders{os.getpid()}") as lab:
        lab.up()
        with closing(Database(str(lab.lay.center_store))) as database:
            yield Office(lab, database)


HOST, OTHER = "www.gambling.sekisho.test", "www.adult.sekisho.test"


@pytest.mark.protocol("P39")
def test_a_category_is_refused_and_an_exception_lets_one_site_pass_and_is_counted(office: Office) -> None:
    assert office.http(HOST) == "ok"
    office.decide(url_category=(GAMBLING,))
    assert office.until(HOST, "page") < WITHIN_S
    assert office.until_state("in_force").force_n == office.wish().n
    one = Exemption(id="x-bank", reason="経理", function="url_category", entry="gambling", domains=(HOST,))
    n = office.decide(exception=(one,))
    assert office.until(HOST, "ok") < WITHIN_S
    assert office.http("other.gambling.sekisho.test") == "page"
    assert office.until_state("in_force").n == n

    def counted() -> int:
        office.http(HOST)
        with office.database.reading() as db:
            return uses(db, HERE).get((layout.BOX_NAME, "x-bank"), (0, ""))[0]

    office.lab.wait(lambda: counted() >= 1, "its use was not counted")
    passed = [row.event for row in office.lab.events() if isinstance(row.event, Alert) and row.event.exception]
    assert {(alert.exception, alert.action, alert.function) for alert in passed} == {
        ("x-bank", "allowed", "url_category")
    }
    argv = [sys.executable, "-m", "sekisho.appliance.cli", "policy", "show"]
    said = office.lab.run("box", [*argv, "--settings", str(office.lab.lay.box_settings)], check=True).stdout.decode()
    assert "x-bank" in said and "gambling" in said and said.count("centre") == 2, (
        "the box's owner sees whose word it is"
    )
    office.decide(exception=())
    assert office.until(HOST, "page") < WITHIN_S


@pytest.mark.protocol("P38")
def test_what_the_box_cannot_put_in_force_is_refused_with_the_reason_and_the_rest_stays(office: Office) -> None:
    """A centre of a newer version names a category that this box does not know."""
    office.decide(url_category=(GAMBLING,))
    office.until(HOST, "page")
    wish = office.until_state("in_force")
    newer = msgspec.structs.replace(wish.overlay, url_category=(UrlCategory(categories=("of_tomorrow",)),))
    with office.database.transaction() as db:
        change = wishes.Change(layout.BOX_NAME, TENANT, wish.n, newer, msgspec.json.encode(newer))
        n = wishes.commit(db, change, "花子")
    refused = office.until_state("refused")
    assert (refused.n, refused.why, refused.force_n) == (n, "cannot_be_made", wish.n)
    assert office.http(HOST) == "page"
    office.decide(url_category=(GAMBLING, ADULT))
    assert office.until(OTHER, "page") < WITHIN_S
    office.until_state("in_force")


@pytest.mark.protocol("P37")
def test_kills_of_every_part_in_between_lose_no_decision(office: Office) -> None:
    guard = WebGuard(name="blocked", domains=("shop.sekisho.test",), dns="log")
    for room in ("telemetry", "appliance", "orders", "mosquitto"):
        office.decide(web_guard=(), zone="Asia/Tokyo" if office.wish().overlay.zone != "Asia/Tokyo" else "UTC")
        office.lab.wait(lambda: office.http("shop.sekisho.test") == "ok", "it was not taken back", 60)
        office.decide(web_guard=(guard,))
        office.lab.kill(room)
        office.until("shop.sekisho.test", "page")
        office.until_state("in_force")
