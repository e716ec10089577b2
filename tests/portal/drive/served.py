"""The portal as it runs in production: a process of its own, HTTPS, a month of events behind it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import requests
from objects import rollout
from office import THEM, US, Office
from playground import every_kind

from sekisho.center import pki
from sekisho.lab import toml
from sekisho.telemetry.events import Firmware


class Served:
    """A centre with a month behind it, served as it is in production."""

    def __init__(self, folder: Path, ago: Callable[..., str]) -> None:
        self.office = Office(folder)
        for hours in range(1, 720, 60):
            self.office.feed(*every_kind(ago(hours=hours)))
        self.office.feed(*every_kind(ago(hours=2)), tenant=THEM)
        rollout(self.office, US)
        release = {"version": "1.4.0", "tier": 3, "counter": 140, "running": 139}
        self.office.feed(Firmware(ago(hours=1), state="staged", expected_s=42.0, **release))  # type: ignore[arg-type]
        authority = folder / "ca"
        pki.create_ca(authority)
        files = pki.issue(authority, "portal", "server", ("localhost",))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        self.url, self.ca = f"https://localhost:{port}", files.ca
        portal: toml.Table = {"cert": str(files.cert), "key": str(files.key), "address": "127.0.0.1", "port": port}
        broker: toml.Table = {"host": "localhost", "ca": str(files.ca), "cert": str(files.cert), "key": str(files.key)}
        settings = folder / "center.toml"
        settings.write_text(
            toml.dumps(
                {
                    "store": str(self.office.path),
                    "broker": broker,
                    "portal": {**portal, "origin": self.url},
                    "notify": {"help_desk": "相談窓口 03-0000-0000"},
                    "ca": {"directory": str(authority)},
                }
            )
        )
        argv = [sys.executable, "-I", "-m", "sekisho.center.portal", "--settings", str(settings)]
        self._log = folder / "portal.log"
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(argv, stderr=out)
        self._wait()

    def _wait(self) -> None:
        while True:
            assert self._process.poll() is None, self._log.read_text()
            try:
                requests.get(f"{self.url}/health", verify=str(self.ca), timeout=5)
            except requests.ConnectionError:
                continue
            return

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        self.office.close()
