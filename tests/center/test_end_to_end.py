"""From a line in EVE to a row at the centre: exactly once, whatever dies on the way."""

from __future__ import annotations

import datetime as dt
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sekisho.center import pki, refused
from sekisho.center.database import Database
from sekisho.center.store import Store
from sekisho.telemetry import batches
from sekisho.telemetry.delivery import ASK_S
from sekisho.telemetry.identity import client_id

if TYPE_CHECKING:
    from tests.center.conftest import Site

KINDS = ("rows", "batch")
"""What a box's junk is counted as."""

pytestmark = pytest.mark.timeout(120)
on_every_broker = pytest.mark.parametrize(
    "site",
    ["mosquitto", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("nats", "rabbitmq"))],
    indirect=True,
)
"""What test_brokers.py tries of NATS and RabbitMQ in short, here whole."""


def _plain(payload: bytes | bytearray) -> bytes:
    """A message as it can be read."""
    head, _, lines = bytes(payload).partition(b"\n")
    return head + b"\n" + (batches.expand(lines) if b'"zstd"' in head else lines)


def _batch(*rows: bytes, epoch: str = "00000000000000aa") -> bytes:
    return b"\n".join([json.dumps({"v": 1, "e": epoch, "n": len(rows)}).encode(), *rows]) + b"\n"


