"""A centre on this machine for the benches: broker, ingest workers, database, and a fleet of simulated boxes.

Everything is a real process on loopback with TLS; what it writes lies under one directory, what it starts is ended
by its process number.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.bench.fleet import TENANT, Phase, Told
from sekisho.bench.fleet_certificates import box_name, issue_fleet
from sekisho.center import pki, tenants
from sekisho.center.brokers import mosquitto
from sekisho.center.brokers.model import Broker, Member
from sekisho.center.database import Database
from sekisho.lab.nats_cluster import NatsCluster
from sekisho.lab.ports import free_port

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
START_S: Final = 30.0
REAL_BOX: Final = "real"


class Stand:
    """One broker, one database, workers, one fleet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.store = str(root / "events.db")
        self.eve = root / "run" / "eve" / "eve.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._argv: dict[str, list[str]] = {}
        self.hosts = ["127.0.0.1"]
        """Where boxes connect, all on `port`."""
        self.authority = root / "pki"
        pki.create_ca(self.authority)
        self._cluster: NatsCluster | None = None

    def start_broker(self, boxes: int, workers: int) -> None:
        """Mosquitto, with room for the fleet."""
        server = pki.issue(self.authority, "broker", "server", ("127.0.0.1",))
        made = mosquitto.write_config(
            Broker(self.root / "broker", server, port=self.port, workers=workers, max_connections=boxes + 100)
        )
        self.start("broker", list(made.argv))
        self.wait(self._listens, "the broker does not listen")

    def start_cluster(self, boxes: int) -> NatsCluster:
        """Three NATS nodes in place of Mosquitto; workers started later take from their stream."""
        members = tuple(Member(box_name(number), TENANT) for number in range(boxes))
        members += (Member(REAL_BOX, TENANT),)
        self._cluster = NatsCluster(self.root, self.authority, members)
        self._cluster.start()
        self.hosts, self.port = self._cluster.hosts, self._cluster.port
        return self._cluster

    def start_worker(self, number: int) -> None:
        """One more ingest worker, of Mosquitto or, where it stands, of the cluster."""
        name = "center" if number == 1 else f"center-{number}"
        mine = self.credentials("center" if self._cluster else name)
        conf = self.root / f"{name}.toml"
        conf.write_text(
            f'store = "{self.store}"\n[broker]\nhost = "127.0.0.1"\nport = {self.port}\nca = "{mine.ca}"\n'
            f'cert = "{mine.cert}"\nkey = "{mine.key}"\nclient = "{name}"\n'
            + (f"[jetstream]\nservers = {self._cluster.servers}\n" if self._cluster else "")
        )
        self.start(name, [sys.executable, "-I", "-m", "sekisho.center.daemon", "--settings", str(conf)])
        self.wait(lambda: "connected to the" in self.log(name), f"{name} is not connected")

    def start_rollouts(self) -> None:
        """Who decides when signed jobs go out, and who sends them."""
        mine, conf = self.credentials("jobs"), self.root / "rollouts.toml"
        conf.write_text(
            f'store = "{self.store}"\n[broker]\nhost = "127.0.0.1"\nport = {self.port}\nca = "{mine.ca}"\n'
            f'cert = "{mine.cert}"\nkey = "{mine.key}"\n[jobs]\ncert = "{mine.cert}"\nkey = "{mine.key}"\n'
        )
        for room in ("jobs", "rollout"):
            self.start(room, [sys.executable, "-I", "-m", f"sekisho.center.{room}", "--settings", str(conf)])

    def start_box(self, tenant: str = TENANT) -> None:
        """The telemetry daemon of one real box, which reads `eve`."""
        mine = self.credentials(REAL_BOX)
        self.eve.parent.mkdir(parents=True, exist_ok=True)
        (self.eve.parent.parent / "inventory.json").write_text('{"192.168.1.10": "02:00:5e:10:00:0a"}')
        conf = self.root / "box.toml"
        conf.write_text(
            f'box = "{REAL_BOX}"\ntenant = "{tenant}"\n[telemetry]\nport = {self.port}\n'
            f'host = "{self.hosts[0]}"\nhosts = {self.hosts[1:]}\n'
            f'ca = "{mine.ca}"\ncert = "{mine.cert}"\nkey = "{mine.key}"\n'
            f'[paths]\nrun = "{self.root}/run"\nstate = "{self.root}/state"\n'
        )
        self.start("box", [sys.executable, "-I", "-m", "sekisho.telemetry.daemon", "--settings", str(conf)])

    def start_notifier(self, smtp_port: int) -> None:
        """The notifier, for one customer who owns every box and is mailed as often as a customer may be."""
        wanted = {"recipients": ["owner@shop.example"], "name": "桜商店", "mails_per_hour": 60}
        with closing(Database(self.store)) as database, database.transaction() as db:
            tenants.save(db, tenants.changed(tenants.load(db, TENANT), wanted))
        conf = self.root / "notify.toml"
        conf.write_text(
            f'store = "{self.store}"\n[broker]\nhost = ""\nca = ""\ncert = ""\nkey = ""\n'
            f'[notify]\nsmtp_host = "127.0.0.1"\nsmtp_port = {smtp_port}\nsecurity = "none"\n'
            'sender = "watch@centre.example"\n'
        )
        self.start("notify", [sys.executable, "-I", "-m", "sekisho.center.notify", "--settings", str(conf)])

    def start_fleet(self, boxes: int) -> Told:
        """Connect the boxes; returns how that went."""
        certificates = self.root / "fleet"
        if not certificates.exists():
            issue_fleet(self.authority, certificates, boxes)
        argv = [sys.executable, "-I", "-m", "sekisho.bench.fleet"]
        argv += [part for host in self.hosts for part in ("--host", f"{host}:{self.port}")]
        argv += ["--ca", str(self.authority / "ca.crt"), "--certificates", str(certificates), "--boxes", str(boxes)]
        with (self.root / "fleet.log").open("ab") as log:
            self.processes["fleet"] = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        return self._told()

    def phase(self, phase: Phase) -> Told:
        """Have the fleet do it; returns when it is over."""
        self.begin(phase)
        return self._told()

    def begin(self, phase: Phase) -> None:
        """Have the fleet do it; `finish` waits for it."""
        pipe = self.processes["fleet"].stdin
        assert pipe  # noqa: S101 - opened by start_fleet
        pipe.write(msgspec.json.encode(phase) + b"\n")
        pipe.flush()

    def finish(self) -> Told:
        return self._told()

    def _told(self) -> Told:
        pipe = self.processes["fleet"].stdout
        assert pipe  # noqa: S101 - opened by start_fleet
        line = pipe.readline()
        if not line:
            raise DeviceFault(f"The simulated boxes ended early: {(self.root / 'fleet.log').read_text()[-2000:]}")
        return msgspec.json.decode(line, type=Told)

    def credentials(self, name: str) -> pki.Credentials:
        """A client's certificate."""
        return pki.issue(self.authority, name)

    def restart(self, name: str) -> None:
        """Start again, as it was, what has ended."""
        self.start(name, self._argv[name])

    def start(self, name: str, argv: list[str], user: str | None = None) -> None:
        self._argv[name] = argv
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log, user=user)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def wait(self, fact: Callable[[], object], else_say: str, timeout_s: float = START_S) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            if time.monotonic() > until:
                raise DeviceFault(f"After {timeout_s:g} s {else_say} ({self.root}).")
            time.sleep(0.02)

    def cpu_s(self, prefix: str) -> float:
        """Processor time so far of the processes whose name begins so (the cluster's nodes are "broker")."""
        mine = [process.pid for name, process in self.processes.items() if name.startswith(prefix)]
        nodes = self._cluster.processes.values() if self._cluster and prefix == "broker" else ()
        return sum(cpu_s(pid) for pid in (*mine, *(node.pid for node in nodes)))

    def stop(self, *names: str) -> None:
        """End these, or all: the boxes first, then the workers, then what they talk to."""
        for name in names or tuple(reversed(self.processes)):
            process = self.processes.pop(name)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def close(self) -> None:
        """End everything."""
        self.stop()
        if self._cluster:
            self._cluster.stop()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextlib.contextmanager
def standing(root: Path) -> Iterator[Stand]:
    """A stand that leaves no process behind."""
    stand = Stand(root)
    try:
        yield stand
    finally:
        stand.close()


def cpu_s(pid: int) -> float:
    """User and system time of a process and of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S
