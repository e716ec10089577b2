"""A box's real signatures daemon and its real HTTPS repository; the inspectors' words are written for them."""

from __future__ import annotations

import functools
import http.server
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from played_box import Inspectors, settings_of, told
from repository import Depot

from sekisho.appliance.core.settings import Settings
from sekisho.center.pki import create_ca, issue
from sekisho.signatures import compiler
from sekisho.signatures.keeper import counter


class Box:
    """A daemon, its inspectors, and the channel it asks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "depot").mkdir()
        self.depot = Depot(root / "depot")
        create_ca(root / "ca")
        made = issue(root / "ca", "updates", "server", ("localhost",))
        handler = functools.partial(_Quiet, directory=str(self.depot.tree.directory))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.cert, made.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"https://localhost:{self.server.server_address[1]}"
        self.settings: Settings = settings_of(root / "box", self.depot.trusted, url)
        self.toml = root / "box.toml"
        self.toml.write_text(
            f'box = "b"\n[signatures]\nchannel = "{url}"\nchannel_ca = "{made.ca}"\nsoak_minutes = 0.0\n'
            f'root = "{self.settings.signatures.root}"\n'
            f'[paths]\nrun = "{self.settings.paths.run}"\nstate = "{self.settings.paths.state}"\n'
        )
        compiler.ensure(self.settings)
        self.inspectors = Inspectors(self.settings)
        self._stop = threading.Event()
        self._live = threading.Thread(target=self.inspectors.live, args=(self._stop,))
        self._live.start()
        self.log = (root / "daemon.log").open("wb")
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-I", "-m", "sekisho.signatures.daemon", "--settings", str(self.toml)]
        self.daemon = subprocess.Popen(argv, stdout=self.log, stderr=self.log)
        self.wait(counter.socket_of(self.settings).exists)

    def kill(self) -> None:
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        counter.socket_of(self.settings).unlink(missing_ok=True)

    def close(self) -> None:
        self.daemon.terminate()
        self.daemon.wait(10)
        self._stop.set()
        self._live.join()
        self.server.shutdown()
        self.server.server_close()
        self.log.close()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`sekisho signatures ...`"""
        argv = [str(Path(sys.executable).with_name("sekisho")), "signatures", *words, "--settings", str(self.toml)]
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=40)

    def wait(self, seen: Callable[[], object], most_s: float = 45.0) -> None:
        until = time.monotonic() + most_s
        while not seen():
            assert time.monotonic() < until, (self.root / "daemon.log").read_text()[-3000:]
            assert self.daemon.poll() is None, (self.root / "daemon.log").read_text()[-3000:]
            time.sleep(0.02)

    def ended(self, number: int, state: str) -> bool:
        return any(
            event.state == state and number in ((event.number,) if state == "active" else (event.refused,))
            for event in told(self.settings)
        )

    def status(self) -> tuple[int, dict[str, object]]:
        done = self.run("status", "--json")
        return done.returncode, json.loads(done.stdout)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
