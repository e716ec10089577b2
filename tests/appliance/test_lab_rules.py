"""The rules, the bridge and the preflight on a real kernel, in namespaces."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.lab

APPLY = """
import sys, time, itertools
from sekisho.appliance import netfilter
from sekisho.appliance.netfilter import Mode
for queues, closed, engine, gate in itertools.product((1, 2, 16), (False, True), (False, True), (False, True)):
    start = time.monotonic()
    netfilter.install(netfilter.plan(queues, closed, Mode(engine, gate)))
    print(time.monotonic() - start)
"""


def problems(world: Any, settings: Path, verb: str = "check") -> list[str]:
    done = world.box(verb, settings, "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == (0 if facts["ok"] else 3), done.stderr
    return [problem["code"] for problem in facts["problems"]]


def test_the_kernel_takes_every_plan_and_repeats_are_harmless(world: Any) -> None:
    world.run("box", "iptables", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP")
    world.run("box", sys.executable, "-I", "-c", APPLY, timeout=60)
    for tool in ("iptables-save", "ip6tables-save"):
        saved = world.run("box", tool).stdout
        assert len(re.findall(r"-A FORWARD .*-j SK_", saved)) == 2
        assert len(re.findall(r"-A POSTROUTING .*-j SK_KEEP", saved)) == 1
    world.run("box", sys.executable, "-I", "-c", "from sekisho.appliance import netfilter; netfilter.remove()")
    for tool in ("iptables-save", "ip6tables-save"):
        assert "SK_" not in world.run("box", tool).stdout
    assert "192.0.2.1" in world.run("box", "iptables-save").stdout, "others' rules are left alone"


SWEPT = """
from sekisho.appliance import netfilter, nft, refusal
netfilter.write_sysctls(dict(netfilter.SYSCTLS))
netfilter.install(netfilter.plan(1, False))
assert netfilter.intact()
nft.run(["delete", "table", "bridge", refusal.TABLE], "a test")
assert not netfilter.intact(), "what policies refuse would pass"
netfilter.install(netfilter.plan(1, False))
assert netfilter.intact()
netfilter.remove()
assert not refusal.present() and not netfilter.intact()
"""


def test_the_last_line_of_a_refusal_is_missed_put_back_and_taken_out(world: Any) -> None:
    world.run("box", sys.executable, "-I", "-c", SWEPT)


def test_a_machine_that_is_fit_is_not_refused(world: Any) -> None:
    assert problems(world, world.settings()) == []


def test_a_port_that_does_not_exist_is_refused(world: Any) -> None:
    assert problems(world, world.settings('[bridge]\nlan = "eth9"')) == ["missing"]


def test_the_same_port_twice_is_refused(world: Any) -> None:
    assert problems(world, world.settings('[bridge]\nlan = "eth-wan"')) == ["same_port"]


def test_a_port_without_link_is_refused_and_up_leaves_nothing(dark_world: Any) -> None:
    settings = dark_world.settings()
    assert problems(dark_world, settings) == ["no_link"]
    dark_world.run("box", "ip", "link", "set", "eth-wan", "down")  # nobody can tell before it is switched on
    assert problems(dark_world, settings) == []
    assert problems(dark_world, settings, "up") == ["no_link"]
    links = dark_world.run("box", "ip", "-br", "link").stdout
    assert "br0" not in links and re.search(r"eth-wan\S*\s+DOWN", links)


def test_a_port_that_merges_packets_is_refused(world: Any) -> None:
    world.run("box", "ethtool", "-K", "eth-wan", "gro", "on")
    assert problems(world, world.settings()) == ["merging"]


def test_a_port_of_another_bridge_is_refused(world: Any) -> None:
    world.run("box", "ip", "link", "add", "other", "type", "bridge")
    world.run("box", "ip", "link", "set", "eth-lan", "master", "other")
    assert problems(world, world.settings()) == ["in_use"]


@pytest.mark.parametrize("text", ["box = 3", "box = 'a'\n[bridge]\nlam = 'x'", "box = ", "\udcff"])
def test_settings_that_are_not_understood_are_wrong_use(world: Any, text: str) -> None:
    path = world.directory / "bad.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    done = world.box("check", path)
    assert done.returncode == 2 and done.stderr.startswith("sekisho: ") and "Traceback" not in done.stderr


def snapshot(world: Any) -> tuple[str, ...]:
    keys = ("net.bridge", "net.netfilter.nf_conntrack_tcp_be_liberal", "net.ipv6.conf.eth-lan.disable_ipv6")
    return (
        re.sub(r"(valid|preferred)_lft \S+", "", world.run("box", "ip", "-o", "addr").stdout),
        world.run("box", "ip", "-br", "link").stdout,
        world.run("box", "ip", "route").stdout,
        *(world.run("box", "sysctl", key).stdout for key in keys),
    )


def test_down_restores_what_up_found(world: Any) -> None:
    world.run("box", "ip", "link", "set", "eth-lan", "down")
    world.run("box", "ip", "addr", "add", "2001:db8::5/64", "dev", "eth-wan", "nodad")
    settled = "tentative"
    deadline = time.monotonic() + 5
    while settled in world.run("box", "ip", "addr").stdout and time.monotonic() < deadline:
        time.sleep(0.05)
    before = snapshot(world)
    settings = world.settings('[bridge]\naddresses = ["10.79.0.2/24", "fd79::2/64"]\ngateways = ["10.79.0.1"]')
    for _ in range(2):  # adopting its own bridge changes nothing
        assert world.box("up", settings).returncode == 0
    assert "default via 10.79.0.1" in world.run("box", "ip", "route").stdout
    world.run("lan", "ping", "-c", "1", "-W", "2", "10.79.0.1")
    world.run("lan", "ping", "-c", "1", "-W", "2", "fd79::1")
    world.run("box", "ping", "-c", "1", "-W", "2", "10.79.0.10")
    assert world.box("down", settings).returncode == 0
    deadline = time.monotonic() + 5
    while snapshot(world) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert snapshot(world) == before
    assert "SK_" not in world.run("box", "iptables-save").stdout
    assert world.box("down", settings).returncode == 0, "a second time there is nothing to undo"


SERVER = """
import socket, sys
server = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], 8080)); server.listen(); print("ready", flush=True)
while True:
    peer = server.accept()[0]
    try:
        while data := peer.recv(4096): peer.sendall(data)
    except OSError as err: print(type(err).__name__, flush=True)
