"""From the centre's database over a real broker to the box's disk: what is decided arrives, waits, comes again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest

from sekisho.appliance.core import orders
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki
from sekisho.center.database import Database
from sekisho.center.orders import wishes
from sekisho.center.orders.tables import ORDERS
from sekisho.center.orders.wishes import Wish
from sekisho.center.scope import only
from sekisho.policy import overlay
from sekisho.policy.model import Keyword
from sekisho.policy.overlay import Overlay


class Way:
    """The test site with the daemon that publishes decisions."""

    def __init__(self, site) -> None:  # type: ignore[no-untyped-def]  # the fixture's class lives in a conftest
        self.site = site
        own = pki.issue(site.pki, "orders")
        key = pki.issue(site.pki, "orders-key", "orders")
        with site.center_toml.open("a") as config:
            config.write(
                f'[orders]\ncert = "{own.cert}"\nkey = "{own.key}"\n'
                f'orders_cert = "{key.cert}"\norders_key = "{key.key}"\n'
            )
        self.database = Database(site.store_url)
        self.file = site.root / "state" / "orders" / "orders.json"

    def publish(self) -> None:
        argv = [sys.executable, "-I", "-m", "sekisho.center.orders", "--settings", str(self.site.center_toml)]
        with (self.site.root / "orders.log").open("ab") as log:
            self.site.processes["orders"] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def decide(self, word: str, box: str = "box-1", tenant: str = "t1") -> int:
        with self.database.reading() as db:
            wish = wishes.of_box(db, only(tenant), box) or Wish(box, tenant)
        made = wishes.prepare(wish, lambda _: Overlay(keyword=(Keyword(name="words", words=(word,)),)))
        assert made is not None
        with self.database.transaction() as db:
            return wishes.commit(db, made, "花子")

    def wish(self, box: str = "box-1") -> Wish:
        with self.database.reading() as db:
            found = wishes.of_box(db, only("t1"), box)
        assert found is not None
        return found

    def word(self) -> str:
        """What the box has on its disk."""
        try:
            document = orders.unchecked(self.file.read_bytes()).policy
        except (FileNotFoundError, RejectedInput):
            return ""
        return overlay.parse(bytes(document)).keyword[0].words[0]


@pytest.fixture
def way(site) -> Iterator[Way]:  # type: ignore[no-untyped-def]
    made = Way(site)
    with closing(made.database):
        yield made


@pytest.mark.protocol("P41")
def test_it_arrives_at_once_waits_for_who_is_away_and_survives_a_broker_that_forgets(way: Way) -> None:
    site = way.site
    site.start("broker", "center", "box")
    way.publish()
    way.decide("first")
    site.wait(lambda: way.word() == "first")
    site.wait(lambda: way.wish().state == "sent")  # and no more: the box's appliance has not said anything
    site.kill("box")
    way.decide("second")
    site.wait(lambda: way.wish().state == "sent")
    site.start("box")
    site.wait(lambda: way.word() == "second")
    site.kill("box")
    site.kill("broker")
    site.forget()
    way.file.unlink()
    site.start("broker")
    site.start("box")
    site.wait(lambda: way.word() == "second")
    site.kill("orders")
    way.decide("third")
    way.publish()
    site.wait(lambda: way.word() == "third")


@pytest.mark.parametrize("site", ["mosquitto", "nats", pytest.param("rabbitmq", marks=pytest.mark.full)], indirect=True)
@pytest.mark.protocol("P41")
def test_what_the_box_says_of_it_is_what_the_centre_says(way: Way) -> None:
    site = way.site
    site.start("broker", "center", "box")
    way.publish()
    n = way.decide("first")
    site.wait(lambda: way.word() == "first")
    journal = site.root / "state" / "journal" / "appliance.jsonl"
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab") as out:
        out.write(b'{"type":"applied","at":"2026-11-21T10:00:01.000000Z","number":%d,"state":"in_force"}\n' % n)
    site.wait(lambda: way.wish().state == "in_force")


@pytest.mark.protocol("P36")
def test_a_box_or_another_service_cannot_publish_settings_and_a_replay_changes_nothing(way: Way) -> None:
    site = way.site
    site.start("broker", "center", "box")
    way.publish()
    way.decide("first")
    site.wait(lambda: way.word() == "first")
    old = way.file.read_bytes()
    way.decide("second")
    site.wait(lambda: way.word() == "second")
    for name in ("box-2", "immunity"):
        client = site.client(pki.issue(site.pki, name), name)
        client.publish("sk/1/t1/box-1/orders", old, qos=1, retain=True).wait_for_publish(10)
        client.disconnect()
    # the broker itself turns hostile: it replays what it was given before
    site.kill("orders")
    with (site.root / "broker" / "acl").open("a") as acl:
        acl.write("\nuser box-2\ntopic write sk/1/t1/box-1/orders\n")
    os.kill(site.pid("broker"), signal.SIGHUP)
    hostile = site.client(pki.issue(site.pki, "box-2"), "box-2")
    for message in (old, b"", b"{}", msgspec.json.encode(["x"] * 1000)):
        hostile.publish("sk/1/t1/box-1/orders", message, qos=1, retain=True).wait_for_publish(10)
    site.wait(lambda: "Older settings of the centre were refused" in (site.root / "box.log").read_text())
    site.wait(lambda: (site.root / "box.log").read_text().count("were refused") >= 3)
    assert way.word() == "second"
    hostile.disconnect()


@pytest.mark.parametrize("running", [True, False])
def test_what_the_centre_has_forgotten_leaves_the_broker(way: Way, running: bool) -> None:
    site = way.site
    site.start("broker", "center", "box")
    way.publish()
    way.decide("first")
    way.decide("other", "box-2")
    site.wait(lambda: way.word() == "first" and way.wish("box-2").state == "sent")
    if not running:
        site.kill("orders")
    with way.database.transaction() as db:
        db.execute(ORDERS.delete().where(ORDERS.c.box == "box-1"))
    if not running:
        way.publish()

    def held() -> set[str]:
        heard: list[str] = []
        reader = site.client(site.listener, "listener")
        reader.on_message = lambda _c, _u, message: heard.append(message.topic)
        reader.subscribe("sk/1/+/+/orders", qos=1)
        reader.subscribe("sk/1/+/+/state", qos=1)
        site.wait(lambda: any("state" in topic for topic in heard))
        reader.disconnect()
        return {topic for topic in heard if "orders" in topic}

    site.wait(lambda: held() == {"sk/1/t1/box-2/orders"})
    assert way.word() == "first", "what is in force on the box stays"
