"""Another engine in the place of the one that works, with a real Suricata between two machines, while packets pass."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance import berth, handover
from sekisho.appliance.core.jobs import Job
from sekisho.appliance.core.settings import load
from sekisho.lab import releases
from sekisho.portal_agent.jobs.engine_desk import Engine

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

RULES = (
    'drop udp any any -> any any (msg:"canary"; content:"SK-CANARY"; sid:9000990; rev:1;)\n'
    'drop tcp any any -> any any (msg:"attack"; content:"ATTACK-BEGINS-AND-ENDS"; sid:9000991; rev:1;)\n'
)

TALK = """
import socket, threading
def echo():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    server.bind(("", 4001))
    while True:
        data, peer = server.recvfrom(2000)
        server.sendto(data, peer)
def sink(peer):
    with peer:
        while data := peer.recv(65536):
            peer.sendall(data)
threading.Thread(target=echo, daemon=True).start()
server = socket.create_server(("", 4003))
while True:
    threading.Thread(target=sink, args=(server.accept()[0],), daemon=True).start()
"""
FLY = """
import select, socket, sys, time
want = {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    sock.connect(("10.79.0.1", 4001))
    sent = got = leaked = 0
    def hear(wait):
        global got, leaked
        while select.select([sock], [], [], wait)[0]:
            data = sock.recv(2000)
            leaked += data.startswith(b"SK-CANARY")
            got += data.startswith(b"hello")
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        sock.send(b"hello %d" % sent)
        sock.send(b"SK-CANARY %d" % sent)
        sent += 1
        hear(0)
        time.sleep(0.002)
    hear(1)
    print(sent, got, leaked, flush=True)
"""
LONG = """
import socket, sys
blob = bytes(range(256)) * 256
with socket.create_connection(("10.79.0.1", 4003)) as sock:
    sock.settimeout(3)
    print("ready", flush=True)
    rounds = 0
    def turn(data):
        sock.sendall(data)
        back = b""
        while len(back) < len(data):
            back += sock.recv(65536)
        assert back == data
    while True:
        line = sys.stdin.readline().strip()
        if not line:
            break
        try:
            turn(blob if line == "turn" else line.encode())
            print("whole", flush=True)
        except (OSError, AssertionError) as err:
            print("broken", flush=True)
            break
"""


class Talk:
    """A program of the office that is spoken to in lines."""

    def __init__(self, world: Any, program: str) -> None:
        argv = ["ip", "netns", "exec", world.ns("lan"), sys.executable, "-c", program]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        world.processes.append(self.process)
        assert self.hear() == "ready"

    def say(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class Box:
    """The daemon, and what can be asked of it."""

    def __init__(self, world: Any, waiting: Callable[..., Any]) -> None:
        self.world, self.wait = world, waiting
        rules = world.directory / "rules"
        rules.mkdir()
        (rules / "canary.rules").write_text(RULES)
        self.file = world.settings(f'[signatures]\nrules_dir = "{rules}"')
        self.settings = load(self.file)
        self.python = Path(sys.executable)
        world.start("wan", sys.executable, "-c", TALK)
        self.start()

    def start(self) -> None:
        daemon = (str(self.python), "-I", "-m", "sekisho.appliance.daemon", "--settings", str(self.file))
        self.process = self.world.start("box", *daemon, log="daemon.log")
        self.wait(lambda: self.running() and self.status()["pid"] == self.process.pid, 60, "the engine running")

    def status(self) -> dict[str, Any]:
        path = self.world.directory / "run" / "appliance" / "status.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def engine(self) -> dict[str, Any]:
        return dict(self.status()["engine"])

    def running(self) -> bool:
        status = self.status()
        return bool(status) and status["engine"]["phase"] == "running" and not status["engine_bypass"]["reason"]

    def engines(self) -> list[int]:
        """Every engine of this box that lives, by its command line."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, IndexError, ValueError):
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if any(os.fsencode(each.pid_file) in command for each in berth.both(self.settings)):
                    found.append(int(entry.name))
        return found

    def renew(self, *more: str) -> dict[str, Any]:
        return dict(json.loads(self.world.box("renew", self.file, "--json", *more).stdout))

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.world.directory / "state" / "journal" / "appliance.jsonl"
        return [e for e in map(json.loads, path.read_text().splitlines()) if e["type"] == kind]

    def bypasses(self) -> int:
        """Words about the engine's absence so far."""
        return sum(event.get("part", "engine") == "engine" for event in self.events("bypass"))

    def details(self) -> list[str]:
        return [event.get("detail", "") for event in self.events("health")]

    def states(self) -> list[str]:
        return [event["state"] for event in self.events("health") if event["part"] == "engine"]

    def flown(self, fly: Talk) -> tuple[int, int, int]:
        """Sent, arrived of those that must, arrived of those that must not."""
        sent, got, leaked = fly.say("end").split()
        return int(sent), int(got), int(leaked)


class Other:
    """The box's daemon runs from another release inside a `with` block, and as before afterwards."""

    def __init__(
        self, box: Box, root: Path, engine: str | Path, changed: dict[str, tuple[str, str]] | None = None
    ) -> None:
        self.box, self.python = box, box.python
        self.release = releases.make(root, "7-0123456789ab", engine=engine)
        for name, (old, new) in (changed or {}).items():
            path = releases.module(self.release, f"sekisho.appliance.{name}")
            text = path.read_text()
            assert text.count(old) == 1, name
            path.write_text(text.replace(old, new))

    def __enter__(self) -> Path:
        link = self.release.parent / "venv"
        link.symlink_to(self.release / "venv")
        self.restart(link / "bin" / "python")
        return self.release

    def __exit__(self, *_: object) -> None:
        self.restart(self.python)

    def restart(self, python: Path) -> None:
        handover.ask(self.box.settings)
        self.box.process.terminate()
        self.box.process.wait(30)
        self.box.python = python
        self.box.start()


@pytest.fixture(scope="module")
def box(new_world: Callable[[], Any], waiting: Callable[..., Any]) -> Iterator[Box]:
    yield Box(new_world(), waiting)


def test_engines_take_turns_and_no_packet_is_lost_or_passes_unseen(box: Box) -> None:
    fly, long = Talk(box.world, FLY), Talk(box.world, LONG)
    bypasses, began = box.bypasses(), box.engine()
    for _ in range(3):
        assert long.say("turn") == "whole"
        before = box.engines()
        done = box.renew()
        assert done["ok"] and done["engine"]["pid"] not in before
        assert long.say("turn") == "whole", "a connection that the new engine did not see begin"
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0) and sent > 300
    assert box.bypasses() == bypasses
    box.wait(lambda: box.engines() == [box.engine()["pid"]], what="one engine alone")
    now = box.engine()
    assert now["starts"] == began["starts"] and now["renewals"] == began["renewals"] + 3
    assert box.states()[-3:] == ["renewed"] * 3


