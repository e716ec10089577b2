"""The daemon with a real Suricata between two machines: dead, hung, adopted, reloaded, refused."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

CANARY = 'drop udp any any -> any any (msg:"canary"; content:"SK-CANARY"; sid:9000990; rev:1;)\n'
SECOND = 'alert udp any any -> any any (msg:"second"; content:"SK-SECOND"; sid:9000991; rev:1;)\n'

ECHO = """
import socket
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", 4001))
while True:
    data, peer = server.recvfrom(2000)
    server.sendto(data, peer)
"""
ASK = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.settimeout(float(sys.argv[3]))
    sock.sendto(sys.argv[2].encode(), (sys.argv[1], 4001))
    try:
        print(sock.recv(2000).decode())
    except TimeoutError:
        print("nothing")
"""


class Box:
    """A running daemon and what can be asked of it."""

    def __init__(self, world: Any, waiting: Callable[..., Any], **inspection: object) -> None:
        self.world, self.wait = world, waiting
        self.rules = world.directory / "rules"
        self.rules.mkdir()
        (self.rules / "canary.rules").write_text(CANARY)
        self.settings = world.settings(f'[signatures]\nrules_dir = "{self.rules}"', **inspection)
        world.start("wan", sys.executable, "-c", ECHO)
        self.start()

    def start(self) -> None:
        daemon = (sys.executable, "-I", "-m", "sekisho.appliance.daemon", "--settings", str(self.settings))
        self.process = self.world.start("box", *daemon, log="daemon.log")
        self.wait(lambda: self.running() and self.status()["pid"] == self.process.pid, 60, "the engine running")

    def status(self) -> dict[str, Any]:
        path = self.world.directory / "run" / "appliance" / "status.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def running(self) -> bool:
        status = self.status()
        return bool(status) and status["engine"]["phase"] == "running" and not status["engine_bypass"]["reason"]

    @property
    def engine_pid(self) -> int:
        return int((self.world.directory / "run" / "suricata" / "suricata.pid").read_text())

    def ask(self, text: str, address: str = "10.79.0.1", wait_s: float = 0.4) -> str:
        return str(self.world.run("lan", sys.executable, "-c", ASK, address, text, str(wait_s)).stdout.strip())

    def inspects(self) -> bool:
        return self.ask("SK-CANARY") == "nothing" and self.ask("hello", wait_s=2) == "hello"

    def events(self, kind: str) -> list[dict[str, Any]]:
        path = self.world.directory / "state" / "journal" / "appliance.jsonl"
        return [e for e in map(json.loads, path.read_text().splitlines()) if e["type"] == kind]

    def log(self) -> str:
        return str((self.world.directory / "daemon.log").read_text())


def ended(pid: int) -> bool:
    """Gone, or a zombie whose adoptive parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def box(new_world: Callable[[], Any], waiting: Callable[..., Any]) -> Iterator[Box]:
    yield Box(new_world(), waiting)


def test_a_drop_rule_drops_in_both_families_and_the_rest_passes(box: Box) -> None:
    for address in ("10.79.0.1", "fd79::1"):
        assert box.ask("hello", address, 2) == "hello"
        assert box.ask("SK-CANARY", address) == "nothing"


def test_the_daemon_is_small(box: Box) -> None:
    memory = Path(f"/proc/{box.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", memory)
    assert found is not None and int(found[1]) < 60 * 1024


SNIFF = """
from scapy.all import AsyncSniffer
import sys, time
seen = set()
def note(packet):
    data = bytes(packet)
    for name in (b"plain", b"vlan6", b"vlan", b"pppoe"):
        if name + b"SK-" in data:
            seen.add((name + data.split(name)[1][:9]).decode())
            break
sniffer = AsyncSniffer(iface="eth0", prn=note, store=False, started_callback=lambda: print("ready", flush=True))
sniffer.start()
sys.stdin.readline()
sniffer.stop()
print(" ".join(sorted(seen)), flush=True)
"""
SEND = """
from scapy.all import Dot1Q, Ether, IP, IPv6, PPP, PPPoE, UDP, Raw, sendp
head = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
four, six = IP(src="10.79.0.10", dst="10.79.0.1"), IPv6(src="fd79::10", dst="fd79::1")
for port, word in enumerate((b"SK-HELLO1", b"SK-CANARY", b"SK-HELLO2")):
    udp = UDP(sport=5000 + port, dport=4002)
    for packet in (
        head / four / udp / Raw(b"plain" + word),
        head / Dot1Q(vlan=7) / four / udp / Raw(b"vlan" + word),
        head / Dot1Q(vlan=7) / six / udp / Raw(b"vlan6" + word),
        head / PPPoE(sessionid=5) / PPP(proto=0x21) / four / udp / Raw(b"pppoe" + word),
    ):
        sendp(packet, iface="eth0", verbose=False)
