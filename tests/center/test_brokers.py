"""What every broker of ours must refuse, and what it must carry: the same on Mosquitto, NATS and RabbitMQ."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import nats as nats_client
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki, settings
from sekisho.center.brokers import mosquitto, nats, rabbitmq
from sekisho.center.brokers.keeper import Keeper
from sekisho.center.brokers.model import ALL_READ, Broker, Member
from sekisho.center.ca import registry, times
from sekisho.center.ca.tables import CERTIFICATE
from sekisho.center.database import Database
from sekisho.lab.ports import free_port
from sekisho.telemetry.identity import client_id

if TYPE_CHECKING:
    from tests.center.conftest import Site

pytestmark = pytest.mark.timeout(180)
everywhere = pytest.mark.parametrize("site", ["mosquitto", "nats", "rabbitmq"], indirect=True)
slowest_apart = pytest.mark.parametrize(
    "site", ["mosquitto", "nats", pytest.param("rabbitmq", marks=pytest.mark.full)], indirect=True
)
"""RabbitMQ takes ten seconds to start."""
ROW = b'[1,1,{"type":"alert","at":"2026-01-02T03:04:05Z","sid":666}]'
BATCH = b'{"v":1,"e":"00000000000000aa","n":1}\n' + ROW + b"\n"


class Guest:
    """A client with a certificate of ours that does what it likes."""

    def __init__(self, site: Site, who: pki.Credentials, name: str) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.granted: list[bool] = []
        self.refused = False
        self.connected = False
        self.gone = False
        self.puback = 0
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311, reconnect_on_failure=False
        )
        context = ssl.create_default_context(cafile=str(who.ca))
        context.load_cert_chain(who.cert, who.key)
        self.client.tls_set_context(context)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda *_: setattr(self, "gone", True)
        self.client.on_message = lambda _c, _u, message: self.heard.append((message.topic, bytes(message.payload)))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.granted.extend(not c.is_failure for c in codes)
        self.client.on_publish = lambda *_: setattr(self, "puback", self.puback + 1)
        try:
            self.client.connect("127.0.0.1", site.port)
        except OSError:
            self.refused = True
            return
        self.client.loop_start()
        site.wait(lambda: self.connected or self.refused or self.gone)

    def _on_connect(self, _c: mqtt.Client, _u: object, _f: object, reason: ReasonCode, _p: object) -> None:
        self.connected, self.refused = not reason.is_failure, reason.is_failure


@contextmanager
def guest(site: Site, cn: str, name: str = "") -> Iterator[Guest]:
    who = pki.issue(site.pki, cn) if not (site.pki / f"{cn}.crt").exists() else _credentials(site, cn)
    made = Guest(site, who, name or client_id(cn, who.key))
    try:
        yield made
    finally:
        made.client.disconnect()
        made.client.loop_stop()


def _credentials(site: Site, cn: str) -> pki.Credentials:
    return pki.Credentials(site.pki / "ca.crt", site.pki / f"{cn}.crt", site.pki / f"{cn}.key")


@everywhere
@pytest.mark.protocol("P2")
def test_a_box_can_neither_write_nor_hear_nor_replace_another(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    listening: list[Guest] = []
    for topic in (
        "sk/1/t1/box-1/ev/1",
        "sk/1/t2/box-2/ev/1",
        "sk/1/t1/box-2/cmd",
        "sk/1/t1/box-1/ack",
        "sk/1/t1/box-1/known",
        "sk/1/t1/box-1/orders",
        "sk/1/t1/box-1/jobs/01JD3Z9V7M2Q4W8X6Y5T3R1P0N",
    ):
        with guest(site, "box-2") as intruder:
            intruder.client.publish(topic, BATCH, qos=1, retain=topic.endswith(("ack", "known", "orders")))
            site.wait(lambda i=intruder: i.puback or i.gone)  # type: ignore[misc]  # some confirm and drop, some close
    for topic in (
        "sk/1/t1/box-1/ack",
        "sk/1/t1/box-1/orders",
        "sk/1/+/+/ack",
        "sk/1/+/+/ev/+",
        "#",
        "$MQTT/sub/#",
        "$SYS/#",
    ):
        with guest(site, "box-2") as intruder:
            intruder.client.subscribe(topic, qos=1)
            site.wait(lambda i=intruder: i.granted or i.gone)  # type: ignore[misc]
            listening.append(intruder)
            site.write(site.alert(2 + len(listening)))
            site.wait_alerts(1 + len(listening))
    stolen = ["box-1", client_id("box-2", site.pki / "box-2.key")]
    for name in stolen:
        with guest(site, "box-2", name) as thief:
            site.write(site.alert(100 + len(name)))
            site.wait(lambda n=name: 100 + len(n) in site.sids())  # type: ignore[misc]
            assert thief.connected
    assert [heard for intruder in listening for heard in intruder.heard] == []
    assert [stored.box for stored in site.events() if b"666" in bytes(stored.event)] == []
    assert "not connected to the monitoring centre" not in (site.root / "box.log").read_text()
    with guest(site, "box-2") as honest:
        honest.client.publish("sk/1/t1/box-2/ev/1", BATCH, qos=1)
        site.wait(lambda: any(stored.box == "box-2" for stored in site.events()))


@slowest_apart
def test_nothing_is_lost_or_doubled_when_broker_centre_and_box_are_killed(site: Site) -> None:
    site.start("broker", "center", "box")
    dice = random.Random(7)
    number = 0
    again = () if site.kind == "rabbitmq" else ("broker", "box", "center")
    for victim in ("broker", "center", "box", *again):
        for _ in range(dice.randrange(5, 60)):
            number += 1
            site.write(site.dns(number) + site.alert(number))
        site.wait_more(len(site.events()))
        site.kill(victim)
        number += 1
        site.write(site.alert(number))
        site.start(victim)
    site.wait(lambda: len(site.sids()) >= number, 60)
    site.wait(lambda: not site.waiting(), 60)
    assert sorted(site.sids()) == list(range(1, number + 1))
    assert site.missing() == []
    assert len({stored.epoch for stored in site.events()}) == 1


@slowest_apart
def test_the_centre_hears_of_a_box_that_dies_and_the_retained_word_waits_for_it(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    site.kill("box")
    site.wait(lambda: site.states() == {"box-1": "lost"})
    with guest(site, "box-1") as reader:
        reader.client.subscribe("sk/1/t1/box-1/ack", qos=1)
        site.wait(lambda: reader.heard)
        assert json.loads(reader.heard[0][1])["upto"] >= 1
    site.start("box")
    site.wait(lambda: site.states() == {"box-1": "on"})


@slowest_apart
@pytest.mark.protocol("P1")
def test_a_certificate_of_another_authority_is_refused(site: Site) -> None:
    site.start("broker")
    other = site.root / "other"
    pki.create_ca(other)
    stranger = pki.issue(other, "box-1")
    (other / "ca.crt").write_bytes((site.pki / "ca.crt").read_bytes())
    assert not Guest(site, stranger, "box-1").connected


@pytest.mark.parametrize("site", ["mosquitto", "nats"], indirect=True)
def test_a_member_that_is_removed_writes_no_more_while_the_others_stay(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    numbers = iter(range(2, 1000))
    with guest(site, "box-2") as removed:
        removed.client.publish("sk/1/t1/box-2/ev/1", BATCH, qos=1)
        site.wait(lambda: _stored(site, 1))
        site.broker = replace(site.broker, members=(Member("box-1", "t1"),))
        site.write_broker()
        os.kill(site.pid("broker"), signal.SIGHUP)

        def silent() -> bool:
            number = next(numbers)
            removed.client.publish("sk/1/t1/box-2/ev/1", BATCH.replace(b"[1,1", b"[%d,1" % number), qos=1)
            site.write(site.alert(number))
            site.wait(lambda: number in site.sids())
            return not _stored(site, number)

        site.wait(silent)
    assert "not connected to the monitoring centre" not in (site.root / "box.log").read_text()


@slowest_apart
@pytest.mark.protocol("P6")
def test_what_is_larger_than_any_batch_is_not_stored_and_disturbs_nobody(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    padded = BATCH.replace(b'"sid":666', b'"sid":666,"signature":"' + b"x" * 300_000 + b'"')
    with guest(site, "box-2") as guest_:
        guest_.client.publish("sk/1/t1/box-2/ev/1", padded, qos=1)
        site.wait(lambda: guest_.puback or guest_.gone or site.kind == "rabbitmq")
        guest_.client.publish("sk/1/t1/box-2/ev/1", BATCH, qos=1)
    with guest(site, "box-2") as guest_:
        guest_.client.publish("sk/1/t1/box-2/ev/1", BATCH.replace(b"[1,1", b"[2,1"), qos=1)
        site.wait(lambda: _stored(site, 2))
    site.write(site.alert(2))
    site.wait(lambda: sorted(sid for sid in site.sids() if sid < 666) == [1, 2])
    assert max(len(bytes(stored.event)) for stored in site.events()) < 1000
    assert "not connected to the monitoring centre" not in (site.root / "box.log").read_text()


def _stored(site: Site, number: int) -> bool:
    return any(stored.box == "box-2" and stored.seq == number for stored in site.events())


@slowest_apart
def test_the_registry_says_who_may_connect_from_one_second_to_the_next(site: Site) -> None:
    with closing(Database(str(site.store_path))) as registry_file:

        def register(what: Callable[..., None], *args: str) -> None:
            with registry_file.transaction() as db:
                what(db, *args, "2026-01-02T03:04:05.000000Z")

        register(registry.expect, "box-1", "t1")
        register(registry.activate, "box-1")
        register(registry.expect, "box-2", "t1")
        site.serve()
        site.start("broker", "center", "box")
        site.write(site.alert(1))
        site.wait_alerts(1)
        numbers = iter(range(2, 1000))

        def box_2_is_heard() -> bool:
            number = next(numbers)
            with guest(site, "box-2") as it:
                it.client.publish("sk/1/t1/box-2/ev/1", BATCH.replace(b"[1,1", b"[%d,1" % number), qos=1)
                site.write(site.alert(number))
                site.wait(lambda: number in site.sids())
                return _stored(site, number)

        assert not box_2_is_heard()
        register(registry.activate, "box-2")
        site.wait(box_2_is_heard)
        with guest(site, "box-2") as live:
            register(registry.revoke, "box-2")
            if site.kind != "mosquitto":  # there the CA closes it (tests/ca)
                site.wait(lambda: live.gone)
            site.wait(lambda: not box_2_is_heard())
    assert "not connected to the monitoring centre" not in (site.root / "box.log").read_text()
    keeper = site.processes["broker"]
    site.kill("broker", signal.SIGTERM)
    assert keeper.returncode == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", site.port)) != 0


def test_when_the_broker_ends_its_keeper_does_too_and_a_list_outlives_the_database(site: Site) -> None:
    with closing(Database(str(site.store_path))) as file, file.transaction() as db:
        registry.expect(db, "box-1", "t1", "2026-01-02T03:04:05.000000Z")
        registry.activate(db, "box-1", "2026-01-02T03:04:05.000000Z")
    site.serve()
    site.start("broker")
    keeper = site.processes["broker"]
    child = int(subprocess.run(["pgrep", "-P", str(keeper.pid)], capture_output=True, text=True, check=True).stdout)
    os.kill(child, signal.SIGKILL)
    assert keeper.wait(10) == 3
    site.store_path.unlink()
    site.start("broker")
    assert "user box-1" in (site.root / "broker" / "acl").read_text()


def _register(site: Site, what: Callable[..., None], *args: str) -> None:
    with closing(Database(str(site.store_path))) as file, file.transaction() as db:
        what(db, *args, "2026-01-02T03:04:05.000000Z")


def test_the_last_box_of_all_is_taken_from_the_list_too_and_once(site: Site) -> None:
    acl, log = site.root / "broker" / "acl", site.root / "broker.log"
    for box in ("box-1", "box-2"):
        _register(site, registry.expect, box, "t1")
    _register(site, registry.activate, "box-1")
    site.serve()
    site.start("broker")
    assert "user box-1" in acl.read_text()
    _register(site, registry.revoke, "box-1")
    site.wait(lambda: "user box-1" not in acl.read_text())
    _register(site, registry.activate, "box-2")
    site.wait(lambda: "1 boxes may connect" in log.read_text())
    assert log.read_text().count("boxes may connect") == 2
    site.kill("broker", signal.SIGTERM)
    _register(site, registry.revoke, "box-2")
    site.start("broker")
    assert "user box-" not in acl.read_text()


def test_a_list_that_could_not_be_written_is_written_later(site: Site) -> None:
    acl, log = site.root / "broker" / "acl", site.root / "broker.log"
    _register(site, registry.expect, "box-1", "t1")
    site.serve()
    site.start("broker")
    acl.unlink()
    acl.mkdir()
    _register(site, registry.activate, "box-1")
    site.wait(lambda: "not carried out yet" in log.read_text())
    acl.rmdir()
    site.wait(lambda: acl.exists() and "user box-1" in acl.read_text())


@pytest.mark.full
@pytest.mark.parametrize("site", ["rabbitmq"], indirect=True)
def test_what_was_revoked_while_rabbitmq_was_away_it_forgets_when_it_is_back(site: Site) -> None:
    for box in ("box-1", "box-2"):
        _register(site, registry.expect, box, "t1")
        _register(site, registry.activate, box)

    def users() -> set[str]:
        argv = [str(site.root / "broker" / "ctl"), "list_users", "--silent", "--formatter", "json"]
        return {one["user"] for one in json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)}

    site.serve()
    site.start("broker")
    assert {"box-1", "box-2"} <= users()
    site.kill("broker", signal.SIGTERM)
    _register(site, registry.revoke, "box-2")
    site.start("broker")
    site.wait(lambda: "box-2" not in users())
    assert {"box-1", "center", "immunity"} <= users()


@pytest.mark.parametrize(("kind", "listed"), [("mosquitto", True), ("nats", False), ("rabbitmq", False)])
def test_a_revoked_certificate_keeps_its_box_out_where_brokers_know_no_revocation(
    tmp_path: Path, kind: str, listed: bool
) -> None:
    pki.create_ca(tmp_path)
    files = pki.issue(tmp_path, "broker", "server", ("127.0.0.1",))
    paths = f'ca = "{files.ca}"\ncert = "{files.cert}"\nkey = "{files.key}"\n'
    conf = tmp_path / "center.toml"
    conf.write_text(
        f'store = "{tmp_path}/c.db"\n[broker]\nhost = "h"\n{paths}[serve]\nkind = "{kind}"\n'
        f'directory = "{tmp_path}/broker"\n{paths}'
    )
    now = times.now()
    with closing(Database(f"{tmp_path}/c.db")) as file, file.transaction() as db:
        for box, ends in (("again", now + dt.timedelta(days=9)), ("long-ago", now - dt.timedelta(days=9))):
            registry.expect(db, box, "t1", times.text(now))
            registry.activate(db, box, times.text(now))
            row = {column.name: "" for column in CERTIFICATE.columns}
            told = {"serial": box, "box": box, "not_after": times.text(ends), "revoked_at": times.text(now)}
            db.execute(CERTIFICATE.insert().values(row | told))
    Keeper(settings.load(conf))
    kept = json.loads((tmp_path / "broker" / "members.json").read_bytes())
    assert [member["box"] for member in kept] == ["again"] * listed + ["long-ago"]


@pytest.mark.parametrize("site", ["nats"], indirect=True)
def test_a_box_may_not_speak_the_plain_protocol_of_nats(site: Site) -> None:
    port = free_port()
    site.launch = nats.write_config(site.broker, settings.NatsNode(client_address=f"127.0.0.1:{port}"))
    site.start("broker")

    async def connects(who: pki.Credentials) -> bool:
        context = ssl.create_default_context(cafile=str(who.ca))
        context.load_cert_chain(who.cert, who.key)
        quiet = {"error_cb": _ignore, "allow_reconnect": False, "max_reconnect_attempts": 0, "connect_timeout": 5}
        try:
            link = await nats_client.connect(f"tls://127.0.0.1:{port}", tls=context, **quiet)
        except (nats_client.errors.Error, OSError):
            return False
        await link.close()
        return True

    assert asyncio.run(connects(site.center))
    assert not asyncio.run(connects(site.box))


async def _ignore(_err: Exception) -> None:
    return None


def test_nats_listens_on_an_ipv6_address_or_on_all(tmp_path: Path) -> None:
    pki.create_ca(tmp_path)
    files = pki.issue(tmp_path, "broker", "server", ("::1",))
    for address, expected in (("::1", "[::1]:8883"), ("", "0.0.0.0:8883"), ("192.0.2.1", "192.0.2.1:8883")):
        made = nats.write_config(Broker(tmp_path / "b", files, address, members=()))
        assert json.loads(made.config.read_bytes())["mqtt"]["listen"] == expected


@pytest.mark.parametrize("writer", [nats.write_config, rabbitmq.write_config])
def test_a_broker_without_patterns_wants_its_members_by_name(tmp_path: Path, writer: object) -> None:
    pki.create_ca(tmp_path)
    files = pki.issue(tmp_path, "broker", "server", ("127.0.0.1",))
    assert callable(writer)
    with pytest.raises(RejectedInput, match="which boxes"):
        writer(Broker(tmp_path / "b", files))
    for name in ("a.b", "a/b", "+", "a b", "a\nb", ""):
        with pytest.raises(RejectedInput, match="is not a name"):
            writer(Broker(tmp_path / "b", files, members=(Member("box-1", name),)))


def test_without_a_list_mosquitto_takes_any_box_in_its_own_topics_only(tmp_path: Path) -> None:
    pki.create_ca(tmp_path)
    made = mosquitto.write_config(Broker(tmp_path / "b", pki.issue(tmp_path, "broker", "server", ("127.0.0.1",))))
    patterns = [line for line in (made.config.parent / "acl").read_text().splitlines() if line.startswith("pattern")]
    own = [line for line in patterns if "/%u/" in line]
    assert own and [line for line in patterns if line not in own] == [f"pattern read {topic}" for topic in ALL_READ]
    conf = made.config.read_text()
    assert "require_certificate true" in conf and "allow_anonymous false" in conf
