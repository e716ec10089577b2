"""Packet rules and isolation on a real kernel, in namespaces: what they cut hears it at once, others notice nothing."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from sekisho.policy.model import Devices, Netfilter, PacketRule, Service

pytestmark = pytest.mark.lab

SERVERS = {"4": "10.79.0.1", "6": "fd79::1"}
LAN_MAC = "02:00:00:00:00:0a"
EVERYONE = Devices(everyone=True)
THIS = Devices(macs=(LAN_MAC.upper(),))
OTHER = Devices(macs=("02:00:00:00:00:0b",))
APPLY = """
import sys, msgspec
from sekisho.appliance import firewall
from sekisho.policy.model import Netfilter
firewall.apply(msgspec.json.decode(sys.argv[1], type=Netfilter))
"""
CALL = "import json; from sekisho.appliance import firewall, isolation; print(json.dumps({}))"
DAEMON = """
import sys, threading, msgspec
from sekisho.appliance.packetnews import Reader
from sekisho.appliance.refusal import Responder
from sekisho.policy.model import Netfilter
from sekisho.telemetry import events
reader = Reader("eth-lan", lambda event: print(events.encode(event).decode(), flush=True))
reader.news.rules(msgspec.json.decode(sys.argv[1], type=Netfilter))
stop = threading.Event()
threading.Thread(target=Responder().run, args=(stop,), daemon=True).start()
reader.run(stop)
"""
SERVE = """
import socket, selectors
chooser = selectors.DefaultSelector()
for family, any_ in ((socket.AF_INET, "10.79.0.1"), (socket.AF_INET6, "fd79::1")):
    for port in (8080, 8081):
        chooser.register(socket.create_server((any_, port), family=family), selectors.EVENT_READ, "tcp")
    udp = socket.socket(family, socket.SOCK_DGRAM); udp.bind((any_, 5000))
    chooser.register(udp, selectors.EVENT_READ, "udp")
print("ready", flush=True)
while True:
    for key, _ in chooser.select():
        if key.data == "tcp":
            chooser.register(key.fileobj.accept()[0], selectors.EVENT_READ, "peer")
        elif key.data == "udp":
            data, peer = key.fileobj.recvfrom(2000)
            key.fileobj.sendto(data, peer)
        else:
            try: data = key.fileobj.recv(2000)
            except OSError as err:
                print(type(err).__name__, flush=True); data = b""
            if data: key.fileobj.sendall(data)
            else:
                chooser.unregister(key.fileobj); key.fileobj.close()
"""
TRY = """
import socket, sys, time
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
began = time.monotonic()
with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as peer:
    peer.settimeout(5)
    try:
        peer.connect((address, port)); peer.send(b"hello")
        said = peer.recv(100).decode()
    except OSError as err: said = type(err).__name__
print(said if time.monotonic() - began < 1 else f"{said}, late")
"""
HOLD = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 8080), timeout=10)
count = 0
try:
    while True:
        peer.sendall(b"x"); assert peer.recv(10); count += 1
        if count == 10: print("talking", flush=True)
        time.sleep(0.01)
except OSError as err: print(type(err).__name__, flush=True)
"""


def rule(name: str, action: Any, devices: Devices = EVERYONE, **more: Any) -> PacketRule:
    function = more.pop("function", "firewall")
    return PacketRule(f"{function}-{name}", function, name, action, devices, **more)


class Wall:
    """A box whose rules can be changed, and what a client behind it finds."""

    def __init__(self, world: Any, waiting: Callable[..., Any]) -> None:
        self.world, self.wait = world, waiting
        world.run("lan", "ip", "link", "set", "eth0", "address", LAN_MAC)
        world.run("lan", "ip", "addr", "replace", "fd79::10/64", "dev", "eth0", "nodad")
        assert world.box("up", world.settings()).returncode == 0
        world.start("wan", sys.executable, "-c", SERVE, log="server.log")
        waiting(lambda: "ready" in self.log("server.log"))
        self.daemon: Any = None

    def log(self, name: str) -> str:
        path = self.world.directory / name
        return str(path.read_text()) if path.exists() else ""

    def apply(self, *rules: PacketRule) -> None:
        text = msgspec.json.encode(Netfilter(rules)).decode()
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait()
        self.daemon = self.world.start("box", sys.executable, "-I", "-c", DAEMON, text, log="news.log")
        self.wait(lambda: {"65", "66"} <= set(self._groups()))
        self.world.run("box", sys.executable, "-I", "-c", APPLY, text)

    def _groups(self) -> list[str]:
        table = self.world.run("box", "cat", "/proc/net/netfilter/nfnetlink_log").stdout
        return [line.split()[0] for line in table.splitlines() if line.split()[1] != "0"]

    def call(self, what: str) -> Any:
        return json.loads(self.world.run("box", sys.executable, "-I", "-c", CALL.format(what)).stdout)

    def reaches(self, kind: str, address: str, port: int) -> str:
        return str(self.world.run("lan", sys.executable, "-c", TRY, kind, address, str(port)).stdout.strip())

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log("news.log").splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def wall(new_world: Callable[[], Any], waiting: Callable[..., Any]) -> Iterator[Wall]:
    made = Wall(new_world(), waiting)
    yield made


