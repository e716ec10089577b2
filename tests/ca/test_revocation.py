"""A revoked box is off the broker within seconds and stays off; nobody else notices."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import pki
from sekisho.center.ca import registry, revoking, times
from sekisho.center.database import Database

if TYPE_CHECKING:
    from tests.ca.conftest import Box, Centre

pytestmark = pytest.mark.timeout(120)  # more than `Centre.wait`, which says what it waited for

MakeBox = Callable[[str], "Box"]
CUT_S = 5.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, make_centre: Callable[[Path], Centre]) -> Iterator[Centre]:
    """A centre with its broker and ingest."""
    made = make_centre(tmp_path_factory.mktemp("revocation"))
    made.start("ca", "web", "broker", "daemon")
    made.wait(lambda: "connected to the broker" in (made.root / "daemon.log").read_text())
    yield made
    made.stop()


def _context(site: Centre, box: Box) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=site.ca)
    made.maximum_version = ssl.TLSVersion.TLSv1_2  # a refusal is part of the handshake there
    made.load_cert_chain(box.identity / "identity.pem")
    return made


class Session:
    """A box's MQTT connection, by hand: what it is told, and when the broker ends it."""

    def __init__(self, site: Centre, box: Box, former: Session | None = None) -> None:
        name = box.root.name.encode()
        self.context: ssl.SSLContext = former.context if former else _context(site, box)
        raw = socket.create_connection(("127.0.0.1", site.broker_port), timeout=10)
        ticket = former.tls.session if former else None
        self.tls: ssl.SSLSocket = self.context.wrap_socket(raw, server_hostname="127.0.0.1", session=ticket)
        head = b"\x00\x04MQTT\x04\x02\x00\x3c" + len(name).to_bytes(2, "big") + name
        self.tls.sendall(bytes([0x10, len(head)]) + head)
        self.answer = self.tls.recv(4)

    def say(self, topic: bytes, payload: bytes) -> bool:
        """Publish, at most once; whether there was still a connection."""
        body = len(topic).to_bytes(2, "big") + topic + payload
        try:
            self.tls.sendall(bytes([0x30, len(body)]) + body)
        except OSError:
            return False
        return True

    def alive(self) -> bool:
        """Whether the broker still answers a ping."""
        try:
            self.tls.sendall(b"\xc0\x00")
            return self.tls.recv(2) == b"\xd0\x00"
        except OSError:
            return False


def _enrolled(site: Centre, make_box: MakeBox, name: str) -> Box:
    box = make_box(name)
    assert box.enrol(site.url, site.code(name)).returncode == 0
    return box


def _cut(site: Centre, name: str) -> float:
    began = time.monotonic()
    site.say("revoke", "--box", name, "--why", "stolen")
    site.wait(lambda: all(one["cut_at"] for one in site.say("certificates", "--box", name, "--revoked")), CUT_S)
    return time.monotonic() - began


@pytest.mark.protocol("P4")
def test_a_live_box_is_cut_off_in_seconds_and_the_others_stay(site: Centre, make_box: MakeBox) -> None:
    thief, honest = (_enrolled(site, make_box, name) for name in ("thief", "honest"))
    for box in (thief, honest):
        site.run(box.root.name, box.daemon())
        box.alert(1)
    watcher = Session(site, _enrolled(site, make_box, "watcher"))
    site.wait(lambda: site.sids("thief") == [1] and site.sids("honest") == [1])
    log, broker = site.root / "thief.log", site.root / "broker.log"
    connections = broker.read_text().count("as honest")
    began = time.monotonic()
    site.say("revoke", "--box", "thief", "--why", "stolen")
    site.wait(lambda: "not connected" in log.read_text(), CUT_S)
    assert time.monotonic() - began < CUT_S
    site.wait(lambda: broker.read_text().count("certificate verify failed") >= 2)  # it tries, and does not come back
    assert log.read_text().count("connected to the monitoring centre's broker") == 1
    thief.alert(2)
    honest.alert(2)
    site.wait(lambda: site.sids("honest") == [1, 2])
    assert site.sids("thief") == [1]
    assert watcher.alive()
    assert broker.read_text().count("as honest") == connections
    (shown,) = site.say("certificates", "--box", "thief", "--revoked")
    assert (shown["state"], shown["reason"], bool(shown["revoked_by"])) == ("revoked", "stolen", True)
    with Database(str(site.store), read_only=True).reading() as db:
        assert not registry.identities(db, ["thief"])["thief"].may_speak_for("t1")
    for name in ("thief", "honest"):
        site.kill(name)


def test_the_web_service_refuses_the_revoked_too_until_there_is_a_new_code(site: Centre, make_box: MakeBox) -> None:
    box, code = _enrolled(site, make_box, "lost"), site.code("lost")
    _cut(site, "lost")
    done = box.renew()
    assert (done.returncode, "revoked" in done.stderr) == (2, True)
    assert "has expired" in box.enrol(site.url, code).stderr  # a code that was still open is void with it
    assert box.enrol(site.url, site.code("lost")).returncode == 0
    assert Session(site, box).answer == b"\x20\x02\x00\x00"
    assert site.outcomes()[-3:] == ["revoked", "expired code", "granted"]


@pytest.mark.protocol("P4")
def test_who_resumes_a_session_from_before_is_not_believed_and_cut_off_again(site: Centre, make_box: MakeBox) -> None:
    box = _enrolled(site, make_box, "back")
    first = Session(site, box)
    _cut(site, "back")
    again = Session(site, box, first)  # Mosquitto's TLS does not verify a resumed session anew
    assert again.tls.session_reused and again.alive()
    row = b'[1,1,{"type":"alert","at":"2026-01-02T03:04:05Z","sid":666}]'
    batch = b'{"v":1,"e":"00000000000000aa","n":1}\n' + row + b"\n"
    site.wait(lambda: not (again.say(b"sk/1/t1/back/ev/1", batch) and again.alive()), 2 * CUT_S + 5)
    assert site.sids("back") == []


