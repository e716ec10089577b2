"""A centre that can enrol: the real web service and the real CA daemon, each its own process, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.center import pki

DAY_S = 86400.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Centre:
    """One installation: CA, web service, database; each process can be killed and started again."""

    def __init__(self, root: Path, life_s: float = 90 * DAY_S, grace_s: float = 400 * DAY_S) -> None:
        self.root, self.web_port, self.broker_port = root, free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.web_port}"
        self.ca_dir = root / "ca"
        self.ca = pki.create_ca(self.ca_dir)
        self.web = pki.issue(self.ca_dir, "centre", "server", ("127.0.0.1", "localhost"))
        self.link = pki.issue(self.ca_dir, "center")
        self.store = root / "center.db"
        self.revoked = root / "revoked"
        self.settings = root / "center.toml"
        self.settings.write_text(
            f'store = "{self.store}"\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {self.broker_port}\nca = "{self.ca}"\n'
            f'cert = "{self.link.cert}"\nkey = "{self.link.key}"\n'
            f'[web]\naddress = "127.0.0.1"\nport = {self.web_port}\ncert = "{self.web.cert}"\nkey = "{self.web.key}"\n'
            'behind = ["127.0.0.1"]\n'
            f'[ca]\ndirectory = "{self.ca_dir}"\nsocket = "{root}/sign.sock"\nrevoked = "{self.revoked}"\n'
            f"certificate_days = {life_s / DAY_S:.9f}\ngrace_days = {grace_s / DAY_S:.9f}\n"
        )
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names or ("ca", "web"):
            argv = [sys.executable, "-I", "-m", f"sekisho.center.{name}", "--settings", str(self.settings)]
            with (self.root / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(argv, stderr=log)
        self.wait(lambda: "web" not in self.processes or self._listens())
        self.wait(lambda: "ca" not in self.processes or (self.root / "sign.sock").exists())

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int:
        process = self.processes.pop(name)
        process.send_signal(sig)
        return process.wait(15)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def wait(self, fact: Callable[[], object], timeout_s: float = 30.0) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            assert time.monotonic() < until, f"waited {timeout_s} s in vain; logs:\n{self.logs()}"
            time.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.root.glob("*.log")))

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.web_port)) == 0

    def say(self, *argv: str) -> list[Any]:
        """What `sekisho center ...` prints, as JSON lines."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "sekisho.appliance.cli",
                "center",
                *argv,
                "--settings",
                str(self.settings),
                "--json",
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def code(self, box: str, tenant: str = "t1", valid: str = "1h") -> str:
        return str(self.say("enrol-code", "--box", box, "--tenant", tenant, "--valid", valid)[0]["code"])

    def outcomes(self) -> list[str]:
        """What came of each attempt, oldest first."""
        return [attempt["outcome"] for attempt in reversed(self.say("attempts"))]


class Box:
    """A box's directory, and its command line."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root / name
        self.root.mkdir()
        self.settings = self.root / "box.toml"
        self.settings.write_text(f'box = "{name}"\n[paths]\nstate = "{self.root}/state"\nrun = "{self.root}/run"\n')
        self.identity = self.root / "state" / "telemetry" / "identity"

    def enrol(self, url: str, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "sekisho.appliance.cli", "box", "enrol", "--centre", url, "--json"]
        argv += ["--settings", str(self.settings)]
        return subprocess.run(argv, input=code + "\n", capture_output=True, text=True, env=os.environ | env)

    def renew(self, **env: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-m", "sekisho.telemetry.enrolment.box", "--settings", str(self.settings)]
        return subprocess.run(argv, capture_output=True, text=True, env=os.environ | env)


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    made = Centre(tmp_path_factory.mktemp("centre"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def make_box(tmp_path: Path) -> Callable[[str], Box]:
    return lambda name: Box(tmp_path, name)
