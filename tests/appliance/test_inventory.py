"""Who speaks on the LAN: hostile frames, the account's caps, and the kernel filter on a real port."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.frames import MAX_FRAME_BYTES, Sighting, parse_frame
from sekisho.appliance.inventory import MAX_ADDRESSES, MAX_DEVICES, Inventory, Known, load

MAC = bytes.fromhex("0250a1b2c3d4")
TEXT = "02:50:a1:b2:c3:d4"
NONE = str(ip_address(0))
AT = "2026-01-01T00:00:00.000000Z"


def arp(mac: bytes = MAC, said: bytes = MAC, ip: str = "192.168.1.20") -> bytes:
    packed = ip_address(ip).packed
    body = b"\x00\x01\x08\x00\x06\x04\x00\x01" + said + packed + bytes(6) + packed
    return b"\xff" * 6 + mac + b"\x08\x06" + body


def neighbour(kind: int, source: str, target: str, option: bytes = MAC, hops: int = 255) -> bytes:
    message = bytes([kind, 0, 0, 0, 0, 0, 0, 0])
    if kind in (135, 136):
        message += ip_address(target).packed
    message += bytes([2 if kind == 136 else 1, 1]) + option
    header = b"\x60\x00\x00\x00" + len(message).to_bytes(2, "big") + bytes([58, hops])
    return b"\x33\x33" + bytes(4) + MAC + b"\x86\xdd" + header + ip_address(source).packed + bytes(16) + message


def dhcp(chaddr: bytes = MAC, ciaddr: str = NONE) -> bytes:
    message = b"\x01\x01\x06\x00" + bytes(8) + ip_address(ciaddr).packed + bytes(12) + chaddr + bytes(206)
    udp = b"\x00\x44\x00\x43" + (8 + len(message)).to_bytes(2, "big") + b"\x00\x00" + message
    header = b"\x45\x00" + (20 + len(udp)).to_bytes(2, "big") + bytes(5) + b"\x11" + bytes(2) + bytes(4) + b"\xff" * 4
    return b"\xff" * 6 + MAC + b"\x08\x00" + header + udp


def opening(ip: str = "192.168.1.20", flags: int = 2) -> bytes:
    tcp = bytes(12) + bytes([0x50, flags]) + bytes(6)
    packed = ip_address(ip).packed
    if len(packed) == 16:
        return b"\x02" * 6 + MAC + b"\x86\xdd\x60" + bytes(5) + b"\x06\x40" + packed + bytes(16) + tcp
    return b"\x02" * 6 + MAC + b"\x08\x00\x45" + bytes(8) + b"\x06" + bytes(2) + packed + bytes(4) + tcp


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (arp(), Sighting(TEXT, "192.168.1.20")),
        (arp(ip=NONE), Sighting(TEXT, "")),  # an ARP probe: no address yet
        (neighbour(135, "fe80::5", "fe80::1"), Sighting(TEXT, "fe80::5")),
        (neighbour(136, "fe80::5", "2001:db8::7"), Sighting(TEXT, "2001:db8::7")),
        (neighbour(133, "fe80::5", ""), Sighting(TEXT, "fe80::5")),
        (dhcp(), Sighting(TEXT, "")),
        (dhcp(ciaddr="192.168.1.9"), Sighting(TEXT, "192.168.1.9")),
        (opening(), Sighting(TEXT, "192.168.1.20", sure=False)),
        (opening("2001:db8::9"), Sighting(TEXT, "2001:db8::9", sure=False)),
    ],
)
def test_a_device_is_read_from_what_it_cannot_avoid_sending(frame: bytes, expected: Sighting) -> None:
    assert parse_frame(frame) == expected


@pytest.mark.parametrize(
    "frame",
    [
        arp(said=b"\x02\x99\x99\x99\x99\x99"),
        arp(ip="255.255.255.255"),
        arp(mac=b"\x01\x00\x5e\x00\x00\x01", said=b"\x01\x00\x5e\x00\x00\x01"),
        neighbour(135, "fe80::5", "fe80::1", option=b"\x02\x99\x99\x99\x99\x99"),
        neighbour(136, "fe80::5", "ff02::1"),
        neighbour(135, "fe80::5", "fe80::1", hops=64),
        dhcp(chaddr=b"\x02\x99\x99\x99\x99\x99"),
        opening(flags=0x12),
        opening(NONE),
        b"",
        bytes(2000),
    ],
)
def test_who_speaks_in_anothers_name_is_nobody(frame: bytes) -> None:
    assert parse_frame(frame) is None


@given(st.binary(max_size=MAX_FRAME_BYTES + 10))
def test_any_bytes_are_a_sighting_or_nobody(frame: bytes) -> None:
    parse_frame(frame)


@given(
    st.sampled_from([arp(), neighbour(136, "fe80::5", "2001:db8::7"), dhcp(), opening(), opening("fe80::1")]), st.data()
)
def test_a_damaged_frame_never_crashes_and_never_names_a_wrong_sender(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=8)):
        if at < len(damaged):
            damaged[at] = data.draw(st.integers(0, 255))
    seen = parse_frame(bytes(damaged))
    assert seen is None or seen.mac == bytes(damaged[6:12]).hex(":")


def test_a_new_device_and_a_new_address_are_events_and_a_known_one_is_not() -> None:
    book = Inventory()
    first = book.handle(Sighting(TEXT, "192.168.1.20"), "a")
    assert first is not None and first.ipv4 == ["192.168.1.20"]
    assert book.handle(Sighting(TEXT, "192.168.1.20"), "b") is None
    second = book.handle(Sighting(TEXT, "fe80::1"), "c")
    assert second is not None and (second.ipv6, second.first_seen, second.last_seen) == (["fe80::1"], "a", "c")


def test_an_address_belongs_to_who_used_it_last() -> None:
    book = Inventory()
    book.handle(Sighting("02:00:00:00:00:01", "10.0.0.1"), AT)
    assert book.handle(Sighting("02:00:00:00:00:02", "10.0.0.1"), AT) is not None
    assert book.by_ip == {"10.0.0.1": "02:00:00:00:00:02"}
    assert book.devices["02:00:00:00:00:01"].ipv4 == []


def test_using_an_address_does_not_take_it_from_who_claimed_it() -> None:
    book = Inventory()
    book.handle(Sighting("02:00:00:00:00:01", "10.0.0.1"), AT)
    book.handle(Sighting("02:00:00:00:00:02", "10.0.0.1", sure=False), AT)
    assert book.by_ip == {"10.0.0.1": "02:00:00:00:00:01"}
    book.handle(Sighting("02:00:00:00:00:02", "10.0.0.2", sure=False), AT)
    book.handle(Sighting("02:00:00:00:00:03", "10.0.0.2"), AT)
    assert book.by_ip["10.0.0.2"] == "02:00:00:00:00:03"


def test_a_flood_of_invented_devices_is_bounded_and_spares_who_keeps_speaking() -> None:
    book = Inventory()
    for number in range(MAX_DEVICES + 500):
        book.handle(Sighting(number.to_bytes(6, "big").hex(":"), f"10.{number >> 8}.{number & 255}.1"), AT)
        book.handle(Sighting(TEXT, "192.168.1.20"), AT)
    assert len(book.devices) == MAX_DEVICES
    assert len(book.by_ip) <= MAX_DEVICES
    assert book.by_ip["192.168.1.20"] == TEXT


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40), st.booleans()), max_size=150))
def test_both_directions_of_the_account_always_agree(sightings: list[tuple[int, int, bool]]) -> None:
    book = Inventory()
    for device, host, six in sightings:
        book.handle(Sighting(f"02:00:00:00:00:{device:02x}", f"fe80::{host:x}" if six else f"10.0.0.{host}"), AT)
    listed = {ip: mac for mac, known in book.devices.items() for ip in (*known.ipv4, *known.ipv6)}
    assert listed == book.by_ip
    assert all(max(len(k.ipv4), len(k.ipv6)) <= MAX_ADDRESSES for k in book.devices.values())


def test_a_damaged_account_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    assert load(path).devices == {}
    for damaged in (b'{"02:00": {"first', b"[]", b'{"nobody": {"first_seen": "a", "last_seen": "b"}}'):
        path.write_bytes(damaged)
        assert load(path).devices == {}


def test_an_account_from_before_vendors_were_known_learns_them(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    path.write_bytes(b'{"00:11:32:00:00:01": {"first_seen": "a", "last_seen": "b", "ipv4": ["10.0.0.1"]}}')
    known = load(path).devices["00:11:32:00:00:01"]
    assert (known.vendor, known.kind, known.ipv4) == ("Synology", "nas", ["10.0.0.1"])


def test_the_kinds_it_guessed_are_told_and_only_those() -> None:
    known = {"02:00:00:00:00:01": Known("a", "b", kind="camera"), "02:00:00:00:00:02": Known("a", "b")}
    assert Inventory(known).kinds() == {"02:00:00:00:00:01": "camera"}


LISTEN = """
import json, sys, threading
from pathlib import Path
from sekisho.appliance.inventory import Listener
directory = Path(sys.argv[1])
files = [directory / name for name in ("published.json", "kinds.json", "saved.json")]
Listener("eth-lan", *files, print).run(threading.Event())
"""


@pytest.mark.lab
def test_the_real_port_hears_arp_and_nd_of_the_office_and_nothing_else(world: Any, waiting: Callable[..., Any]) -> None:
    world.run("box", "ip", "link", "add", "br0", "type", "bridge")
    for port in ("eth-lan", "eth-wan"):
        world.run("box", "ip", "link", "set", port, "master", "br0")
    world.run("box", "ip", "link", "set", "br0", "up")
    world.start("box", sys.executable, "-I", "-c", LISTEN, str(world.directory), log="listener.log")
    published = world.directory / "published.json"
    waiting(published.exists, what="the listener")
    mac = json.loads(world.run("lan", "ip", "-j", "link", "show", "eth0").stdout)[0]["address"]
    for target in ("10.79.0.1", "fd79::1"):
        world.run("lan", "ping", "-c", "2", "-i", "0.2", target)

    def book() -> dict[str, str]:
        return dict(json.loads(published.read_text()))

    waiting(lambda: {"10.79.0.10", "fd79::10"} <= set(book()), what="the office machine in the inventory")
    assert set(book().values()) == {mac}, "only who speaks on the LAN port"
    assert isinstance(json.loads((world.directory / "kinds.json").read_text()), dict)


@pytest.mark.lab
def test_the_bulk_never_reaches_user_space(world: Any) -> None:
    probe = """