def test_a_job_has_the_engine_replaced_once_however_often_it_is_asked_while_packets_pass(box: Box) -> None:
    """By way of the daemon's own counter: docs/jobs.md, `engine.restart`."""
    desk = Engine(box.settings)
    job = Job(id="01JD3Z9V7M2Q4W8X6Y00000001", boxes=["b"], kind="engine.restart", nbf=0, exp=1)
    fly, began = Talk(box.world, FLY), box.engine()
    mark = desk.prepare(job)
    assert mark.split()[1] == str(began["pid"])
    box.wait(lambda: desk.begin(job, mark).state == "SUCCEEDED", 60, "another engine")
    for _ in range(5):
        assert desk.begin(job, mark).state == "SUCCEEDED"
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0) and sent > 100
    assert box.engine()["renewals"] == began["renewals"] + 1 and box.engine()["pid"] != began["pid"]


@pytest.mark.full
def test_an_attack_that_spans_packets_of_both_engines_is_stopped_only_where_it_begins_anew(box: Box) -> None:
    """The truth about connections under way: what the old engine had of a stream is gone with it."""
    whole, split = Talk(box.world, LONG), Talk(box.world, LONG)
    assert whole.say("turn") == split.say("turn") == "whole"
    assert split.say("ATTACK-BEGINS") == "whole"
    assert box.renew()["ok"]
    assert whole.say("ATTACK-BEGINS-AND-ENDS") == "broken", "met in the middle, and stopped"
    assert split.say("-AND-ENDS") == "whole", "docs/firmware-switch.md says so"