@pytest.mark.parametrize("family", SERVERS)
@pytest.mark.parametrize("devices", [THIS, EVERYONE, Devices(networks=("10.79.0.8/29", "fd79::/64"))])
def test_a_blocked_service_is_refused_at_once_and_the_others_are_reached(
    wall: Wall, family: str, devices: Devices
) -> None:
    services = (Service("tcp", 8080, 8080), Service("udp", 4000, 6000))
    wall.apply(rule("no", "block", devices, services=services, remote=("10.79.0.0/30", "fd79::1/128")))
    server = SERVERS[family]
    assert wall.reaches("tcp", server, 8080) == "ConnectionRefusedError"
    assert wall.reaches("udp", server, 5000) == "ConnectionRefusedError"
    assert wall.reaches("tcp", server, 8081) == "hello"


def test_what_a_rule_is_not_about_is_left_alone(wall: Wall) -> None:
    wall.apply(
        rule("other-device", "block", OTHER),
        rule("nobody", "block", Devices()),
        rule("other-side", "block", THIS, direction="in"),
        rule("elsewhere", "block", THIS, remote=("203.0.113.0/24",)),
        rule("other-proto", "block", THIS, services=(Service("icmp"),)),
    )
    for server in SERVERS.values():
        assert (wall.reaches("tcp", server, 8080), wall.reaches("udp", server, 5000)) == ("hello", "hello")
    assert wall.world.run("lan", "ping", "-c1", "-W1", SERVERS["4"], check=False).returncode == 1
    assert wall.world.run("wan", "ping", "-c1", "-W1", "10.79.0.10", check=False).returncode == 1, "direction in"


def test_the_first_rule_of_a_function_decides_and_an_allowance_of_one_is_none_of_another(wall: Wall) -> None:
    allow = rule("but", "allow", THIS, services=(Service("tcp", 8080, 8080),), exception="x1")
    wall.apply(allow, rule("all", "block", THIS, services=(Service("tcp"),)))
    assert wall.reaches("tcp", SERVERS["4"], 8080) == "hello"
    assert wall.reaches("tcp", SERVERS["4"], 8081) == "ConnectionRefusedError"
    guard = rule("list", "block", THIS, function="web_guard", remote=("10.79.0.1/32",), direction="any")
    wall.apply(allow, guard)
    assert wall.reaches("tcp", SERVERS["4"], 8080) == "ConnectionRefusedError"
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "hello"


def test_every_attempt_is_counted_and_told_once_with_its_device(wall: Wall) -> None:
    wall.apply(
        rule("seen", "log", services=(Service("tcp", 8081, 8081),)), rule("shut", "block", remote=("fd79::1/128",))
    )
    before = len(wall.events())
    for _ in range(3):
        assert wall.reaches("tcp", SERVERS["4"], 8081) == "hello"
        assert wall.reaches("tcp", SERVERS["6"], 8080) == "ConnectionRefusedError"
    assert wall.call("firewall.hits()") == {"0": 3, "1": 3}
    wall.wait(lambda: len(wall.events()) >= before + 2, what="the events")
    told = sorted(wall.events()[before:], key=lambda event: str(event["policy"]))
    assert [(e["policy"], e.get("action", "allowed"), e["function"]) for e in told] == [
        ("seen", "allowed", "firewall"),
        ("shut", "blocked", "firewall"),
    ]
    assert told[1]["flow"] | {"src_port": 0} == {
        "src_ip": "fd79::10", "src_port": 0, "dst_ip": "fd79::1", "dst_port": 8080, "proto": "TCP", "mac": LAN_MAC,
    }  # fmt: skip


def test_a_new_rule_ends_what_it_forbids_and_loses_nothing_else(wall: Wall) -> None:
    wall.apply()
    wall.world.start("lan", sys.executable, "-c", HOLD, SERVERS["4"], log="held.log")
    wall.world.start("lan", sys.executable, "-c", HOLD, SERVERS["6"], log="kept.log")
    wall.wait(lambda: "talking" in wall.log("held.log") and "talking" in wall.log("kept.log"))
    ended = wall.log("server.log").count("ConnectionResetError")
    ping = wall.world.start("lan", "ping", "-i", "0.002", "-c", "1500", "-q", SERVERS["6"], log="ping.log")
    wall.apply(rule("now", "block", THIS, services=(Service("tcp", 8080, 8080),), remote=("10.79.0.1/32",)))
    wall.wait(lambda: "ConnectionResetError" in wall.log("held.log"), timeout_s=3, what="the client's end")
    wall.wait(lambda: wall.log("server.log").count("ConnectionResetError") > ended, what="the server's end")
    for _ in range(5):
        wall.apply(rule("now", "block", THIS, services=(Service("tcp", 8080, 8080),), remote=("10.79.0.1/32",)))
    ping.wait(60)
    assert "1500 received" in wall.log("ping.log"), wall.log("ping.log")
    assert "Error" not in wall.log("kept.log")