import socket, sys
from sekisho.appliance.frames import parse_frame
from sekisho.appliance.inventory import listen
with listen("eth-lan") as sock:
    print("ready", flush=True)
    sys.stdin.readline()
    kinds = set()
    try:
        while True:
            frame = sock.recv(2000)
            kinds.add(frame[12:14].hex() + ":" + str(parse_frame(frame) is not None))
    except TimeoutError:
        print(sorted(kinds))
"""
    import subprocess

    with subprocess.Popen(
        ["ip", "netns", "exec", world.ns("box"), sys.executable, "-I", "-c", probe],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        send = "import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0));"
        quic = dhcp().replace(b"\x00\x44\x00\x43", b"\x01\xbb\xc0\x00", 1)
        bulk = [
            quic,
            opening(flags=0x10),
            opening("2001:db8::9", flags=0x12),
            dhcp().replace(b"\x00\x43", b"\x00\x35", 1),
        ]
        wanted = [arp(), opening(), opening("2001:db8::9"), dhcp(), neighbour(133, "fe80::5", "")]
        for frame in (*bulk, *wanted):
            loop = f"[s.send(bytes.fromhex('{frame.hex()}')) for _ in range(20)]"
            world.run("lan", sys.executable, "-c", f"{send} {loop}")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "['0800:True', '0806:True', '86dd:True']\n"
