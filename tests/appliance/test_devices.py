"""What devices tell of themselves: announcements of real programs, hostile ones, vendors, kinds, and the cost."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import dpkt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRSRV
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from sekisho.appliance import portrait
from sekisho.appliance.core.settings import Paths, Settings
from sekisho.appliance.devices import dhcp, dns, ssdp
from sekisho.appliance.devices.kinds import Guess, Kinds
from sekisho.appliance.devices.told import MAX_CLUES, MAX_NAME, NOTHING, Told, name_of
from sekisho.appliance.devices.vendors import Vendors, is_random
from sekisho.appliance.frames import Sighting, parse_frame
from sekisho.appliance.inventory import Inventory

CAPTURE = Path(__file__).with_name("announcements.pcap")
"""What avahi, udhcpc, dhclient (v4, v6), dhcpcd, nmbd and miniupnpd sent on an office network."""
MAC = "3c:97:0e:12:34:56"
OTHER = "00:a0:de:12:34:57"
AT = "2026-01-01T00:00:00.000000Z"


def frames() -> list[bytes]:
    with CAPTURE.open("rb") as source:
        return [frame for _, frame in dpkt.pcap.Reader(source)]


def mdns(*records: Packet, source: str = "192.168.1.20", port: int = 5353, mac: str = MAC) -> bytes:
    answer = DNS(qr=1, aa=1, rd=0, qd=[], an=list(records))
    ip = IPv6(src=source, dst="ff02::fb") if ":" in source else IP(src=source, dst="224.0.0.251")
    return bytes(Ether(src=mac, dst="01:00:5e:00:00:fb") / ip / UDP(sport=port, dport=port) / answer)


def address(name: str, ip: str) -> DNSRR:
    return DNSRR(rrname=f"{name}.local.", type="A", rdata=ip)


def told(frame: bytes) -> Told:
    seen = parse_frame(frame)
    return seen.told if seen is not None else NOTHING


def test_the_announcements_of_real_programs_name_their_machines() -> None:
    book = Inventory()
    names = set()
    for frame in frames():
        seen = parse_frame(frame)
        assert seen is not None and seen.told != NOTHING
        names.add(seen.told.name)
        book.handle(seen, AT)
    assert {"KEIRI-PC", "genkan-cam", "jimu-note", "kaigi-tablet", "uketsuke"} <= names
    one = book.devices[MAC]
    assert (one.vendor, one.kind, one.name) == ("Wistron InfoComm(Kunshan)Co", "phone", "kaigi-tablet")
    assert "fe80::3e97:eff:fe12:3456" in one.ipv6, "one device over both families"
    other = book.devices[OTHER]
    assert (other.vendor, other.kind, other.name) == ("YAMAHA", "router", "uketsuke")


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            mdns(address("reji", "192.168.1.20"), address("x", "10.9.9.9")),
            Told("reji", 3),
        ),
        (mdns(DNSRR(rrname="reji.local.", type="AAAA", rdata="fe80::5"), source="fe80::5"), Told("reji", 3)),
        (mdns(address("reji", "192.168.1.99")), Told("reji", 1)),
        (
            mdns(address("a", "192.168.1.98"), address("b", "192.168.1.99")),
            NOTHING,
        ),
        (
            mdns(DNSRR(rrname="_googlecast._tcp.local.", type="PTR", rdata="TV._googlecast._tcp.local.")),
            Told(clues=("mdns:_googlecast._tcp",)),
        ),
        (
            mdns(DNSRR(rrname="Mac._device-info._tcp.local.", type="TXT", rdata=b"model=MacBookPro18,1")),
            Told(clues=("model:macbookpro18,1",)),
        ),
        (
            bytes(
                Ether(src=MAC) / IP(src="192.168.1.20", dst="192.168.1.30") / UDP(sport=5355, dport=50000)
                / DNS(qr=1, qd=DNSQR(qname="kanri"), an=[DNSRR(rrname="kanri", type="A", rdata="192.168.1.20")])
            ),
            Told("kanri", 1),
        ),
        (
            bytes(
                Ether(src=MAC) / IP(src="192.168.1.20", dst="239.255.255.250") / UDP(sport=50000, dport=1900)
                / Raw(b"M-SEARCH * HTTP/1.1\r\nST: urn:dial-multiscreen-org:service:dial:1\r\n\r\n")
            ),
            NOTHING,
        ),
    ],
)  # fmt: skip
def test_only_what_a_device_says_of_itself_is_believed(frame: bytes, expected: Told) -> None:
    assert told(frame) == expected


def test_a_question_says_nothing_of_who_asks() -> None:
    query = DNS(qr=0, qd=DNSQR(qname="_ipp._tcp.local.", qtype="PTR"))
    frame = Ether(src=MAC) / IP(src="192.168.1.20", dst="224.0.0.251") / UDP(sport=5353, dport=5353) / query
    assert told(bytes(frame)) == NOTHING


def test_a_workgroup_is_not_a_machine_name() -> None:
    assert {told(frame).name for frame in frames() if told(frame).sureness == 2} == {"KEIRI-PC"}


def circular() -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x0c" + bytes(10)


def forward() -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x20" + bytes(40)


def many_pointers() -> bytes:
    """Names that share their ends so often that expanding them would take hours without a bound."""
    body = struct.pack("!6H", 0, 0x8400, 0, 0xFFFF, 0xFFFF, 0xFFFF) + b"\x01a" * 600 + b"\x00"
    while len(body) < 1500:
        body += b"\xc0\x0c" + struct.pack("!HHIH", 12, 1, 0, 2) + b"\xc0\x0c"
    return body


@pytest.mark.parametrize("message", [circular(), forward(), many_pointers(), b"", bytes(12), b"\xff" * 1500])
def test_a_name_that_goes_in_circles_is_no_name_and_costs_nothing(message: bytes) -> None:
    began = time.process_time()
    for _ in range(100):
        assert dns.told_mdns(message, "192.168.1.20") == NOTHING
        assert dns.told_llmnr(message) == NOTHING
        assert dns.told_netbios(message) == NOTHING
    assert time.process_time() - began < 0.5


def fit(one: Told) -> None:
    assert len(one.name) <= MAX_NAME and one.name.isprintable() and len(one.clues) <= max(MAX_CLUES, 64)
    assert not set(one.name) & set("<>\"'&`")
    assert all(clue.isascii() and clue.isprintable() and len(clue) < 120 for clue in one.clues)
    assert (one.sureness > 0) == bool(one.name)


@given(st.binary(max_size=1500))
def test_any_message_is_a_word_or_nothing(message: bytes) -> None:
    for one in (
        dns.told_mdns(message, "10.0.0.1"), dns.told_llmnr(message), dns.told_netbios(message),
        dhcp.told_v4(message), dhcp.told_v6(message), ssdp.told_ssdp(message),
        dhcp.told_v4(bytes(236) + dhcp.COOKIE + message), ssdp.told_ssdp(b"NOTIFY * HTTP/1.1\r\n" + message),
    ):  # fmt: skip
        fit(one)


@given(st.sampled_from(frames()), st.data())
def test_a_damaged_announcement_never_crashes(frame: bytes, data: st.DataObject) -> None:
    damaged = bytearray(frame[: data.draw(st.integers(0, len(frame)))])
    for at in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=8)):
        if at < len(damaged):
            damaged[at] = data.draw(st.integers(0, 255))
    fit(told(bytes(damaged)))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"Tanakas-iPhone.local", "Tanakas-iPhone"),
        ("田中のMac".encode(), "田中のMac"),
        (b"<script>alert(1)</script>", "scriptalert(1)/script"),
        (b"pc\x00\x1b[31m", "pc"),
        (b"\xff\xfe", ""),
        (b"a" * 300, "a" * 63),
    ],
)
def test_a_name_is_fit_to_be_shown(raw: bytes, name: str) -> None:
    assert name_of(raw) == name


@pytest.fixture(scope="module")
def vendors() -> Vendors:
    return Vendors()


@pytest.mark.parametrize(
    ("mac", "vendor"),
    [
        ("00:a0:de:00:00:01", "YAMAHA"),
        ("00:11:32:00:00:01", "Synology"),
        ("b8:27:eb:00:00:01", "Raspberry Pi Foundation"),
        ("02:a0:de:00:00:01", ""),  # invented by the device
        ("fc:ff:ff:ff:ff:ff", ""),
    ],
)
def test_a_vendor_is_known_by_its_prefix(vendors: Vendors, mac: str, vendor: str) -> None:
    assert vendors.of(mac) == vendor


def test_the_longest_prefix_is_the_vendor() -> None:
    listing = Vendors(b"Big\t70b3d5\nSmall\t70b3d5f2f\nMiddle\t70b3d51")
    assert [listing.of(mac) for mac in ("70:b3:d5:00:00:00", "70:b3:d5:f2:f0:01", "70:b3:d5:10:00:00")] == [
        "Big",
        "Small",
        "Middle",
    ]


@pytest.mark.parametrize(("mac", "random"), [("02:00:00:00:00:01", True), ("da:a1:19:00:00:01", True),
                                             ("00:a0:de:00:00:01", False), ("33:33:00:00:00:01", False)])  # fmt: skip
def test_an_invented_address_is_recognised(mac: str, random: bool) -> None:
    assert is_random(mac) is random


@pytest.mark.parametrize(
    ("clues", "kind"),
    [
        (("dhcp:1,3,6,15,31,33,43,44,46,47,119,121,249,252", "class:msft 5.0"), "computer"),
        (("dhcp:1,3,6,15,26,28,51,58,59,43,114,108", "class:android-dhcp-14"), "phone"),
        (("dhcp:1,121,3,6,15,108,114,119,252",), "phone"),
        (("mdns:_ipp._tcp", "mdns:_http._tcp"), "printer"),
        (("vendor:axis communications ab",), "camera"),
        (("server:linux/3.10 upnp/1.0 dsm/7.2 synology",), "nas"),
        (("upnp:urn:schemas-upnp-org:device:internetgatewaydevice:1",), "router"),
        (("mdns:_googlecast._tcp", "model:chromecast"), "tv"),
        (("mdns:_smb._tcp", "mdns:_adisk._tcp"), "nas"),
        (("class:something else",), ""),
        ((), ""),
    ],
)
def test_a_kind_is_guessed_from_the_most_telling_clue(clues: tuple[str, ...], kind: str) -> None:
    assert Kinds().guess(clues).kind == kind


def test_the_table_holds_only_kinds_that_are_said_aloud() -> None:
    guesses = [*Kinds()._exact.values(), *(guess for rows in Kinds()._within.values() for _, guess in rows)]
    allowed = {"computer", "phone", "printer", "camera", "router", "nas", "tv", "other"}
    assert {guess.kind for guess in guesses} == allowed
    assert all(isinstance(guess, Guess) and 1 <= guess.worth <= 100 for guess in guesses)


def test_a_surer_name_and_a_better_clue_win_and_a_weaker_one_is_no_news() -> None:
    book = Inventory()
    book.handle(Sighting(MAC, "10.0.0.1", told=Told("weak", 1, ("vendor:dell",))), AT)
    strong = book.handle(Sighting(MAC, "10.0.0.1", told=Told("strong", 4, ("mdns:_ipp._tcp",))), AT)
    assert strong is not None and (strong.name, strong.kind, strong.random_mac) == ("strong", "printer", False)
    assert book.handle(Sighting(MAC, "10.0.0.1", told=Told("weak", 1, ("class:msft 5.0",))), AT) is None
    assert book.devices[MAC].name == "strong"


def test_a_tag_around_an_announcement_is_the_kernels_to_take_off() -> None:
    """A second tag stays, and such a frame is nobody's: nothing in a small office double-tags."""
    inner = Ether(mdns(address("reji", "192.168.1.20")))
    assert parse_frame(bytes(Ether(src=MAC, type=0x8100) / Dot1Q(vlan=7) / inner.payload)) is None