@on_every_broker
def test_an_alert_arrives_once_within_half_a_second_and_leaves_the_spool(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait(lambda: site.sids() == [1])
    written: dict[int, dt.datetime] = {}
    for number in range(2, 102):
        written[number] = dt.datetime.now(dt.UTC)
        site.write(site.alert(number))
        site.wait_alerts(number)
    late = []
    for stored in site.events():
        sid = json.loads(bytes(stored.event))["sid"]
        if sid in written:
            late.append((dt.datetime.fromisoformat(stored.received_at) - written[sid]).total_seconds())
    assert sorted(late)[98] < 0.5, f"p99 {sorted(late)[98]:.3f} s"
    site.wait(lambda: site.waiting() == 0)
    rss_kb = int(Path(f"/proc/{site.pid('box')}/status").read_text().split("VmRSS:")[1].split()[0])
    assert rss_kb < 45 * 1024


@on_every_broker
def test_after_an_outage_alerts_come_before_metadata(site: Site) -> None:
    site.start("box")
    for number in range(1, 301):
        site.write(site.dns(number) + site.alert(number))
    site.wait(lambda: site.waiting() == 600)
    site.start("broker", "center")
    site.wait(lambda: len(site.events()) >= 600)
    lanes = [stored.lane for stored in site.events()]
    assert lanes == sorted(lanes)
    assert sorted(site.sids()) == list(range(1, 301))
    assert site.missing() == []


@on_every_broker
@pytest.mark.protocol("P1")
def test_a_client_without_certificate_is_refused(site: Site) -> None:
    site.start("broker")
    context = ssl.create_default_context(cafile=str(site.pki / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", site.port)) as raw,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.recv(1)


@on_every_broker
def test_a_row_that_is_no_event_is_accounted_for_and_acknowledged(site: Site) -> None:
    site.start("broker", "center")
    client = site.client(site.box, client_id("box-1", site.box.key))
    acks: list[dict[str, object]] = []
    client.on_message = lambda _c, _u, message: acks.append(json.loads(message.payload))
    client.subscribe("sk/1/t1/box-1/ack", qos=1)
    good = b'[1,1,{"type":"alert","at":"2026-01-02T03:04:05Z","sid":1}]'
    bad = b'[2,1,{"type":"alert","at":5,"password":"x"}]'
    payload = _batch(good, bad)

    def acknowledged() -> bool:
        client.publish("sk/1/t1/box-1/ev/1", payload, qos=1)
        client.publish("sk/1/t1/box-1/ev/1", b"not a batch", qos=1)
        time.sleep(0.05)
        return any(ack["upto"] == 2 for ack in acks)

    site.wait(acknowledged)
    client.disconnect()
    client.loop_stop()
    assert site.sids() == [1]
    assert b"password" not in site.store_path.read_bytes()
    database = Database(site.store_url, read_only=True)
    site.wait(lambda: {(row.box, row.kind) for row in refused.shown(database)[0]} == {("box-1", k) for k in KINDS})


@on_every_broker
def test_a_broken_certificate_keeps_the_events_on_the_box(site: Site) -> None:
    site.box.cert.write_text("no certificate")
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait(lambda: site.waiting() == 2)
    assert "cannot be used" in (site.root / "box.log").read_text()
    site.kill("box")
    pki.issue(site.pki, "box-1")
    site.start("box")
    site.wait(lambda: site.sids() == [1])


def test_a_certificate_of_another_authority_is_named_in_the_log(site: Site) -> None:
    other = site.root / "other"
    pki.create_ca(other)
    (site.pki / "ca.crt").write_bytes((other / "ca.crt").read_bytes())
    site.start("broker", "box")
    site.wait(lambda: "certificate verify failed" in (site.root / "box.log").read_text())


@on_every_broker
def test_no_canary_is_in_the_spool_at_the_broker_or_at_the_centre(site: Site) -> None:
    canary = "KANARIENVOGEL"
    published: list[bytes] = []
    site.start("broker", "center", "box")
    listener = site.client(site.listener, "listener")
    listener.on_message = lambda _c, _u, message: published.append(_plain(bytes(message.payload)))
    listener.subscribe("#", qos=1)
    http = {
        "url": f"http://u:{canary}@h/a?k={canary}#{canary}",
        "hostname": "h",
        "cookie": canary,
        "authorization": canary,
        "http_request_body_printable": canary,
    }
    private = {"http": http, "payload_printable": canary, "email": {"body": canary}, "smtp": {"mail_from": "a@b"}}
    site.write(site.line("http", **private) + site.line("smtp", **private) + site.alert(1, **private))
    site.write(canary.encode() + b" is no event\n")
    site.wait(lambda: len(site.events()) == 3)
    site.wait(lambda: b"".join(published).count(b'"type"') >= 3)
    listener.disconnect()
    listener.loop_stop()
    kept = site.contents("state/**/*", "events.db*", "broker/**/*", "*.log")
    assert [path.name for path, content in kept.items() if canary.encode() in content] == []
    assert canary.encode() not in b"".join(published)


@on_every_broker
def test_a_full_disk_on_the_box_delays_and_loses_nothing(site: Site) -> None:
    with site.small_disk("state", "8m") as fill:
        site.start("broker", "center", "box")
        site.write(site.alert(1))
        site.wait_alerts(1)
        filler = fill()
        for number in range(2, 4002):
            site.write(site.alert(number))
        site.wait(lambda: "Nothing is lost" in (site.root / "box.log").read_text())
        filler.unlink()
        site.wait_alerts(4001)
        assert sorted(site.sids()) == list(range(1, 4002))
        assert site.missing() == []


@pytest.mark.parametrize("module", ["telemetry", "center"])
def test_a_daemon_names_what_is_wrong_with_its_settings_and_exits(tmp_path: Path, module: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("box = ")
    argv = [sys.executable, "-I", "-m", f"sekisho.{module}.daemon", "--settings", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    assert "broken.toml" in done.stderr and "Traceback" not in done.stderr


@on_every_broker
def test_sigterm_ends_both_daemons_cleanly(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    box, center = site.processes["box"], site.processes["center"]
    site.kill("box", signal.SIGTERM)
    site.kill("center", signal.SIGTERM)
    assert (box.returncode, center.returncode) == (0, 0)
    store = Store(site.store_path, read_only=True)
    assert [state.state for state in store.boxes()] == ["on"]
    store.close()


@on_every_broker
def test_what_a_forgetful_broker_confirmed_goes_again_as_soon_as_the_centre_is_back(site: Site) -> None:
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    site.wait(lambda: site.waiting() == 0)
    site.kill("center")
    site.kill("broker")
    site.forget()
    site.start("broker")
    published: list[bytes] = []
    listener = site.client(site.listener, "listener")
    listener.on_message = lambda _c, _u, message: published.append(_plain(bytes(message.payload)))
    listener.subscribe("#", qos=1)
    for number in range(2, 12):
        site.write(site.alert(number))
    site.wait(lambda: b"".join(published).count(b'"sid"') >= 10)
    listener.disconnect()
    listener.loop_stop()
    assert site.waiting() == 10
    site.start("center")
    site.wait(lambda: len(site.sids()) == 11, ASK_S - 3)
    assert sorted(site.sids()) == list(range(1, 12))