def test_websocket_is_no_way_back_either_and_a_reload_harms_nobody(site: Centre, make_box: MakeBox) -> None:
    box = _enrolled(site, make_box, "web")
    _cut(site, "web")
    shown = ssl.get_server_certificate(("127.0.0.1", site.broker_port))
    pki.issue(site.ca_dir, "broker", "server", ("127.0.0.1",))
    site.processes["broker"].send_signal(signal.SIGHUP)
    site.wait(lambda: ssl.get_server_certificate(("127.0.0.1", site.broker_port)) != shown)
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "web", transport="websockets", protocol=mqtt.MQTTv311)
    client.tls_set_context(_context(site, box))
    client.ws_set_options(path="/mqtt")
    connected, ended = threading.Event(), threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.on_disconnect = lambda *_: ended.set()
    client.connect("127.0.0.1", site.websocket_port)
    client.loop_start()
    assert connected.wait(10)  # Mosquitto does not ask the list there
    client.publish("sk/1/t1/web/state", b'{"st":"on","bd":9,"epoch":"00000000000000aa"}', qos=1)
    assert ended.wait(2 * CUT_S + 5)
    client.loop_stop()
    assert site.processes["broker"].poll() is None


def test_one_after_the_other_all_stay_out_also_after_the_brokers_restart(site: Centre, make_box: MakeBox) -> None:
    boxes = [_enrolled(site, make_box, f"gone-{number}") for number in range(3)]
    for box in boxes:
        _cut(site, box.root.name)
    site.kill("broker")
    site.start("broker")
    kept = _enrolled(site, make_box, "kept")
    for box in boxes:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            Session(site, box)
    assert Session(site, kept).answer == b"\x20\x02\x00\x00"


def test_a_revocation_while_the_ca_or_the_broker_is_down_is_carried_out_later(site: Centre, make_box: MakeBox) -> None:
    box = _enrolled(site, make_box, "later")
    live = Session(site, box)
    site.kill("ca")
    site.say("revoke", "--box", "later", "--why", "contract ended")
    assert live.alive()
    site.start("ca")
    site.wait(lambda: not live.alive(), 10)
    site.wait(lambda: site.say("certificates", "--box", "later", "--revoked")[0]["cut_at"])


def test_what_was_revoked_after_the_backup_stays_revoked_when_it_is_restored(
    tmp_path: Path, make_centre: Callable[..., Centre], make_box: MakeBox
) -> None:
    site = make_centre(tmp_path)
    site.start("ca", "web", "broker")
    try:
        boxes = [_enrolled(site, make_box, name) for name in ("old", "kept")]
        saved = site.say("backup", str(tmp_path / "backups"))[0]["path"]
        boxes.append(_enrolled(site, make_box, "new"))
        for name in ("old", "new"):
            _cut(site, name)
        before = x509.load_pem_x509_crl((site.revoked / "crl.pem").read_bytes())
        site.kill("web")
        site.kill("ca")
        for path in tmp_path.glob("center.db*"):
            path.unlink()
        site.say("restore", saved)
        (site.root / "sign.sock").unlink()
        site.start("ca")
        with Database(str(site.store), read_only=True).reading() as db:
            states = {name: one.state for name, one in registry.identities(db, ["old", "kept", "new"]).items()}
        assert states == {"old": "revoked", "kept": "active"}
        site.wait(lambda: all(one["cut_at"] for one in site.say("certificates", "--box", "old", "--revoked")))
        after = x509.load_pem_x509_crl((site.revoked / "crl.pem").read_bytes())
        assert {entry.serial_number for entry in before} <= {entry.serial_number for entry in after}
        for box in (boxes[0], boxes[2]):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                Session(site, box)
        assert Session(site, boxes[1]).answer == b"\x20\x02\x00\x00"
    finally:
        site.stop()


def test_what_was_overtaken_is_small_and_nothing_is_written_twice(tmp_path: Path) -> None:
    pki.create_ca(tmp_path / "ca")
    ca, now, lists = pki.load_ca(tmp_path / "ca"), times.now(), tmp_path / "revoked"
    entries: list[tuple[int, object]] = []
    for number in range(6):
        revoking.publish(lists, ca, entries, now)  # type: ignore[arg-type]  # serials and times
        revoking.publish(lists, ca, entries, now)  # type: ignore[arg-type]  # the same again
        entries.append((number + 1, now))
    numbered = sorted(lists.glob("*.r*"), key=lambda path: int(path.suffix[2:]))
    assert [path.suffix for path in numbered] == [f".r{number}" for number in range(6)]
    read = [x509.load_pem_x509_crl(path.read_bytes()) for path in numbered]
    assert [len(list(crl)) for crl in read] == [0] * 5 + [5]
    assert read[-1].last_update_utc > read[0].last_update_utc
    assert all(crl.last_update_utc < now < crl.next_update_utc for crl in read if crl.next_update_utc)
    assert (lists / "crl.pem").read_bytes() == numbered[-1].read_bytes()


def test_only_a_known_box_can_be_revoked(tmp_path: Path) -> None:
    with (
        Database(str(tmp_path / "center.db")).transaction() as db,
        pytest.raises(RejectedInput, match="No box is called"),
    ):
        revoking.revoke(db, "nobody", "me", "why", times.now())
