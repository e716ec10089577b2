"""A whole telemetry path on loopback: a real broker with TLS, the real centre, one real box's telemetry."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import psycopg
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from psycopg import sql

from sekisho.center import pki
from sekisho.center.brokers import mosquitto, nats, rabbitmq
from sekisho.center.brokers.model import Broker, Launch, Member
from sekisho.center.settings import Erlang
from sekisho.center.store import Store, Stored
from sekisho.lab.ports import free_port
from sekisho.lab.postgres import Postgres, programs
from sekisho.telemetry.link import LinkStatus
from sekisho.telemetry.link import read as read_link

sys.path.insert(0, str(Path(__file__).parents[1] / "wrong_clock"))


def _line(event_type: str, **fields: object) -> bytes:
    """One EVE record."""
    line = {
        "timestamp": "2026-01-02T03:04:05.000006+0000",
        "event_type": event_type,
        "src_ip": "10.77.0.10",
        "dest_ip": "10.77.0.1",
        "proto": "TCP",
        **fields,
    }
    return json.dumps(line).encode() + b"\n"


BROKERS = {"mosquitto": "mosquitto", "nats": "nats-server", "rabbitmq": "epmd"}
"""Every broker the product knows, and the program whose absence skips its tests."""
MEMBERS = (Member("box-1", "t1"), Member("box-2", "t1"))


class Site:
    """One broker, one centre, one box; each can be started and killed."""

    def __init__(self, root: Path, kind: str = "mosquitto") -> None:
        self.root = root
        self.kind = kind
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._link: dict[str, object] = {}
        self._erlang = Erlang(dist_port=free_port(), epmd_port=free_port())
        self.pki = root / "pki"
        pki.create_ca(self.pki)
        server = pki.issue(self.pki, "broker", "server", ("127.0.0.1", "localhost"))
        self.center = pki.issue(self.pki, "center")
        self.box = pki.issue(self.pki, "box-1")
        self.listener = pki.issue(self.pki, "listener")
        self.broker = Broker(root / "broker", server, "127.0.0.1", self.port, members=MEMBERS)
        self.launch = self.write_broker()
        self.store_path = root / "events.db"
        self.store_url = str(self.store_path)
        (root / "run" / "eve").mkdir(parents=True)
        self.eve = root / "run" / "eve" / "eve.json"
        self._write_settings()

    def write_broker(self) -> Launch:
        """Write the broker's configuration from `self.broker`, with a listener more, who may hear everything."""
        if self.kind == "nats":
            launch = nats.write_config(self.broker)
            conf = json.loads(launch.config.read_bytes())
            conf["accounts"][nats.ACCOUNT]["users"].append({"user": "CN=listener"})
            launch.config.write_text(json.dumps(conf))
            return launch
        if self.kind == "rabbitmq":
            launch = rabbitmq.write_config(self.broker, self._erlang)
            path = self.root / "broker" / "definitions.json"
            every = {"user": "listener", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
            conf = json.loads(path.read_bytes())
            conf["users"].append({**conf["users"][0], "name": "listener"})
            conf["permissions"].append(every)
            path.write_text(json.dumps(conf))
            return launch
        launch = mosquitto.write_config(self.broker)
        with (self.root / "broker" / "acl").open("a") as acl:
            acl.write("\nuser listener\ntopic read #\n")
        return launch

    def serve(self) -> None:
        """Let the product's own daemon run the broker and keep its list, in place of a list written here."""
        files = self.broker.credentials
        with self.center_toml.open("a") as config:
            config.write(
                f'[ca]\nrevoked = "{self.root}/revoked"\n[serve]\nkind = "{self.kind}"\n'
                f'directory = "{self.broker.directory}"\naddress = "127.0.0.1"\nport = {self.port}\n'
                f'ca = "{files.ca}"\ncert = "{files.cert}"\nkey = "{files.key}"\n'
                f"[serve.erlang]\ndist_port = {free_port()}\nepmd_port = {free_port()}\n"
            )
        argv = (sys.executable, "-I", "-m", "sekisho.center.brokers", "--settings", str(self.center_toml))
        self.launch = Launch(argv, self.launch.config)

    def by(self, **link: object) -> None:
        """Give the box other settings of its way to the centre."""
        self._link = link
        self._write_settings()

    def link(self) -> LinkStatus:
        """What the box says of its way to the centre."""
        return read_link(self.root / "state" / "telemetry" / "link.json")

    def _write_settings(self) -> None:
        link = f'host = "127.0.0.1"\nport = {self.port}\nca = "{self.pki}/ca.crt"\n'
        self.center_toml = self.root / "center.toml"
        self.center_toml.write_text(
            f'store = "{self.store_url}"\n[broker]\n{link}cert = "{self.center.cert}"\nkey = "{self.center.key}"\n'
        )
        way = {"host": "127.0.0.1", "port": self.port, "fallback_port": 0, **self._link}
        files = {"ca": str(self.box.ca), "cert": str(self.box.cert), "key": str(self.box.key)}
        telemetry = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**way, **files}.items())
        self.box_toml = self.root / "box.toml"
        self.box_toml.write_text(
            f'box = "box-1"\ntenant = "t1"\n[telemetry]\n{telemetry}\n'
            f'[paths]\nrun = "{self.root}/run"\nstate = "{self.root}/state"\n'
        )

    def store_in(self, url: str | Path) -> None:
        """Keep the centre's store elsewhere; before it is started."""
        self.store_path, self.store_url = Path(url), str(url)
        self._write_settings()

    @contextmanager
    def small_disk(self, name: str, size: str) -> Iterator[Callable[[], Path]]:
        """A file system of its own; the function given fills it and names the file that does. Ends with `stop`."""
        folder = self.root / name
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root")

        def fill() -> Path:
            filler = folder / "filler"
            with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as out:
                while True:
                    out.write(bytes(4096))
            return filler

        try:
            yield fill
        finally:
            self.stop()
            subprocess.run(["umount", "-l", str(folder)], check=True)

    def start(self, *names: str) -> None:
        argv = {
            "broker": list(self.launch.argv),
            "center": [sys.executable, "-I", "-m", "sekisho.center.daemon", "--settings", str(self.center_toml)],
            "box": [sys.executable, "-I", "-m", "sekisho.telemetry.daemon", "--settings", str(self.box_toml)],
        }
        for name in names:
            with (self.root / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(argv[name], stdout=log, stderr=log, start_new_session=True)
            if name == "broker":
                self.wait(self._broker_listens, 60)

    def _broker_listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def kill(self, name: str, sig: int = signal.SIGKILL) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, sig)
        process.wait(10)

    def client(self, who: pki.Credentials, name: str) -> mqtt.Client:
        """A plain client of the broker, connected, its loop running."""
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        context = ssl.create_default_context(cafile=str(who.ca))
        context.load_cert_chain(who.cert, who.key)
        client.tls_set_context(context)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        return client

    @staticmethod
    def line(event_type: str, **fields: object) -> bytes:
        return _line(event_type, **fields)

    @staticmethod
    def alert(number: int, **more: object) -> bytes:
        """An EVE alert that can be told from the others by its rule number."""
        return _line("alert", alert={"signature_id": number, "signature": "test", "action": "blocked"}, **more)

    @staticmethod
    def dns(number: int) -> bytes:
        return _line("dns", dns={"type": "query", "rrname": f"n{number}.example", "rrtype": "A"})

    def write(self, data: bytes) -> None:
        fd = os.open(self.eve, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    def events(self) -> list[Stored]:
        if self.store_url == str(self.store_path) and not self.store_path.exists():
            return []
        store = Store(self.store_url, read_only=True)
        try:
            return store.events(limit=1_000_000)
        finally:
            store.close()

    def waiting(self) -> int:
        """Rows that wait on the box; -1 while there is no spool yet."""
        try:
            with sqlite3.connect(f"file:{self.root}/state/telemetry/spool.db?mode=ro", uri=True) as db:
                return int(db.execute("SELECT COUNT(*) FROM event").fetchone()[0])
        except sqlite3.OperationalError:
            return -1

    def missing(self) -> list[object]:
        with closing(Store(self.store_url, read_only=True)) as store:
            return list(store.missing())

    def forget(self) -> None:
        """Take from a broker that is down all it remembers."""
        for name in ("jetstream", "data"):
            shutil.rmtree(self.root / "broker" / name, ignore_errors=True)
        for leftover in (self.root / "broker").glob("*.db"):
            leftover.unlink()

    def contents(self, *patterns: str) -> dict[Path, bytes]:
        """Every file here that fits; listed again when one has been renamed meanwhile."""
        try:
            found = [path for pattern in patterns for path in self.root.glob(pattern)]
            return {path: path.read_bytes() for path in found if path.is_file()}
        except FileNotFoundError:
            return self.contents(*patterns)

    def states(self) -> dict[str, str]:
        """What the centre thinks of each box."""
        with closing(Store(self.store_url, read_only=True)) as store:
            return {box.box: box.state for box in store.boxes()}

    def sids(self) -> list[int]:
        decoded = [json.loads(bytes(stored.event)) for stored in self.events()]
        return [event["sid"] for event in decoded if event["type"] == "alert"]

    def wait_alerts(self, count: int) -> None:
        self.wait(lambda: len(self.sids()) >= count)

    def wait_more(self, than: int) -> None:
        self.wait(lambda: len(self.events()) > than, 45)

    def wait(self, fact: Callable[[], object], timeout_s: float = 30.0) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            assert time.monotonic() < until, f"waited {timeout_s} s in vain; logs:\n{self.logs()}"
            time.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.root.glob("*.log")))

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of our own, one for the whole session; `database()` makes an empty database in it."""
    if not programs():
        pytest.skip("postgresql is not installed")
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_database(postgres: Postgres) -> str:
    """One database for many tests, one after the other: `store_url` empties it."""
    url = postgres.database()
    Store(url).close()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is: every test that takes this runs on both back ends."""
    if request.param == "sqlite":
        return str(tmp_path / "events.db")
    url = str(request.getfixturevalue("shared_database"))
    with psycopg.connect(url) as db:
        tables = "relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace"
        names = [name for (name,) in db.execute(f"SELECT relname FROM pg_class WHERE {tables}")]  # noqa: S608 - constant
        some = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        filled = sql.SQL(" UNION ALL ").join(some.format(sql.Literal(name), sql.Identifier(name)) for name in names)
        for (name,) in db.execute(filled).fetchall():
            db.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    return url


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """With Mosquitto, or with the broker an indirect parameter names."""
    kind = getattr(request, "param", "mosquitto")
    if not shutil.which(BROKERS[kind], path=os.environ["PATH"] + ":/usr/sbin"):
        pytest.skip(f"{kind} is not installed")
    made = Site(tmp_path, kind)
    yield made
    made.stop()


class Heard:
    """What crosses the broker."""

    def __init__(self, site: Site) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="listener", protocol=mqtt.MQTTv311)
        context = ssl.create_default_context(cafile=str(site.listener.ca))
        context.load_cert_chain(site.listener.cert, site.listener.key)
        self.client.tls_set_context(context)
        self.client.on_message = lambda _c, _u, message: self.messages.append((message.topic, bytes(message.payload)))
        self.client.connect("127.0.0.1", site.port)
        self.client.subscribe("#", qos=1)
        self.client.loop_start()

    def of(self, kind: str) -> list[bytes]:
        return [payload for topic, payload in self.messages if topic.endswith("/" + kind)]


@pytest.fixture
def heard(site: Site) -> Iterator[Heard]:
    """A listener at Mosquitto who may read and write everything; starts the broker."""
    with (site.root / "broker" / "acl").open("a") as acl:
        acl.write("\nuser listener\ntopic readwrite #\n")
    site.start("broker")
    made = Heard(site)
    yield made
    made.client.disconnect()
    made.client.loop_stop()
