"""A database that is slow or refuses: nothing is acknowledged, little is held, nothing is lost, and it is said."""

from __future__ import annotations

import json
import queue
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import paho.mqtt.client as mqtt
import psycopg
import pytest

from sekisho.center import daemon, database, settings
from sekisho.center.store import Store
from sekisho.lab.postgres import Postgres, programs

if TYPE_CHECKING:
    from tests.center.conftest import Site

BATCHES = 400
EPOCH = "00000000000000aa"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the service manager is told."""
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))

        def listen() -> None:
            while data := manager.recv(4096):
                heard.append(data.decode())

        listener = threading.Thread(target=listen)
        listener.start()
        yield heard
        monkeypatch.delenv("NOTIFY_SOCKET")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(tmp_path / "notify"))
        listener.join()


@pytest.fixture
def center(site: Site, store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[daemon.Center]:
    """The centre in this process, so that its queue can be looked into."""
    monkeypatch.setattr(database, "BUSY_S", 0.2)
    monkeypatch.setattr(daemon, "RETRY_S", 0.1)
    site.store_in(store_url)
    site.start("broker")
    made = daemon.Center(settings.load(site.center_toml))
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join()


@contextmanager
def _locked(url: str) -> Iterator[None]:
    """While somebody else has the events' table."""
    if url.startswith("postgresql"):
        with psycopg.connect(url) as other:
            # The table itself is enough: a lock on its partitions too breaks on one that is dropped meanwhile.
            other.execute("LOCK TABLE ONLY event IN EXCLUSIVE MODE")
            yield
    else:
        with closing(sqlite3.connect(url, isolation_level=None)) as only:
            only.execute("BEGIN IMMEDIATE")
            yield


def _batch(number: int) -> bytes:
    event = json.dumps({"type": "alert", "at": "2026-01-02T03:04:05Z", "sid": number})
    return b'{"v":1,"e":"%s","n":1}\n[%d,1,%s]\n' % (EPOCH.encode(), number, event.encode())


@pytest.mark.protocol("P15")
def test_while_the_database_is_locked_nothing_is_acknowledged_and_little_is_held(
    site: Site, told: list[str], center: daemon.Center
) -> None:
    site.wait(lambda: "READY=1" in told)
    acks: list[int] = []
    box = site.client(site.box, "box-1")
    box.on_message = lambda _c, _u, message: acks.append(json.loads(message.payload)["upto"])
    box.subscribe("sk/1/t1/box-1/ack", qos=1)
    # The centre may not have subscribed yet: a box would send again, and so do we.
    site.wait(lambda: box.publish("sk/1/t1/box-1/ev/1", _batch(1), qos=1) and 1 in acks)
    with _locked(site.store_url):
        for number in range(2, BATCHES + 1):
            box.publish("sk/1/t1/box-1/ev/1", _batch(number), qos=1)
        refusals = len(told)
        site.wait(lambda: sum("Nothing is acknowledged" in text for text in told[refusals:]) >= 5)
        assert all("WATCHDOG=1" in text for text in told if "STATUS=Nothing" in text)
        assert max(acks) == 1
        assert center._inbox.qsize() <= daemon.GROUP_MESSAGES
    site.wait(lambda: BATCHES in acks)
    assert sorted(site.sids()) == list(range(1, BATCHES + 1))
    assert "STATUS=Events are stored again." in told
    box.disconnect()
    box.loop_stop()


def test_a_broker_that_keeps_to_no_window_is_held_by_the_queue(
    site: Site, told: list[str], center: daemon.Center
) -> None:
    site.wait(lambda: "READY=1" in told)
    message = mqtt.MQTTMessage(1, b"sk/1/t1/box-1/ev/1")
    message.payload = _batch(1)
    with _locked(site.store_url):
        with pytest.raises(queue.Full):
            for _ in range(10 * daemon.INBOX_MESSAGES):
                center._inbox.put(message, timeout=0.5)
    site.wait(lambda: site.sids() == [1])


@pytest.mark.protocol("P21")
def test_a_full_disk_at_the_centre_delays_and_loses_nothing(site: Site) -> None:
    with site.small_disk("disk", "2m") as fill:
        site.store_in(site.root / "disk" / "events.db")
        site.start("broker", "center", "box")
        site.write(site.alert(1))
        site.wait_alerts(1)
        filler = fill()
        for number in range(2, 2002):
            site.write(site.alert(number))
        site.wait(lambda: "Nothing was acknowledged" in (site.root / "center.log").read_text())
        filler.unlink()
        site.wait_alerts(2001)
        assert sorted(site.sids()) == list(range(1, 2002))


def test_a_server_that_is_killed_and_comes_back_has_every_event_once(site: Site) -> None:
    if not programs():
        pytest.skip("postgresql is not installed")
    server = Postgres({"listen_addresses": ""})
    try:
        server.start()
        site.store_in(server.database())
        Store(site.store_url).close()
        site.start("broker", "center", "box")
        for number in range(1, 301):
            site.write(site.alert(number))
            if number % 100 == 50:
                site.wait_alerts(number - 40)
                server.kill()
                server.start()
        site.wait_alerts(300)
        assert sorted(site.sids()) == list(range(1, 301))
        assert site.missing() == []
        assert "Traceback" not in (site.root / "center.log").read_text()
    finally:
        site.stop()
        server.stop()