"""


def test_tagged_traffic_passes_and_what_a_rule_drops_does_not(box: Box) -> None:
    import subprocess

    with subprocess.Popen(
        ["ip", "netns", "exec", box.world.ns("wan"), sys.executable, "-c", SNIFF],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as sniffer:  # fmt: skip
        assert sniffer.stdin is not None and sniffer.stdout is not None
        assert sniffer.stdout.readline() == "ready\n"
        box.world.run("lan", sys.executable, "-c", SEND, timeout=60)
        assert box.ask("hello", wait_s=2) == "hello"  # behind the frames in the same queues
        sniffer.stdin.write("\n")
        sniffer.stdin.flush()
        arrived = sniffer.stdout.readline().split()
    expected = {f"{kind}SK-HELLO{n}" for kind in ("plain", "vlan", "vlan6", "pppoe") for n in (1, 2)}
    assert set(arrived) == expected


def test_a_killed_engine_is_back_and_the_time_is_counted(box: Box) -> None:
    pid = box.engine_pid
    began = len(box.events("bypass"))
    os.kill(pid, signal.SIGKILL)
    assert box.ask("hello", wait_s=2) == "hello", "the kernel passes at once"
    box.wait(lambda: box.running() and box.status()["engine"]["pid"] != pid, 15, "another engine")
    assert box.inspects()
    events = [e for e in box.events("bypass")[began:] if e.get("part", "engine") == "engine"]
    assert [(e.get("state", "began"), e["reason"]) for e in events] == [("began", "absent"), ("ended", "absent")]
    assert 0 < events[1]["seconds"] < 10


def test_an_engine_told_to_end_by_somebody_else_is_back_too(box: Box) -> None:
    pid = box.engine_pid
    os.kill(pid, signal.SIGTERM)
    box.wait(lambda: box.running() and box.status()["engine"]["pid"] != pid, 20, "another engine")
    assert box.inspects()


def test_a_stopped_engine_is_led_around_within_a_second_and_inspects_again_within_a_second(box: Box) -> None:
    os.kill(box.engine_pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        ping = box.world.run("lan", "ping", "-c", "12", "-i", "0.1", "-W", "1", "-D", "10.79.0.1", check=False).stdout
        assert time.monotonic() - start < 4
        answered = [int(n) for n in re.findall(r"icmp_seq=(\d+) ttl", ping)]
        assert answered and set(range(11, 13)) <= set(answered), "answered from the tenth tenth of a second on"
        assert box.ask("SK-CANARY", wait_s=2) == "SK-CANARY", "led around, so not inspected"
    finally:
        os.kill(box.engine_pid, signal.SIGCONT)
    went_on = began = time.monotonic()
    while box.ask("SK-CANARY", wait_s=0.2) != "nothing":
        assert began - went_on < 1.0, "what began a second later was not inspected"
        began = time.monotonic()
    assert box.inspects()
    box.wait(lambda: [box.events("bypass")[-1][name] for name in ("reason", "state")] == ["hung", "ended"])


def test_a_killed_daemon_leaves_the_engine_inspecting_and_its_successor_adopts_it(box: Box) -> None:
    engine = box.engine_pid
    total = box.status()["engine_bypass"]["total"]
    box.process.kill()
    box.process.wait()
    assert box.inspects()
    box.start()
    assert box.engine_pid == engine
    states = [event["state"] for event in box.events("health") if event["part"] == "engine"]
    assert states[-1] == "adopted"
    assert box.status()["engine_bypass"]["total"] >= total
    assert box.inspects()


def test_a_live_reload_loads_the_new_rule_and_loses_no_packet(box: Box) -> None:
    loaded = box.status()["engine"]["rules_loaded"]
    engine = box.engine_pid
    (box.rules / "second.rules").write_text(SECOND)
    pinger = box.world.start("lan", "ping", "-c", "300", "-i", "0.01", "-q", "10.79.0.1", log="ping.log")
    done = box.world.box("reload", box.settings, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["engine"]["rules_loaded"] == loaded + 1
    assert box.engine_pid == engine
    pinger.wait(20)
    assert " 0% packet loss" in (box.world.directory / "ping.log").read_text()
    assert box.inspects()


def test_a_broken_rule_file_keeps_the_set_in_force(box: Box) -> None:
    loaded = box.status()["engine"]["rules_loaded"]
    broken = box.rules / "broken.rules"
    broken.write_text('drop tcp any any -> any any (msg:"broken"; content:; sid:9000992;)\n')
    try:
        done = box.world.box("reload", box.settings, "--json")
        assert done.returncode == 1
        assert "9000992" in done.stdout or "broken.rules" in done.stdout
        assert box.status()["engine"]["rules_loaded"] == loaded
        assert box.inspects()
        states = [event["state"] for event in box.events("health") if event["part"] == "engine"]
        assert "rules_refused" in states[-2:]
    finally:
        broken.unlink()


def test_a_large_log_is_set_aside_for_its_reader_and_never_overwrites_an_unread_one(box: Box) -> None:
    eve = box.world.directory / "run" / "eve" / "eve.json"
    aside = eve.with_name("eve.json.1")
    for number in range(2):
        with eve.open("ab") as out:
            out.write(b"\n" * (33 << 20))
        if number == 0:
            box.wait(aside.exists, what="the large log set aside")
            assert aside.stat().st_size >= 33 << 20
            first = aside.stat().st_ino
            box.ask("SK-CANARY")
            box.wait(lambda: eve.exists() and b"9000990" in eve.read_bytes(), what="a new log that is written to")
    looks = box.status()["at_mono"]
    box.wait(lambda: box.status()["at_mono"] > looks + 1, what="some looks of the engine's thread")
    assert aside.stat().st_ino == first, "the reader has not had it yet"


def test_rules_swept_away_by_another_program_are_put_back_and_that_is_said(box: Box) -> None:

    def mended() -> int:
        return [event["state"] for event in box.events("health")].count("mended")

    for _ in range(2):  # the daemon's look may come between the sweep and the question, the next one ten seconds later
        before = mended()
        box.world.run("box", "iptables", "-t", "mangle", "-F")
        box.world.run("box", "sysctl", "-w", "net.bridge.bridge-nf-call-ip6tables=0")
        if box.ask("SK-CANARY", wait_s=2) == "SK-CANARY":
            break
    else:
        pytest.fail("it is inspected without rules")
    box.wait(lambda: mended() > before, 15, "the rules put back")
    for address in ("10.79.0.1", "fd79::1"):
        assert box.ask("SK-CANARY", address) == "nothing"


def test_status_says_what_is_not_inspected(box: Box) -> None:
    done = box.world.box("status", box.settings, "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == 1, "no gate runs here"
    assert facts["bypass_now"] == {"engine": "", "gate": "absent"} and facts["bypass_seconds"]["gate"] > 0
    assert facts["engine"]["rules_loaded"] == facts["engine"]["rules_expected"]
    assert box.world.box("down", box.settings).returncode == 2, "not under a running daemon"


def test_when_the_daemon_ends_traffic_goes_on_and_down_restores(box: Box) -> None:
    engine = box.engine_pid
    box.process.terminate()
    assert box.process.wait(20) == 0
    assert ended(engine)
    assert box.ask("hello", wait_s=2) == "hello"
    assert box.world.box("status", box.settings).returncode == 1
    assert box.world.box("down", box.settings).returncode == 0
    assert "br0" not in box.world.run("box", "ip", "-br", "link").stdout


def test_fail_closed_is_honoured_while_the_engine_hangs(
    new_world: Callable[[], Any], waiting: Callable[..., Any]
) -> None:
    box = Box(new_world(), waiting, fail_mode="closed")
    assert box.inspects()
    os.kill(box.engine_pid, signal.SIGSTOP)
    box.wait(lambda: box.ask("hello", wait_s=0.3) == "nothing", what="traffic stopped")
    box.wait(lambda: box.events("bypass")[-1]["reason"] == "stopped_hung")
    assert box.ask("hello", wait_s=1) == "nothing"
    os.kill(box.engine_pid, signal.SIGCONT)
    box.wait(lambda: box.ask("hello", wait_s=0.5) == "hello", what="traffic again")
    os.kill(box.engine_pid, signal.SIGKILL)
    box.wait(box.inspects, what="another engine")


def test_detect_mode_reports_what_it_does_not_stop(new_world: Callable[[], Any], waiting: Callable[..., Any]) -> None:
    box = Box(new_world(), waiting, mode="detect")
    assert box.ask("SK-CANARY", wait_s=2) == "SK-CANARY"
    eve = box.world.directory / "run" / "eve" / "eve.json"
    box.wait(lambda: '"signature_id":9000990' in eve.read_text(), what="the alert")
    assert '"action":"allowed"' in eve.read_text()
