"""Three NATS nodes on loopback as docs/cluster.md sets them up, each a real process that can be killed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import pki
from sekisho.center.brokers import nats
from sekisho.center.brokers.model import Broker, Member
from sekisho.center.settings import NatsNode
from sekisho.lab.ports import free_port

NODES: Final = 3
START_S: Final = 20.0


def installed() -> bool:
    return shutil.which("nats-server", path="/usr/sbin:/usr/bin:/usr/local/bin") is not None


class NatsCluster:
    """Nodes 0, 1 and 2; `start` and `kill` by number."""

    def __init__(self, root: Path, authority: Path, members: tuple[Member, ...]) -> None:
        """Write every node's configuration below `root`; `authority` holds the CA."""
        self.root = root
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.port, clients, routing = (free_port() for _ in range(3))
        self.hosts = [f"127.0.0.{number + 1}" for number in range(NODES)]
        """Where boxes connect, by node, all on `port`."""
        self.servers = [f"{host}:{clients}" for host in self.hosts]
        """Where ingest workers connect."""
        routes = [f"{host}:{routing}" for host in self.hosts]
        self._argv: list[list[str]] = []
        for number, host in enumerate(self.hosts):
            broker = Broker(
                root / f"node-{number}",
                pki.issue(authority, f"node-{number}", "node", (host,)),
                address=host,
                port=self.port,
                members=members,
                max_connections=len(members) + 100,
            )
            node = NatsNode(
                f"node-{number}",
                self.servers[number],
                cluster="sekisho",
                cluster_address=routes[number],
                routes=tuple(route for route in routes if route != routes[number]),
                replicas=NODES,
            )
            self._argv.append(list(nats.write_config(broker, node).argv))

    def start(self, *numbers: int) -> None:
        """Start these nodes, or all, and wait until boxes can connect.

        Raises:
            DeviceFault: a node does not listen after `START_S`.

        """
        for number in numbers or range(NODES):
            with self.log(number).open("ab") as log:
                self.processes[number] = subprocess.Popen(self._argv[number], stdout=log, stderr=log)
        for number in numbers or range(NODES):
            until = time.monotonic() + START_S
            while not _listens(self.hosts[number], self.port):
                if time.monotonic() > until or self.processes[number].poll() is not None:
                    raise DeviceFault(f"Node {number} does not listen: {self.log(number).read_text()[-2000:]}")
                time.sleep(0.05)

    def kill(self, number: int) -> None:
        """End a node at once (SIGKILL); `start` brings it back with what is on its disk."""
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for number in list(self.processes):
            self.kill(number)

    def log(self, number: int) -> Path:
        return self.root / f"node-{number}.log"


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
