"""A centre that can enrol: the real web service and the real CA daemon, each its own process, on loopback."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from sekisho.appliance import cli
from sekisho.center import pki
from sekisho.center.brokers import mosquitto
from sekisho.center.brokers.model import Broker
from sekisho.center.store import Store, Stored
from sekisho.lab.ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1] / "wrong_clock"))

DAY_S = 86400.0


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def command(*argv: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """`sekisho ARGV`, in this process; `typed` is what stands on its standard input."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(typed))
        code = cli.main(list(argv))
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


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
        """Start the CA's daemon ("ca"), the web service ("web"), Mosquitto ("broker"), ingest ("daemon")."""
        for name in names or ("ca", "web"):
            argv = [sys.executable, "-I", "-m", f"sekisho.center.{name}", "--settings", str(self.settings)]
            if name == "broker":
                argv = self._broker()
            self.run(name, argv)
            ready = {"web": self.web_port, "broker": self.broker_port}.get(name)
            if ready:
                self.wait(partial(listens, ready))
            if name == "ca":
                self.wait((self.root / "sign.sock").exists)

    def run(self, name: str, argv: list[str]) -> None:
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(argv, stdout=log, stderr=log)

    def _broker(self) -> list[str]:
        server = pki.issue(self.ca_dir, "broker", "server", ("127.0.0.1",))
        crl = self.revoked / "crl.pem"
        self.websocket_port = free_port()
        broker = Broker(self.root / "broker", server, "127.0.0.1", self.broker_port, self.websocket_port, crl=crl)
        return list(mosquitto.write_config(broker).argv)

    def events(self) -> list[Stored]:
        store = Store(self.store, read_only=True)
        try:
            return store.events(limit=1_000_000)
        finally:
            store.close()

    def sids(self, box: str) -> list[int]:
        """The rule numbers of a box's alerts, in the order of their arrival."""
        found = [json.loads(bytes(stored.event)) for stored in self.events() if stored.box == box]
        return [event["sid"] for event in found if event["type"] == "alert"]

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int:
        process = self.processes.pop(name)
        process.send_signal(sig)
        return process.wait(15)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def wait(self, fact: Callable[[], object], timeout_s: float = 90.0) -> None:
        until = time.monotonic() + timeout_s
        while not fact():
            assert time.monotonic() < until, f"waited {timeout_s} s in vain; logs:\n{self.logs()}"
            time.sleep(0.02)

    def logs(self) -> str:
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in sorted(self.root.glob("*.log")))

    def say(self, *argv: str) -> list[Any]:
        """What `sekisho center ...` prints, as JSON lines."""
        done = command("center", *argv, "--settings", str(self.settings), "--json")
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

    def daemon(self) -> list[str]:
        """How to start its telemetry."""
        (self.root / "run" / "eve").mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-I", "-m", "sekisho.telemetry.daemon", "--settings", str(self.settings)]

    def alert(self, number: int) -> None:
        """One EVE alert whose rule number tells it from the others."""
        line = {
            "timestamp": "2026-01-02T03:04:05.000006+0000",
            "event_type": "alert",
            "src_ip": f"10.77.{number // 250}.{number % 250}",
            "dest_ip": "10.77.0.1",
            "proto": "TCP",
            "alert": {"signature_id": number, "signature": "test", "action": "blocked"},
        }
        with (self.root / "run" / "eve" / "eve.json").open("ab", buffering=0) as eve:
            eve.write(json.dumps(line).encode() + b"\n")

    def serial(self) -> int:
        """Of the certificate in force."""
        return x509.load_pem_x509_certificate((self.identity / "identity.pem").read_bytes()).serial_number

    def enrol(self, url: str, code: str) -> subprocess.CompletedProcess[str]:
        return command("box", "enrol", "--centre", url, "--json", "--settings", str(self.settings), typed=code + "\n")

    def renew(self) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", "-m", "sekisho.telemetry.enrolment.box", "--settings", str(self.settings)]
        return subprocess.run(argv, capture_output=True, text=True)


@pytest.fixture(scope="session")
def make_centre() -> Callable[..., Centre]:
    return Centre


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    made = Centre(tmp_path_factory.mktemp("centre"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def make_box(tmp_path: Path) -> Callable[[str], Box]:
    return lambda name: Box(tmp_path, name)
