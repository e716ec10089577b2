"""A box in an office that lets little out still reaches the centre, says how, and takes nobody else for it."""

from __future__ import annotations

import base64
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import pytest

from sekisho.appliance.core import settings, told_time
from sekisho.center import pki
from sekisho.center.brokers import mosquitto
from sekisho.lab.ports import free_port
from sekisho.telemetry import opening, sender, ways
from sekisho.telemetry.connection import Connected, Disconnected, Fact
from sekisho.telemetry.opening import Opening, ProxyRefused, explain
from sekisho.telemetry.sender import Sender
from sekisho.telemetry.ways import BETTER_S, Proxy, Way

if TYPE_CHECKING:
    from tests.center.conftest import Site

pytestmark = pytest.mark.timeout(120)
SECRET = "GEHEIM"
websockets = pytest.mark.parametrize(
    "site",
    ["mosquitto", *(pytest.param(kind, marks=pytest.mark.full) for kind in ("nats", "rabbitmq"))],
    indirect=True,
)


@contextmanager
def answering(how: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server that treats every guest like that; yields its port."""
    guests: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    guest, _ = server.accept()
                except OSError:
                    return
                guests.append(guest)
                threading.Thread(target=attend, args=(guest,), daemon=True).start()

        def attend(guest: socket.socket) -> None:
            with suppress(OSError):
                how(guest)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
    for guest in guests:
        guest.close()


def says_nothing(guest: socket.socket) -> None:
    guest.recv(1)


def drips(guest: socket.socket) -> None:
    """One byte now and then: no single wait is ever long."""
    for letter in b"HTTP/1.1 200 " + b"a" * 1000:
        guest.send(bytes([letter]))
        time.sleep(0.2)


def shows_a_page(guest: socket.socket) -> None:
    """What a hotel's log-in page does to every connection."""
    guest.recv(4096)
    guest.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Please log in</html>")
    guest.close()


@pytest.fixture
def proxy(tmp_path: Path, site: Site) -> Iterator[str]:
    """Tinyproxy that wants a name and a password and lets CONNECT out to the broker's port only; yields host:port."""
    port = free_port()
    conf = tmp_path / "tinyproxy.conf"
    conf.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 60\nLogLevel Connect\nMaxClients 20\nConnectPort {site.port}\n"
        f'BasicAuth taro {SECRET}\nLogFile "{tmp_path}/tinyproxy.log"\n'
    )
    program = shutil.which("tinyproxy")
    if not program:
        pytest.skip("tinyproxy is not installed")
    running = subprocess.Popen([program, "-d", "-c", str(conf)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    site.wait(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
    yield f"127.0.0.1:{port}"
    running.kill()
    running.wait()


def arrives(site: Site) -> str:
    """Wait for an alert to get through; the way it took."""
    site.start("broker", "center", "box")
    site.write(site.alert(1))
    site.wait_alerts(1)
    return site.link().way


def status(site: Site) -> str:
    """What the box's owner is shown."""
    program = str(Path(sys.executable).with_name("sekisho"))
    argv = [program, "telemetry", "status", "--settings", str(site.box_toml)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_when_the_brokers_port_is_closed_the_port_of_https_is_taken_and_remembered(site: Site) -> None:
    closed = free_port()
    site.by(port=closed, fallback_port=site.port)
    assert arrives(site) == f"127.0.0.1:{site.port} (MQTT)"
    assert [(trial.way, "refused" in trial.reason) for trial in site.link().tried] == [
        (f"127.0.0.1:{closed} (MQTT)", True)
    ]
    site.wait(lambda: site.link().answered)
    box = settings.load(site.box_toml)
    site.wait(lambda: told_time.try_read(box))
    assert abs((told_time.try_read(box) or 0) - time.time()) < 5
    shown = status(site)
    assert "NOT ANSWERED" not in shown
    assert f"connected to the centre by 127.0.0.1:{site.port} (MQTT)" in shown and f"tried 127.0.0.1:{closed}" in shown
    site.kill("box")
    worked = site.link().since
    site.start("box")
    site.wait(lambda: site.link().since > worked)
    assert site.link().tried == []


def test_a_broker_without_its_centre_is_not_taken_for_the_centre(site: Site) -> None:
    site.start("broker", "box")
    site.wait(lambda: site.link().way)
    assert site.link().answered == ""
    assert "NOT ANSWERED" in status(site)
    site.start("center")
    site.wait(lambda: site.link().answered)
    assert "NOT ANSWERED" not in status(site)


@websockets
def test_where_only_the_web_passes_websocket_carries_it(site: Site) -> None:
    port = free_port()
    site.broker = replace(site.broker, websocket_port=port)
    site.launch = site.write_broker()
    site.by(port=free_port(), fallback_port=port)
    assert arrives(site) == f"127.0.0.1:{port} (WebSocket)"
    site.kill("broker")
    site.write(site.alert(2))
    site.start("broker")
    site.wait_alerts(2)
    assert sorted(site.sids()) == [1, 2] and site.missing() == []


def test_through_a_proxy_that_wants_a_password(site: Site, proxy: str) -> None:
    site.by(port=free_port(), fallback_port=site.port, proxy=f"http://taro:{SECRET}@{proxy}")
    assert arrives(site) == f"127.0.0.1:{site.port} (MQTT, through the proxy {proxy})"
    assert any("the proxy: 403" in trial.reason for trial in site.link().tried)
    told = [(site.root / "box.log").read_bytes(), *(path.read_bytes() for path in site.root.glob("state/telemetry/*"))]
    encoded = base64.b64encode(f"taro:{SECRET}".encode())
    assert not any(SECRET.encode() in text or encoded in text for text in told)


def test_a_proxy_that_refuses_the_password_is_named_and_passed_by(site: Site, proxy: str) -> None:
    site.by(proxy=f"http://taro:wrong@{proxy}")
    assert arrives(site) == f"127.0.0.1:{site.port} (MQTT)"
    assert [trial.reason for trial in site.link().tried] == ["the proxy wants another name and password (401)"]


def test_a_log_in_page_is_not_the_centre_and_is_said_to_be_one(site: Site) -> None:
    with answering(shows_a_page) as port:
        site.by(port=port, fallback_port=site.port)
        assert arrives(site) == f"127.0.0.1:{site.port} (MQTT)"
        assert "a log-in page of the network?" in site.link().tried[0].reason


def attempt(way: Way) -> str:
    """How an opening ends that must not succeed."""
    with pytest.raises(OSError) as failed:
        Opening(way).open()
    return explain(failed.value)


def through(port: int) -> Way:
    return Way("centre.example", 443, 0, proxy=Proxy("127.0.0.1", port, "u", SECRET))


def test_what_a_proxy_may_do_instead_of_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "STEP_S", 0.3)
    assert "cannot be reached" in attempt(through(free_port()))
    with answering(says_nothing) as port:
        assert "timed out" in attempt(through(port))
    with answering(lambda guest: guest.close()) as port:
        attempt(through(port))
    with answering(lambda guest: guest.sendall(b"x" * 300_000)) as port:
        assert "does not answer as one" in attempt(through(port))
    with answering(lambda guest: guest.sendall(b"HTTP/1.1 403 \x1b[31mForbidden\r\n\r\n")) as port:
        assert attempt(through(port)) == "the proxy: 403  [31mForbidden"
    with answering(shows_a_page) as port:  # "200" without a tunnel: the handshake then finds no TLS
        Opening(through(port)).open().close()


def test_the_proxys_answer_may_come_in_pieces() -> None:
    def connects(guest: socket.socket) -> None:
        asked = guest.recv(4096)
        for piece in (b"HTTP/1.1 200 Connection esta", b"blished\r\nVia: x\r\nX: ", b"y\r\n\r\n"):
            guest.sendall(piece)
            time.sleep(0.1)
        guest.sendall(b"hello " + asked)

    with answering(connects) as port, closing(Opening(through(port)).open()) as made:
        time.sleep(0.1)
        heard = made.recv(4096)
    assert heard.startswith(b"hello CONNECT centre.example:443 ")
    assert base64.b64encode(f"u:{SECRET}".encode()) in heard


def test_giving_up_ends_a_wait_at_once() -> None:
    with answering(says_nothing) as port:
        waiting = Opening(through(port))
        ended: list[Exception] = []

        def wait() -> None:
            try:
                waiting.open()
            except OSError as err:
                ended.append(err)

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        began = time.monotonic()
        waiting.give_up()
        thread.join(2)
        assert ended and isinstance(ended[0], ProxyRefused) and time.monotonic() - began < 1


class Sense:
    """A box that knows the time."""

    floor = 0.0
    right = True

    def true_time(self, mono: float) -> float | None:
        return None


class Hand:
    """A sender turned by hand, with a clock that can be moved."""

    def __init__(self, site: Site) -> None:
        self.inbox: SimpleQueue[Fact] = SimpleQueue()
        self.ahead = 0.0
        births = iter(range(1, 1000))
        self.sender = Sender(settings.load(site.box_toml), self.inbox, lambda: next(births), Sense(), lambda *_: None)

    def until(self, kind: type[Fact], timeout_s: float = 20.0) -> None:
        """Turn until such a fact about the present connection came."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            now = time.monotonic() + self.ahead
            self.sender.turn(now)
            with suppress(Empty):
                fact = self.inbox.get(timeout=0.02)
                if self.sender.heed(fact, now) and isinstance(fact, kind):
                    return
        raise AssertionError(f"no {kind.__name__}")


def test_a_better_way_that_opens_is_found_within_the_hour_without_losing_the_other(site: Site) -> None:
    (site.root / "state" / "telemetry").mkdir(parents=True)
    first, second = site.port, free_port()
    site.by(port=second, fallback_port=first)
    site.start("broker")
    hand = Hand(site)
    hand.until(Connected)
    assert site.link().way == f"127.0.0.1:{first} (MQTT)"
    hand.ahead = 1.3 * BETTER_S  # still closed: the look finds nothing and nothing is disturbed
    with pytest.raises(AssertionError, match="no Disconnected"):
        hand.until(Disconnected, 1.0)
    with answering(lambda guest: splice(guest, first)) as port:
        site.by(port=port, fallback_port=first)
        hand = Hand(site)
        hand.until(Connected)
        assert site.link().way == f"127.0.0.1:{first} (MQTT)"  # what worked last comes first
        hand.ahead = 1.3 * BETTER_S
        hand.until(Disconnected)
        hand.until(Connected)
        assert site.link().way == f"127.0.0.1:{port} (MQTT)"
        hand.sender.stop()


def test_when_a_node_dies_another_is_taken_and_kept(site: Site) -> None:
    (site.root / "state" / "telemetry").mkdir(parents=True)
    other = pki.issue(site.pki, "node-2", "server", ("127.0.0.2",))
    made = mosquitto.write_config(
        replace(site.broker, directory=site.root / "node-2", credentials=other, address="127.0.0.2")
    )
    site.start("broker")
    nodes = {"127.0.0.1": site.processes["broker"], "127.0.0.2": subprocess.Popen(made.argv, stderr=subprocess.DEVNULL)}
    try:
        site.wait(lambda: socket.socket().connect_ex(("127.0.0.2", site.port)) == 0)
        site.by(hosts=["127.0.0.2"])
        hand = Hand(site)
        hand.until(Connected)
        first = site.link().way.split(":")[0]
        nodes[first].kill()
        hand.until(Disconnected)
        hand.until(Connected)
        second = site.link().way.split(":")[0]
        assert {first, second} == set(nodes)
        for _ in range(3):  # which node is tried first would be a toss, if it were not remembered
            again = Hand(site)
            again.until(Connected)
            assert site.link().way.split(":")[0] == second
            again.sender.stop()
    finally:
        nodes["127.0.0.2"].kill()
        nodes["127.0.0.2"].wait()


def test_a_proxy_that_drips_is_given_up(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "ANSWER_S", 2.0)
    (site.root / "state" / "telemetry").mkdir(parents=True)
    site.start("broker")
    with answering(drips) as port:
        site.by(proxy=f"http://127.0.0.1:{port}")
        hand = Hand(site)
        hand.until(Disconnected, 3.0)
        assert [trial.reason for trial in site.link().tried] == ["no answer in time"]
        hand.until(Connected)
        assert site.link().way == f"127.0.0.1:{site.port} (MQTT)"
        site.wait(lambda: not any(thread.name == "open-1" for thread in threading.enumerate()), 1.0)
        hand.sender.stop()


def test_weeks_without_a_way_cost_neither_files_nor_threads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "BETWEEN_S", 0.0)
    monkeypatch.setattr(ways, "FIRST_S", 0.001)
    monkeypatch.setattr(ways, "CAP_S", 0.002)
    (site.root / "state" / "telemetry").mkdir(parents=True)
    site.by(port=free_port(), fallback_port=free_port())
    hand = Hand(site)

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    hand.until(Disconnected)
    files, threads = held()
    for _ in range(300):
        hand.until(Disconnected)
    assert held()[0] <= files + 8 and held()[1] <= threads + 2


def splice(guest: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as there:
        threading.Thread(target=carry, args=(there, guest), daemon=True).start()
        carry(guest, there)


def carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def test_what_a_broken_connection_left_unconfirmed_is_given_back_once(site: Site) -> None:
    (site.root / "state" / "telemetry").mkdir(parents=True)
    site.start("broker")
    hand = Hand(site)
    hand.until(Connected)
    site.kill("broker")
    mids = [hand.sender.publish(1, b"x") for _ in range(3)]
    hand.until(Disconnected)
    assert hand.sender.forsaken() == mids
    assert hand.sender.forsaken() == []
    site.start("broker")
    hand.until(Connected)
    assert hand.sender.publish(1, b"x") not in mids
    hand.sender.stop()


def test_a_renewed_certificate_counts_from_the_next_connection_on(site: Site) -> None:
    (site.root / "state" / "telemetry").mkdir(parents=True)
    site.start("broker")
    hand = Hand(site)
    hand.until(Connected)
    pki.issue(site.pki, "box-1")
    site.kill("broker")
    hand.until(Disconnected)
    site.start("broker")
    hand.until(Connected)
    hand.sender.stop()
    log = (site.root / "broker.log").read_text()
    assert log.count("New client connected") == 2


def test_a_server_of_ours_that_is_no_broker_is_told_apart(site: Site) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(site.pki / "broker.crt", site.pki / "broker.key")

    def web(guest: socket.socket) -> None:
        with server.wrap_socket(guest, server_side=True) as secure:
            shows_a_page(secure)

    with answering(web) as port:
        site.by(port=free_port(), fallback_port=port)
        site.start("box")
        site.wait(lambda: len(site.link().tried) == 3)
        assert "is a web server" in site.link().tried[2].reason