ARP = """
import sys
from scapy.all import ARP, Ether, srp1
asked = ARP(hwsrc=sys.argv[1], psrc="10.79.0.77", pdst="10.79.0.1")
told = srp1(Ether(src=sys.argv[1], dst="ff:ff:ff:ff:ff:ff") / asked, iface="eth0", timeout=1, verbose=False)
print("answered" if told is not None else "silent")
"""


def test_an_isolated_device_reaches_only_what_is_excepted_and_others_everything(wall: Wall) -> None:
    cell = rule("cell", "block", Devices(macs=(LAN_MAC, *OTHER.macs)), function="isolation", direction="any")
    bolt = rule("update", "allow", THIS, function="isolation", direction="any", remote=("10.79.0.1/32",))
    wall.apply(bolt, cell)
    assert wall.reaches("tcp", SERVERS["4"], 8080) == "hello", "the update server"
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "ConnectionRefusedError"
    assert wall.reaches("udp", SERVERS["6"], 5000) == "ConnectionRefusedError"
    for mac, said in ((LAN_MAC, "answered"), (OTHER.macs[0], "silent"), ("02:00:00:00:00:0c", "answered")):
        assert wall.world.run("lan", sys.executable, "-c", ARP, mac).stdout.strip() == said, mac
    wall.apply(rule("cell", "block", OTHER, function="isolation", direction="any"))
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "hello"


def test_a_device_is_cut_off_at_once_and_for_a_time_over_a_new_policy(wall: Wall) -> None:
    wall.apply()
    wall.world.start("lan", sys.executable, "-c", HOLD, SERVERS["4"], log="cell.log")
    wall.wait(lambda: "talking" in wall.log("cell.log"))
    told = len(wall.events())
    began = time.monotonic()
    wall.call(f"isolation.isolate('{LAN_MAC}', isolation.FOREVER)")
    wall.call(f"isolation.isolate('{LAN_MAC}', 8)")
    wall.wait(lambda: "ConnectionResetError" in wall.log("cell.log"), timeout_s=2, what="the end of what was open")
    wall.apply(rule("unrelated", "log", services=(Service("icmp"),)))
    for server in SERVERS.values():
        assert wall.reaches("tcp", server, 8080) == "ConnectionRefusedError"
    wall.wait(lambda: wall.reaches("tcp", SERVERS["4"], 8080) == "hello", 15, "the end of the isolation")
    assert time.monotonic() - began > 7.5
    event = wall.events()[told]
    assert (event["function"], event["policy"], event["action"]) == ("isolation", "now", "blocked")
    assert event["flow"]["mac"] == LAN_MAC


def test_an_owner_cuts_a_device_off_and_lets_it_back(wall: Wall) -> None:
    wall.apply()
    settings = wall.world.settings()
    assert wall.world.box("isolate", settings, LAN_MAC.upper()).returncode == 0
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "ConnectionRefusedError"
    assert wall.world.box("release", settings, LAN_MAC).returncode == 0
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "hello"
    assert wall.world.box("release", settings, LAN_MAC).returncode == 3, "it is not isolated"
    assert wall.world.box("isolate", settings, "me").returncode == 2


def test_a_hundred_thousand_listed_addresses_load_and_refuse(wall: Wall) -> None:
    listed = tuple(f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}/32" for n in range(0, 200_000, 2))
    path = wall.world.directory / "many.json"
    rules = (rule("list", "block", function="web_guard", direction="any", remote=(*listed, "10.79.0.1/32")),)
    path.write_bytes(msgspec.json.encode(Netfilter(rules)))
    began = time.monotonic()
    load = APPLY.replace("sys.argv[1]", "open(sys.argv[1]).read()")
    wall.world.run("box", sys.executable, "-I", "-c", load, str(path), timeout=60)
    assert time.monotonic() - began < 30
    assert wall.reaches("tcp", SERVERS["4"], 8080) == "ConnectionRefusedError"
    assert wall.reaches("tcp", SERVERS["6"], 8080) == "hello"


def test_down_takes_the_rules_out(wall: Wall) -> None:
    wall.apply(rule("all", "block"))
    assert wall.world.box("down", wall.world.settings()).returncode == 0
    tables = wall.world.run("box", "nft", "list", "tables").stdout
    assert not re.search("sekisho", tables), tables
