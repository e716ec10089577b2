"""The real daemon against a real HTTPS repository, with the real engines trying every set.

The inspectors' words are written for them; that real ones follow the link is tried in the lab (tests/updates).
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import pty
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from played_box import Inspectors, settings_of, told
from repository import Depot, content

from sekisho.appliance import cli
from sekisho.appliance.core.settings import Settings
from sekisho.center.pki import create_ca, issue
from sekisho.signatures import compiler
from sekisho.signatures.keeper import commands, counter

pytestmark = pytest.mark.timeout(120)


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


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


def test_a_published_set_comes_into_force_and_a_broken_one_does_not(box: Box) -> None:
    box.depot.publish(1)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(1, "active"))
    code, shown = box.status()
    assert (code, shown["number"], shown["proven"], shown["suricata_rules"], shown["freshness"]) == (
        0,
        1,
        True,
        31,
        "fresh",
    )

    files = content(2)
    files["rules/throwaway.rules"] += b'drop http any any -> any any (msg:"broken"; no_such_word; sid:7; rev:1;)\n'
    box.depot.publish(2, files)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(2, "refused"))
    assert "no_such_word" in next(event.detail for event in told(box.settings) if event.state == "refused")
    code, shown = box.status()
    assert (code, shown["number"]) == (0, 1), "the last good set stays"

    box.depot.publish(3)
    assert box.run("update").returncode == 0
    box.wait(lambda: box.ended(3, "active"))
    assert box.status()[1]["number"] == 3
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1, 3]

    box.inspectors.mute = True
    box.wait(lambda: box.status()[0] == 1, 20)
    assert "does not run" in box.run("status").stdout


def test_a_stick_brings_a_set_where_there_is_no_internet(box: Box) -> None:
    box.depot.publish(1)
    stick = box.root / "stick"
    shutil.copytree(box.depot.tree.directory, stick)
    box.server.shutdown()
    empty = box.run("import", str(box.root))
    assert (empty.returncode, "metadata" in empty.stderr) == (2, True)
    done = box.run("import", str(stick))
    assert done.returncode == 0, done.stderr
    box.wait(lambda: box.ended(1, "active"))
    assert box.status()[1]["number"] == 1
    assert "in force already" in box.run("import", str(stick)).stdout


def test_a_stick_waits_for_its_turn_while_another_set_is_proven(
    box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And where that takes too long, the person is told what is on its way."""
    box.depot.publish(1)
    box.run("update")
    box.wait(lambda: box.ended(1, "active"))
    box.depot.publish(2)
    box.inspectors.mute = True
    box.run("update")
    box.wait(lambda: b'"step":"proving"' in (box.settings.channel / "keeper.json").read_bytes())
    stick = box.root / "stick"
    box.depot.publish(3)
    shutil.copytree(box.depot.tree.directory, stick)
    argv = ["signatures", "import", str(stick), "--settings", str(box.toml)]
    monkeypatch.setattr(commands, "TURN_S", 0.0)
    assert cli.main(argv) == 2
    assert "Another set is on its way (proving). Try again in some minutes." in capsys.readouterr().err
    leader, follower = pty.openpty()
    sekisho = str(Path(sys.executable).with_name("sekisho"))
    waiting = subprocess.Popen([sekisho, *argv], stdout=subprocess.PIPE, stderr=follower)
    assert b"(proving). This one waits for its turn." in os.read(leader, 4096)
    box.inspectors.mute = False
    said, _ = waiting.communicate(timeout=40)
    os.close(leader)
    os.close(follower)
    assert (waiting.returncode, b"Set 3 was verified" in said) == (0, True)
    box.wait(lambda: box.ended(3, "active"))
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1, 2, 3]


def test_a_daemon_killed_again_and_again_brings_the_set_into_force_all_the_same(box: Box) -> None:
    box.depot.publish(1)
    box.run("update")
    for pause in (0.1, 0.4, 0.9):
        box.wait(lambda: box.settings.channel.joinpath("keeper.json").exists())
        time.sleep(pause)
        box.kill()
        assert compiler.current(box.settings) is not None
        box.start()
        box.run("update")
    box.wait(lambda: box.ended(1, "active"))
    assert [event.number for event in told(box.settings) if event.state == "active"] == [1]