@pytest.mark.full
def test_an_engine_with_a_command_socket_of_its_own_is_asked_through_the_same_name(box: Box) -> None:
    for _ in range(2):
        assert box.renew()["ok"]
        asked = box.world.run("box", "suricatasc", "-c", "uptime", str(box.settings.control_socket))
        assert '"return": "OK"' in asked.stdout
        (listening,) = [each.socket for each in berth.both(box.settings) if each.name == berth.led(box.settings)]
        assert stat.S_ISSOCK(listening.stat().st_mode)


def test_an_engine_that_does_not_start_changes_nothing_and_the_reason_is_said(box: Box, tmp_path: Path) -> None:
    with Other(box, tmp_path, "#!/bin/sh\necho no such library >&2\nexit 127\n"):
        before, fly = box.engine(), Talk(box.world, FLY)
        box.wait(lambda: box.engine()["renewals"], 30, "the renewal's end")
        assert "no such library" in box.engine()["renewal"]
        assert "no such library" in box.renew()["engine"]["renewal"]
        assert box.engine()["pid"] == before["pid"] and box.engines() == [before["pid"]]
        sent, got, leaked = box.flown(fly)
        assert (sent - got, leaked) == (0, 0) and sent > 20
        assert "renew_refused" in box.states()
        os.kill(before["pid"], signal.SIGKILL)
        box.wait(lambda: box.running() and box.engine()["pid"] != before["pid"], 30, "an engine again")
        assert box.engine()["binary"] == before["binary"], "the program that failed is not tried for ever"
        box.wait(lambda: any(f"{before['binary']} is used again" in told for told in box.details()), 10, "its word")


def test_an_engine_that_hangs_over_a_load_is_renewed_beside_and_no_packet_is_lost(
    box: Box, hang: Callable[[berth.Berth], None]
) -> None:
    fly, before, bypasses = Talk(box.world, FLY), box.engine(), box.bypasses()
    (place,) = [each for each in berth.both(box.settings) if each.name == berth.led(box.settings)]
    hang(place)
    box.wait(lambda: box.engine()["pid"] != before["pid"] and not box.engine()["renewing"], 30, "another engine")
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0) and sent > 100
    assert box.engine()["starts"] == before["starts"]
    box.wait(lambda: box.states()[-2:] == ["hangs", "renewed"], what="its words")
    assert box.bypasses() == bypasses


@pytest.mark.full
def test_an_engine_found_hanging_by_another_daemon_goes_on_until_it_is_renewed(
    box: Box, hang: Callable[[berth.Berth], None]
) -> None:
    fly, before, bypasses = Talk(box.world, FLY), box.engine(), box.bypasses()
    (place,) = [each for each in berth.both(box.settings) if each.name == berth.led(box.settings)]
    hang(place)
    box.process.kill()
    box.process.wait(30)
    box.start()
    box.wait(lambda: box.engine()["pid"] != before["pid"] and not box.engine()["renewing"], 60, "another engine")
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0) and sent > 100
    assert box.engine()["starts"] == 0 and box.bypasses() == bypasses


