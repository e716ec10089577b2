"""What a refused client sees, on a real kernel: an answer within a second, whatever it speaks and whatever its tags."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.lab

ADDRESSES = {"4": "10.79.0.1", "6": "fd79::1"}
RESPONDER = """
import threading
from sekisho.appliance.refusal import Responder
Responder().run(threading.Event())
"""
ECHO = """
import selectors, socket, sys
chooser = selectors.DefaultSelector()
for address in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    tcp = socket.create_server((address, 8080), family=family)
    chooser.register(tcp, selectors.EVENT_READ, "tcp")
    for port in (53, 443):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((address, port))
        chooser.register(udp, selectors.EVENT_READ, "udp")
print("ready", flush=True)
while True:
    for key, _ in chooser.select():
        if key.data == "tcp":
            peer = key.fileobj.accept()[0]
            chooser.register(peer, selectors.EVENT_READ, "peer")
        elif key.data == "udp":
            data, peer = key.fileobj.recvfrom(4096)
            key.fileobj.sendto(data, peer)
        else:
            try:
                data = key.fileobj.recv(4096)
                print("got", data, flush=True)
                key.fileobj.sendall(data)
            except OSError as err:
                print(type(err).__name__, flush=True)
                data = b""
            if not data:
                chooser.unregister(key.fileobj)
                key.fileobj.close()
"""
CLIENT = """
import socket, sys, time
kind, address, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
slowest = 0.0
for number in range(count):
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as peer:
        peer.settimeout(5)
        peer.bind(("", 20000 + number))
        peer.connect((address, port))
        peer.send(b"hello %d" % number)
        assert peer.recv(100) == b"hello %d" % number
        began = time.monotonic()
        try:
            peer.send(b"REFUSEME")
            said = peer.recv(100).hex()
        except OSError as err:
            said = type(err).__name__
        slowest = max(slowest, time.monotonic() - began)
        if said != sys.argv[5]:
            sys.exit(f"{number}: {said}")
print(slowest)
"""
QUESTION = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as peer:
    peer.settimeout(5)
    peer.connect((sys.argv[1], 53))
    began = time.monotonic()
    for number in range(50):
        ask = bytes([0, number]) + bytes.fromhex("01000001000000000000") + b"\\x08REFUSEME\\0" + bytes([0, 1, 0, 1])
        peer.send(ask)
        said = peer.recv(512)
        assert said[:2] == ask[:2] and said[2] & 0x80 and said[3] & 15 == 3, said
        plain = bytes([0, number]) + bytes.fromhex("01000001000000000000") + b"\\5plain\\0" + bytes([0, 1, 0, 1])
        peer.send(plain)
        assert peer.recv(512) == plain, "another question between the same ports is not condemned"
    print(time.monotonic() - began)
"""


TAGGED = """
from scapy.all import ICMP, TCP, UDP, Dot1Q, Ether, IP, IPv6, ICMPv6DestUnreach, PPP, PPPoE, Raw, srp1
head = Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:01")
four, six = IP(src="10.79.0.10", dst="10.79.0.1"), IPv6(src="fd79::10", dst="fd79::1")
segment = TCP(sport=4000, dport=8080, flags="PA", seq=100, ack=900)
for tags in ([Dot1Q(vlan=7)], [PPPoE(sessionid=5), PPP()]):
    for ip in (four, six):
        for inner in (UDP(sport=4000, dport=4001), segment):
            frame = head
            for tag in tags:
                frame = frame / tag
            frame = Ether(bytes(frame / ip / inner / Raw(b"REFUSEME")))
            told = srp1(frame, iface="eth0", timeout=5, verbose=False)
            assert told is not None, frame.summary()
            assert told.dst == head.src and bytes(told)[12:18] == bytes(frame)[12:18], told.summary()
            if inner is segment:
                assert told[TCP].seq == 900 and told[TCP].flags == "R", told.summary()
            else:
                assert ICMP in told or ICMPv6DestUnreach in told, told.summary()
            print(told.summary())
"""


@pytest.fixture(scope="module")
def refusing(new_world: Callable[[], Any], waiting: Callable[..., Any]) -> Iterator[Any]:
    """A box without an address that refuses what says REFUSEME, and a server."""
    world = new_world()
    assert world.box("up", world.settings()).returncode == 0
    match = ("-m", "string", "--algo", "bm", "--string", "REFUSEME", "-j", "MARK", "--set-mark", "0x400")
    for tool in ("iptables", "ip6tables"):
        world.run("box", tool, "-t", "mangle", "-I", "FORWARD", *match)
    world.start("box", sys.executable, "-I", "-c", RESPONDER)
    world.start("wan", sys.executable, "-c", ECHO, *ADDRESSES.values(), log="server.log")
    waiting(lambda: "ready" in (world.directory / "server.log").read_text())
    waiting(lambda: " 65 " in world.run("box", "cat", "/proc/net/netfilter/nfnetlink_log").stdout + " ")
    yield world


def client(world: Any, *arguments: str) -> float:
    return float(world.run("lan", sys.executable, "-c", CLIENT, *arguments, timeout=60).stdout)


@pytest.mark.parametrize("way", ADDRESSES)
def test_refused_datagrams_are_answered_at_once_however_many(refusing: Any, way: str) -> None:
    assert client(refusing, "udp", ADDRESSES[way], "443", "40", "ConnectionRefusedError") < 1


@pytest.mark.parametrize("way", ADDRESSES)
def test_without_a_gate_a_refused_connection_is_reset_at_both_ends(
    refusing: Any, waiting: Callable[..., Any], way: str
) -> None:
    log = refusing.directory / "server.log"
    before = log.read_text().count("ConnectionResetError")
    assert client(refusing, "tcp", ADDRESSES[way], "8080", "20", "ConnectionResetError") < 1
    waiting(lambda: log.read_text().count("ConnectionResetError") == before + 20, what="the server's end")
    assert "REFUSEME" not in log.read_text()


@pytest.mark.parametrize("way", ADDRESSES)
def test_refused_questions_hear_no_such_name_and_others_between_the_same_ports_are_answered(
    refusing: Any, way: str
) -> None:
    took = float(refusing.run("lan", sys.executable, "-c", QUESTION, ADDRESSES[way], timeout=30).stdout)
    assert took < 50 * 1


def test_a_refused_datagram_flow_stays_refused(refusing: Any) -> None:
    again = """
import socket, sys
peer = socket.socket(); peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); peer.settimeout(5)
peer.connect((sys.argv[1], 443))
for said in (b"REFUSEME", b"innocent", b"innocent"):
    try:
        peer.send(said); sys.exit(f"{said}: {peer.recv(100)}")
    except ConnectionRefusedError: pass
"""
    refusing.run("lan", sys.executable, "-c", again, ADDRESSES["4"])


def test_tagged_packets_are_answered_with_the_same_tags(refusing: Any) -> None:
    assert len(refusing.run("lan", sys.executable, "-c", TAGGED, timeout=90).stdout.splitlines()) == 8
