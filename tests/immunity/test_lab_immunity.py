"""A file that another box found malicious is refused here within seconds, though no rule of ours knows it."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sekisho.appliance.core.known import BY_FLEET
from sekisho.center import pki, tenants
from sekisho.center.database import Database
from sekisho.center.immunity.commands import withdraw
from sekisho.center.tenants import Tenant
from sekisho.lab import layout
from sekisho.lab.client import Got, Web
from sekisho.lab.lab import Lab
from sekisho.lab.office import perform
from sekisho.telemetry.events import FileVerdict, Retro, encode

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

WITHIN_S = 5.0
OTHER = "box-elsewhere"
WORM = b"MZ" + os.urandom(60_000)
TWIN = WORM[:-1] + bytes([WORM[-1] ^ 1])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(f"fleet{os.getpid()}") as lab:
        lab.up()
        for name, content in (("worm.exe", WORM), ("twin.exe", TWIN)):
            (lab.lay.wan / "www" / name).write_bytes(content)
        yield lab


def fetch(lab: Lab, name: str) -> Got:
    return perform(lab, [Web(layout.SERVER4, layout.HTTP, [f"/{name}"])])[0].got[0]


def until(lab: Lab, end: str) -> float:
    """Seconds until the file ends so."""
    began = time.monotonic()
    lab.wait(lambda: (fetch(lab, "worm.exe").end == "whole") == (end == "whole"), f"it never was {end}", 30)
    return time.monotonic() - began


def found_elsewhere(lab: Lab, content: bytes, number: int) -> None:
    """Another box of the service reports what it stopped."""
    authority = lab.lay.center / "pki"
    made = pki.issue(authority, OTHER)
    with (lab.lay.center / "broker" / "acl").open("a") as acl:
        acl.write(f"\nuser {OTHER}\ntopic write sk/1/default/{OTHER}/ev/0\n")
    lab.kill("mosquitto", signal.SIGHUP)
    verdict = FileVerdict(
        at="2026-11-21T10:00:00.000000Z", outcome="blocked", rules=["ANOTHER_RULE"], size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )  # fmt: skip
    batch = b'{"v":1,"e":"%s","n":1}\n[%d,0,%s]\n' % (b"a" * 16, number, encode(verdict))
    program = (
        "import ssl,sys,paho.mqtt.client as m\n"
        "from paho.mqtt.enums import CallbackAPIVersion as V\n"
        "host,port,ca,cert,key,topic,name=sys.argv[1:]\n"
        "c=m.Client(V.VERSION2,client_id=name)\n"
        "c.tls_set(ca,cert,key)\n"
        "c.connect(host,int(port));c.loop_start()\n"
        "c.publish(topic,sys.stdin.buffer.read(),qos=1).wait_for_publish(10);c.disconnect()\n"
    )
    argv = [layout.CENTER4, str(layout.MQTT), *map(str, (made.ca, made.cert, made.key))]
    lab.run(
        "center", [sys.executable, "-c", program, *argv, f"sk/1/default/{OTHER}/ev/0", OTHER], stdin=batch, check=True
    )


@pytest.mark.protocol("P29")
def test_the_fleet_stops_it_and_lets_it_pass_when_it_is_withdrawn(lab: Lab) -> None:
    assert fetch(lab, "worm.exe").end == "whole", "no rule of ours knows it"
    found_elsewhere(lab, WORM, 1)
    assert until(lab, "refused") < WITHIN_S
    assert fetch(lab, "twin.exe").end == "whole"
    lab.wait(lambda: bool(verdicts(lab) and retros(lab)), "the centre has not heard of it")
    verdict, retro = verdicts(lab)[0], retros(lab)[0]
    assert (verdict.outcome, verdict.rules, verdict.stars) == ("blocked", [BY_FLEET], 2)
    assert verdict.quarantine
    assert (retro.why, {d.ip for d in retro.deliveries}) == ("seen_bad", {layout.CLIENT4})
    with closing(Database(str(lab.lay.center_store))) as database:
        withdraw(database, hashlib.sha256(WORM).hexdigest(), "a customer's own program")
    assert until(lab, "whole") < WITHIN_S


def test_a_tenant_that_takes_no_part_is_left_alone(lab: Lab) -> None:
    found_elsewhere(lab, TWIN + b"another", 2)
    (lab.lay.wan / "www" / "worm.exe").write_bytes(TWIN + b"another")
    with closing(Database(str(lab.lay.center_store))) as database:
        lab.wait(lambda: fetch(lab, "worm.exe").end != "whole", "the list has not arrived")
        for immunity, end in ((False, "whole"), (True, "refused")):
            with database.transaction() as db:
                tenants.save(db, Tenant("default", immunity=immunity))
            assert until(lab, end) < WITHIN_S


def verdicts(lab: Lab) -> list[FileVerdict]:
    events = [row.event for row in lab.events() if row.box == layout.BOX_NAME]
    return [event for event in events if isinstance(event, FileVerdict) and event.outcome == "blocked"]


def retros(lab: Lab) -> list[Retro]:
    return [row.event for row in lab.events() if isinstance(row.event, Retro)]