@pytest.mark.full
def test_an_engine_that_passes_what_it_must_stop_is_not_taken(box: Box, tmp_path: Path) -> None:
    """It answers and counts its rules, and its queues belong to nobody."""
    deaf = '#!/bin/sh\nset -- $(echo "$@" | sed "s/ -q [0-9]*//g")\nexec suricata "$@" -q 40\n'
    with Other(box, tmp_path, deaf):
        before = box.engine()
        box.wait(lambda: box.engine()["renewals"], 60, "the renewal's end")
        assert "canary missed" in box.engine()["renewal"]
        assert box.engine()["pid"] == before["pid"] and box.engines() == [before["pid"]]


def test_another_release_brings_its_engine_and_the_former_one_brings_its_own_back(box: Box, tmp_path: Path) -> None:
    real = Path(str(shutil.which("suricata"))).resolve()
    fly, before = Talk(box.world, FLY), box.engine()["pid"]
    with Other(box, tmp_path, real) as release:
        box.wait(lambda: box.engine()["renewals"] and not box.engine()["renewing"], 60, "the renewal's end")
        assert box.engine()["binary"] == str(release / "engine" / "bin" / "suricata")
        assert box.engine()["pid"] != before
    box.wait(lambda: box.engine()["binary"] == str(real) and box.engine()["renewals"], 60, "the way back")
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0), "and the daemon was restarted twice meanwhile"


@pytest.mark.full
def test_where_there_is_no_memory_for_two_engines_it_is_not_tried_unless_a_restart_is_asked_for(
    box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scarce = tmp_path / "meminfo"
    scarce.write_text("MemTotal: 2000000 kB\nMemAvailable: 3000 kB\n")
    with Other(box, tmp_path, "", {"renewal": ('Path("/proc/meminfo")', f'Path("{scarce}")')}):
        before = box.engine()
        done = box.renew()
        assert not done["ok"] and "2 MB are free" in done["engine"]["renewal"]
        assert box.engine()["pid"] == before["pid"]
        done = box.renew("--restart")
        assert "restarted instead" in done["engine"]["renewal"]
        box.wait(lambda: box.running() and box.engine()["pid"] != before["pid"], 30, "another engine")
        bypass = [event for event in box.events("bypass") if event.get("part", "engine") == "engine"]
        assert bypass[-1]["reason"] == "absent", "what was not inspected is accounted for"


_DIE = "__import__('os').kill(__import__('os').getpid(), 9)"
DEATHS = {
    "make_room": ("renewal", "        lead.make_room()"),
    "launch": ("renewal", "        new.launch("),
    "answers": ("renewal", "        if not new.answers"),
    "prove": ("renewal", "        proof = new.prover"),
    "move": ("renewal", "        lead.move("),
    "lead_commands": ("engine", "        self._is_engine(new)"),
    "moved": ("engine", "        self._rules.moved("),
    "retire": ("engine", "            renewal.retire(old)"),
}
"""What a renewal does, one after the other; the daemon dies just before each."""


@pytest.mark.parametrize(
    "step",
    [pytest.param(step, marks=[] if step == "lead_commands" else pytest.mark.full) for step in DEATHS],
)
def test_a_daemon_killed_at_any_step_leaves_one_engine_that_inspects(box: Box, tmp_path: Path, step: str) -> None:
    module, line = DEATHS[step]
    dies = f"{line[: len(line) - len(line.lstrip())]}{_DIE}\n{line}"
    with Other(box, tmp_path, "", {module: (line, dies)}):
        fly = Talk(box.world, FLY)
        os.kill(box.process.pid, signal.SIGUSR1)
        box.process.wait(60)
        assert box.process.returncode == -signal.SIGKILL
    box.wait(lambda: box.engines() == [box.engine()["pid"]], 30, "one engine alone")
    sent, got, leaked = box.flown(fly)
    assert (sent - got, leaked) == (0, 0) and sent > 20
    assert box.renew()["ok"]
