"""A small world of namespaces for the box alone: an office machine, the box, a server; no product around it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sekisho.appliance.berth import Berth
from sekisho.appliance.turning import Turning

_count = itertools.count()
OFFLOADS = ("tso", "off", "gso", "off", "gro", "off", "tx", "off", "sg", "off")


def sh(*argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(f"{argv}: {done.stdout}{done.stderr}")
    return done


def wait_for(fact: Callable[[], Any], timeout_s: float = 15, what: str = "the fact") -> Any:
    """Wait until `fact()` is true and return it; fail with `what` otherwise."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about in {timeout_s} s")
        time.sleep(0.02)


class World:
    """Three namespaces joined like the two cables of a box."""

    def __init__(self, directory: Path) -> None:
        self.prefix = f"h2-{os.getpid()}-{next(_count)}"
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []

    def ns(self, where: str) -> str:
        return f"{self.prefix}-{where}"

    def build(self, *, join: tuple[str, ...] = ("lan", "wan")) -> None:
        for where in ("lan", "box", "wan"):
            sh("ip", "netns", "add", self.ns(where))
            sh("ip", "-n", self.ns(where), "link", "set", "lo", "up")
        for side, host in (("lan", 10), ("wan", 1)):
            peer = ("type", "veth", "peer", "name", f"eth-{side}", "netns", self.ns("box"))
            sh("ip", "link", "add", "name", "eth0", "netns", self.ns(side), *peer)
            sh("ip", "netns", "exec", self.ns(side), "ethtool", "-K", "eth0", *OFFLOADS)
            sh("ip", "netns", "exec", self.ns("box"), "ethtool", "-K", f"eth-{side}", *OFFLOADS)
            sh("ip", "-n", self.ns(side), "addr", "add", f"10.79.0.{host}/24", "dev", "eth0")
            sh("ip", "-n", self.ns(side), "addr", "add", f"fd79::{host}/64", "dev", "eth0", "nodad")
            sh("ip", "-n", self.ns("box"), "link", "set", f"eth-{side}", "up")
            if side in join:
                sh("ip", "-n", self.ns(side), "link", "set", "eth0", "up")

    def run(self, where: str, *argv: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return sh("ip", "netns", "exec", self.ns(where), *argv, check=check, timeout=timeout)

    def start(self, where: str, *argv: str, log: str = "") -> subprocess.Popen[bytes]:
        out = (self.directory / log).open("ab") if log else subprocess.DEVNULL
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.ns(where), *argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
        self.processes.append(process)
        return process

    def settings(self, extra: str = "", **inspection: object) -> Path:
        path = self.directory / "box.toml"
        lines = ['box = "h2"', "[inspection]", "queues = 2"]
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in inspection.items()]
        lines += ["[paths]", f'run = "{self.directory}/run"', f'state = "{self.directory}/state"', extra]
        path.write_text("\n".join(lines))
        return path

    def box(self, verb: str, settings: Path, *more: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        cli = (sys.executable, "-I", "-m", "sekisho.appliance.cli", "box", verb)
        return self.run("box", *cli, "--settings", str(settings), *more, check=check, timeout=60)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for where in ("lan", "box", "wan"):
            for pid in sh("ip", "netns", "pids", self.ns(where), check=False).stdout.split():
                sh("kill", "-9", pid, check=False)
            sh("ip", "netns", "del", self.ns(where), check=False)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    try:
        made.build()
        yield made
    finally:
        made.close()


@pytest.fixture
def dark_world(tmp_path: Path) -> Iterator[World]:
    """A world whose server has not been plugged in."""
    made = World(tmp_path)
    try:
        made.build(join=("lan",))
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def waiting() -> Callable[..., Any]:
    return wait_for


@pytest.fixture(scope="module")
def new_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], World]]:
    """Worlds on demand, all closed at the end of the module."""
    made: list[World] = []

    def build() -> World:
        world = World(tmp_path_factory.mktemp("world"))
        made.append(world)
        world.build()
        return world

    yield build
    for world in made:
        world.close()


@pytest.fixture(scope="session")
def hang() -> Callable[[Berth], None]:
    """Make the engine of a berth hang over a load: a signal meets an order before its begin.

    It inspects on, and answers nobody. The instant is a few milliseconds long: tried until it is met.
    """

    def made(berth: Berth) -> None:
        pid, ask = int(berth.pid_file.read_text()), msgspec.json.encode
        for tried in range(300):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(30)
                wait_for(lambda: sock.connect_ex(str(berth.socket)) == 0, what="its turn")
                sock.sendall(ask({"version": "0.2"}) + b"\n")
                assert b"OK" in sock.recv(100)
                turning = Turning(berth)
                sock.sendall(ask({"command": "reload-rules"}) + b"\n")
                time.sleep(0.0005 * 2 ** (tried % 6))
                os.kill(pid, signal.SIGUSR2)
                sock.settimeout(0.1)
                while not turning.lost():
                    with suppress(TimeoutError):
                        assert sock.recv(100)
                        break
                else:
                    return
        raise AssertionError("the signal never met the order")

    return made
