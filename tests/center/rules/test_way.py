"""From a person's word at the centre over a real broker to what a box leaves out: in seconds, and by nobody else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import msgspec
import pytest

from sekisho.appliance.core import fsio, muting, settings, switched, utc
from sekisho.appliance.core.muting import Muting
from sekisho.appliance.core.sealed import load_key
from sekisho.appliance.core.switched import Switched
from sekisho.center import pki, tenants
from sekisho.center.brokers.model import IMMUNITY_WRITES, Member
from sekisho.center.database import Database
from sekisho.center.rules import switching
from sekisho.center.tenants import Tenant
from sekisho.signatures.depot.tree import Published

WITHIN_S = 5.0


class Way:
    """The test site with the daemon that speaks to all boxes."""

    def __init__(self, site) -> None:  # type: ignore[no-untyped-def]  # the fixture's class lives in a conftest
        self.site = site
        self.published = site.root / "published.json"
        own = pki.issue(site.pki, "immunity")
        key = pki.issue(site.pki, "immunity-lists", "lists")
        self.key = load_key(key.cert, key.key)
        with site.center_toml.open("a") as config:
            config.write(
                f'[immunity]\ncert = "{own.cert}"\nkey = "{own.key}"\n'
                f'lists_cert = "{key.cert}"\nlists_key = "{key.key}"\npublished = "{self.published}"\n'
            )
        self.database = Database(site.store_url)
        self.config = settings.load(site.box_toml)

    def speak(self) -> None:
        argv = [sys.executable, "-I", "-m", "sekisho.center.immunity", "--settings", str(self.site.center_toml)]
        with (self.site.root / "immunity.log").open("ab") as log:
            self.site.processes["immunity"] = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def off(self, *rules: str) -> None:
        with self.database.transaction() as db:
            for rule in rules:
                assert switching.off(db, rule, "op@example.com", "false alarms")

    def on(self, rule: str) -> None:
        with self.database.transaction() as db:
            assert switching.on(db, rule)

    def sent(self) -> list[bool]:
        with self.database.reading() as db:
            return [one.sent for one in switching.listed(db)]

    def until_muted(self, *sids: int, yara: tuple[str, ...] = ()) -> float:
        """Seconds until the box leaves out these and nothing else."""
        began = time.monotonic()
        self.site.wait(lambda: muting.both(self.config) == Muting(sids=sids, yara=yara))
        return time.monotonic() - began


@pytest.fixture
def way(site) -> Iterator[Way]:  # type: ignore[no-untyped-def]
    made = Way(site)
    with closing(made.database):
        yield made


def test_a_switched_off_rule_is_off_on_the_box_within_seconds_and_on_again(
    way: Way, record_property: Callable[[str, object], None]
) -> None:
    way.site.start("broker", "box")
    way.speak()
    way.site.wait(lambda: (way.config.fleet / "switched.json").exists())
    took = []
    way.off("2000001", "Too_Wide")
    took.append(way.until_muted(2000001, yara=("Too_Wide",)))
    way.on("Too_Wide")
    took.append(way.until_muted(2000001))
    fsio.write_atomic(way.published, msgspec.json.encode(Published(31, utc.now())))
    way.site.wait(lambda: switched.newest(way.config) == 31)
    way.published.write_bytes(b"{")
    way.site.wait(lambda: way.sent() == [True])
    record_property("seconds", took)
    assert max(took) < WITHIN_S, took


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.protocol("P43")
@pytest.mark.parametrize("site", ["nats", "rabbitmq"], indirect=True)
def test_it_reaches_boxes_by_way_of_the_other_brokers(way: Way) -> None:
    way.site.start("broker")
    way.speak()
    way.off("7")
    way.site.start("box")
    way.site.wait(lambda: muting.both(way.config) == Muting(sids=(7,)), 90)
    way.off("8")
    assert way.until_muted(7, 8) < WITHIN_S


@pytest.mark.protocol("P44")
def test_a_box_that_was_away_hears_it_at_once_also_from_a_broker_that_forgot(way: Way) -> None:
    way.site.start("broker")
    way.speak()
    way.off("7")
    way.site.wait(lambda: way.sent() == [True])
    way.site.start("box")
    way.until_muted(7)
    way.site.kill("box")
    way.on("7")
    way.off("8")
    way.site.kill("broker")
    way.site.forget()
    way.site.start("broker", "box")
    way.until_muted(8)


def test_who_takes_no_part_is_told_so_again_by_a_broker_that_forgot(way: Way) -> None:
    """A box on a new disk would take the fleet's list for its own otherwise."""
    way.site.start("broker", "center", "box")
    way.speak()
    with way.database.transaction() as db:
        tenants.save(db, Tenant("t1", immunity=False))
    told = way.config.fleet / "away.json"
    way.site.wait(told.exists)
    way.site.kill("box")
    told.unlink()
    way.site.kill("broker")
    way.site.forget()
    way.site.start("broker", "box")
    way.site.wait(told.exists)


@pytest.mark.protocol("P43")
def test_no_box_can_write_it_and_a_broker_that_lies_is_not_believed(way: Way) -> None:
    way.site.start("broker", "box")
    way.speak()
    way.off("7")
    way.until_muted(7)
    old = switched.seal(Switched(n=1), way.key)
    box = way.site.client(pki.issue(way.site.pki, "box-2"), "box-2")
    box.publish(switched.TOPIC, switched.seal(Switched(n=1 << 40, sids=(9,)), way.key), qos=1, retain=True)
    box.publish(f"{Member('box-2', 't1').topic('state')}", b"{}", qos=1).wait_for_publish(10)
    box.disconnect()
    own = pki.issue(way.site.pki, "immunity")
    way.site.kill("immunity")
    liar = way.site.client(own, "immunity")  # as who has the broker: it may write, and cannot sign
    forged = switched.seal(Switched(n=1 << 40, sids=(9,)), load_key(own.cert, own.key))
    for message in (old, forged, b"", b"{}"):
        liar.publish(switched.TOPIC, message, qos=1, retain=True).wait_for_publish(10)
    liar.disconnect()
    way.site.wait(lambda: (way.site.root / "box.log").read_text().count("refused") >= 2)
    assert muting.both(way.config).sids == (7,)
    way.speak()
    way.off("8")
    way.until_muted(7, 8)


@pytest.mark.protocol("P43")
def test_every_box_may_read_it_and_the_one_daemon_may_write_it() -> None:
    member = Member("box-1", "t1")
    assert switched.TOPIC in member.reads and switched.TOPIC not in member.writes
    assert switched.TOPIC in IMMUNITY_WRITES