def test_the_owners_view_names_device_kind_and_vendor(tmp_path: Path) -> None:
    book = Inventory()
    for frame in frames():
        seen = parse_frame(frame)
        assert seen is not None
        book.handle(seen, AT)
    book.handle(Sighting("da:a1:19:00:00:01", "10.0.0.7"), AT)
    (tmp_path / "inventory.json").write_bytes(msgspec.json.encode(book.devices))
    found = portrait.devices(Settings(box="b", paths=Paths(state=str(tmp_path))))
    assert [each.mac for each in found] == ["da:a1:19:00:00:01", OTHER, MAC]
    assert [each.random_mac for each in found] == [True, False, False]
    head, random, router, phone, count = portrait.device_lines(found)
    assert head.startswith("name 名前") and "ランダム" in random and count == "3 devices 台"
    assert "router ルーター" in router and "YAMAHA" in router
    assert phone.startswith("kaigi-tablet") and "192.168.1.20" in phone and "2026-01-01 00:00:00 UTC" in phone


def office(devices: int) -> Iterator[bytes]:
    """Ten sightings of each device, of every kind there is."""
    for number in range(devices):
        mac = (0x3C970E000000 + number).to_bytes(6, "big")
        ip = ip_address(0x0A000000 + number)
        records = (
            DNSRR(rrname=f"pc-{number}.local.", type="A", rdata=str(ip)),
            DNSRR(rrname="_smb._tcp.local.", type="PTR", rdata=f"pc-{number}._smb._tcp.local."),
            DNSRRSRV(rrname=f"pc-{number}._smb._tcp.local.", port=445, target=f"pc-{number}.local."),
        )
        announcement = mdns(*records, source=str(ip), mac=mac.hex(":"))
        arp = b"\xff" * 6 + mac + b"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ip.packed + bytes(6) + ip.packed
        yield from [arp, announcement] * 5