"""
CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 8080), timeout=5)
peer.sendall(b"hello"); assert peer.recv(100) == b"hello"
try:
    peer.sendall(b"CUTME"); print(peer.recv(100))
except OSError as err: print(type(err).__name__)
"""


@pytest.mark.parametrize(("tool", "address"), [("iptables", "10.79.0.1"), ("ip6tables", "fd79::1")])
def test_a_cut_connection_is_reset_although_the_box_has_no_address(
    world: Any, waiting: Callable[..., Any], tool: str, address: str
) -> None:
    assert world.box("up", world.settings()).returncode == 0
    match = ("-p", "tcp", "-m", "string", "--algo", "bm", "--string", "CUTME", "-j", "CONNMARK", "--or-mark", "0x80")
    world.run("box", tool, "-t", "mangle", "-I", "FORWARD", *match)
    world.start("wan", sys.executable, "-c", SERVER, address, log="server.log")
    waiting(lambda: "ready" in (world.directory / "server.log").read_text())
    assert world.run("lan", sys.executable, "-c", CLIENT, address).stdout == "ConnectionResetError\n"


SEND = """
import sys
from scapy.all import Dot1Q, Ether, IP, IPv6, PPP, PPPoE, UDP, Raw, sendp
text = Raw(sys.argv[1].encode())
for name, tag in (("plain", None), ("vlan", Dot1Q(vlan=7)), ("pppoe", PPPoE(sessionid=5) / PPP(proto=0x21))):
    head = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
    packet = IP(src="10.79.0.10", dst="10.79.0.1") / UDP(sport=4000, dport=4001) / Raw(name.encode()) / text
    sendp(head / tag / packet if tag else head / packet, iface="eth0", verbose=False)
head = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
six = IPv6(src="fd79::10", dst="fd79::1") / UDP(sport=4000, dport=4001) / Raw(b"vlan6") / text
sendp(head / Dot1Q(vlan=7) / six, iface="eth0", verbose=False)
"""


def counted(world: Any, tool: str) -> int:
    saved = world.run("box", f"{tool}-save", "-c", "-t", "mangle").stdout
    return sum(int(n) for n in re.findall(r"\[(\d+):\d+\] -A SK_Q\d+ -j NFQUEUE", saved))


def test_tagged_packets_are_led_to_the_engine_like_plain_ones(world: Any) -> None:
    assert world.box("up", world.settings()).returncode == 0
    before = counted(world, "iptables"), counted(world, "ip6tables")
    world.run("lan", sys.executable, "-c", SEND, "x", timeout=60)
    after = counted(world, "iptables"), counted(world, "ip6tables")
    assert after[0] - before[0] == 3, "plain, VLAN and PPPoE"
    assert after[1] - before[1] >= 1, "IPv6 in a VLAN"


def test_fail_closed_stops_traffic_and_arp_still_passes(world: Any) -> None:
    assert world.box("up", world.settings(fail_mode="closed")).returncode == 0
    assert world.run("lan", "ping", "-c", "1", "-W", "1", "10.79.0.1", check=False).returncode == 1
    assert "REACHABLE" in world.run("lan", "ip", "neigh", "show", "10.79.0.1").stdout