COST = """
import re, struct, sys, time
from pathlib import Path
data = sys.stdin.buffer.read()
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
from sekisho.appliance.frames import parse_frame
from sekisho.appliance.inventory import Inventory
before = resident()
began = time.process_time()
book = Inventory()
ready = time.process_time() - began
at = news = 0
while at < len(data):
    length = struct.unpack_from("!H", data, at)[0]
    seen = parse_frame(data[at + 2 : at + 2 + length])
    news += book.handle(seen, "2026-01-01T00:00:00.000000Z") is not None
    at += 2 + length
spent = time.process_time() - began - ready
grown = resident() - before
print(len(book.devices), news, ready, spent, grown)
"""


def test_a_thousand_devices_cost_little_time_and_memory() -> None:
    data = b"".join(struct.pack("!H", len(frame)) + frame for frame in office(1000))
    done = subprocess.run([sys.executable, "-I", "-c", COST], input=data, capture_output=True, check=True, timeout=60)
    devices, news, ready, spent, grown_kb = (float(word) for word in done.stdout.split())
    print(f"1,000 devices x 10 sightings: {spent:.2f} s of CPU, {grown_kb / 1024:.1f} MB; start {ready:.2f} s")
    assert (devices, news) == (1000, 2000)
    assert spent < 3
    assert grown_kb < 24 * 1024
