"""Pseudonyms in place of the office's addresses and names: stable, whole, and undone on the box alone."""

from __future__ import annotations

import ipaddress
import json
import re
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry import aliases, events
from sekisho.telemetry.aliases import Aliases
from sekisho.telemetry.events import (
    Alert,
    Coverage,
    Delivery,
    Device,
    Dns,
    Event,
    FileVerdict,
    Flow,
    Health,
    Mail,
    Retro,
    Tls,
    Web,
)
from sekisho.telemetry.inventory import Inventory
from sekisho.telemetry.masking import Masker, pseudonym

AT = "2026-01-02T03:04:05.000006Z"
HOME = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
MAC = "a4:5e:60:c2:19:0b"
PUBLIC6 = "2001:db8:7::42"
"""A LAN device's public address, which only the inventory knows for one."""
SECRETS = [
    "192.168.1.23", "192-168-1-23", "23.1.168.192", "fd00:7::23", "fe80::a65e:60ff:fec2:190b", MAC, MAC.upper(),
    "a45e60c2190b", "tanaka-note", "TANAKA-NOTE", "経理PC-2", PUBLIC6, "3.2.0.0.0.0.0.0",
]  # fmt: skip


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps({"192.168.1.23": MAC, PUBLIC6: MAC}))
    made = Inventory(path, None, HOME)
    made.refresh()
    return made


@pytest.fixture
def masker(tmp_path: Path, inventory: Inventory) -> Masker:
    made = Masker(Aliases(tmp_path / "aliases.db"), HOME, inventory)
    made.mask(Device(at=AT, mac=MAC, name="tanaka-note.local"))
    made.mask(Device(at=AT, mac=MAC, name="経理PC-2"))
    return made


FLOW = Flow("192.168.1.23", 50000, "203.0.113.9", 443, "TCP", MAC)
TELLING: list[Event] = [
    Alert(at=AT, flow=FLOW, url="http://192.168.1.23:8080/a?x=…", host="192.168.1.23:8080", sid=1),
    Alert(at=AT, flow=Flow("fd00:7::23", 1, PUBLIC6, 2, "TCP", MAC), sni="tanaka-note.office.example.jp"),
    Alert(at=AT, flow=FLOW, policy="NAS fd00:7::23", exception="tanaka-note", mail_to=["x@tanaka-note.local"]),
    FileVerdict(at=AT, flow=FLOW, file_name="scan-a45e60c2190b-1.pdf", inner="TANAKA-NOTE/a.doc", host="tanaka-note"),
    FileVerdict(at=AT, flow=FLOW, mail_subject="from 経理PC-2 (192.168.1.23)", mail_from="root@[192.168.1.23]"),
    Health(at=AT, part="x", detail=f"{MAC.upper()} at 192.168.1.23, fe80::a65e:60ff:fec2:190b"),
    Device(at=AT, mac=MAC, ipv4=["192.168.1.23"], ipv6=["fd00:7::23", PUBLIC6], name="tanaka-note", vendor="Apple"),
    Retro(at=AT, deliveries=[Delivery(ip="192.168.1.23", mac=MAC, url="http://tanaka-note.lan/f", host="tanaka-note")]),
    Coverage(at=AT, mac=MAC),
    Web(at=AT, flow=FLOW, host="[fd00:7::23]:80", url="/backup/tanaka-note/192.168.1.23/"),
    Tls(at=AT, flow=FLOW, sni="192-168-1-23.0123456789abcdef.plex.direct"),
    Dns(at=AT, flow=FLOW, name="23.1.168.192.in-addr.arpa", rrtype="PTR"),
    Dns(at=AT, flow=FLOW, name=ipaddress.ip_address("fd00:7::23").reverse_pointer, rrtype="PTR"),
    Dns(at=AT, flow=FLOW, name="Tanaka-Note.local"),
    Dns(at=AT, flow=FLOW, name="tanaka-note"),
    Mail(at=AT, flow=FLOW, mail_from="a@example.jp", mail_to=["tanaka-note@example.jp"]),
]


def told(event: Event) -> str:
    return json.dumps(json.loads(events.encode(event)), ensure_ascii=False)


@pytest.mark.parametrize("event", TELLING, ids=lambda event: type(event).__name__)
def test_no_address_or_name_of_a_device_is_left_in_an_event(masker: Masker, event: Event) -> None:
    before, after = told(event), told(masker.mask(event))
    assert any(secret in before for secret in (*SECRETS, "Tanaka-Note"))
    assert [secret for secret in SECRETS if secret.casefold() in after.casefold()] == []


def test_one_device_stays_one_device(masker: Masker) -> None:
    flow = masker.mask(Alert(at=AT, flow=FLOW)).flow  # type: ignore[union-attr]  # an alert comes back as one
    device = masker.mask(Device(at=AT, mac=MAC, ipv4=["192.168.1.23"], ipv6=["fd00:7:0::23"], name="Tanaka-NOTE"))
    name = masker.mask(Dns(at=AT, name="tanaka-note.local"))
    other = masker.mask(Alert(at=AT, flow=Flow("192.168.1.24", 1, "fd00:7:0:0::23", 2)))
    assert isinstance(device, Device) and isinstance(name, Dns) and isinstance(other, Alert)
    assert flow.mac == device.mac and flow.src_ip == device.ipv4[0] and other.flow.dst_ip == device.ipv6[0]
    assert name.name == f"{device.name}.local"
    assert other.flow.src_ip != flow.src_ip
    for made in (flow.mac, flow.src_ip, device.name):
        assert re.fullmatch(r"(ip|mac|dev)-[a-z2-7]{10}", made)


def test_what_is_not_the_offices_stays_as_it_is(masker: Masker) -> None:
    public: list[Event] = [
        Alert(at=AT, flow=Flow(dst_ip="203.0.113.9"), signature="ET MALWARE 10.0.0.1", host="www.example.com", sid=7),
        Alert(at=AT, url="http://198.51.100.7/x.exe", sni="tanaka.example.com", mail_to=["a@example.com"]),
        Tls(at=AT, flow=Flow(dst_ip="2001:db8::1"), sni="2001:db8::1", version="TLS 1.3"),
        Dns(at=AT, name="8.8.8.8.in-addr.arpa"),
        Dns(at=AT, name="tanaka-note.com"),
        Web(at=AT, host="8.8.8.8", url="/12:30:45/v1.2.3.4/index.html", method="GET"),
        Health(at=AT, part="engine", state="started", detail="took 1.5 s at 12:30:45", rules=3),
    ]
    for event in public:
        assert masker.mask(event) == event


def test_masking_twice_is_masking_once(masker: Masker) -> None:
    for event in TELLING:
        once = masker.mask(event)
        assert masker.mask(once) == once


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses(), st.sampled_from(["{}", "http://{}/x", "x {} y", "{}:80", "at={};", "[{}]"]))
def test_every_internal_address_goes_and_every_other_stays(
    tmp_path_factory: pytest.TempPathFactory, address: ipaddress.IPv4Address | ipaddress.IPv6Address, form: str
) -> None:
    masker = _shared(tmp_path_factory)
    internal = any(address in ipaddress.ip_network(net) for net in (*HOME, "169.254.0.0/16", "fe80::/10"))
    mapped = getattr(address, "ipv4_mapped", None)
    internal = internal or any(mapped in ipaddress.ip_network(net) for net in HOME[:3] if mapped)
    if address.version == 6 and form == "{}:80":
        form = "[{}]:80"
    text = form.format(address)
    masked = masker.mask(Health(at=AT, detail=text))
    assert isinstance(masked, Health)
    assert (masked.detail != text) is internal
    assert (str(address) in masked.detail) is not internal


_made: list[Masker] = []


def _shared(factory: pytest.TempPathFactory) -> Masker:
    if not _made:
        path = factory.mktemp("masking")
        _made.append(Masker(Aliases(path / "aliases.db"), HOME, Inventory(path / "none", None, HOME)))
    return _made[0]


def test_the_box_knows_what_each_pseudonym_stands_for_also_later(tmp_path: Path, inventory: Inventory) -> None:
    path = tmp_path / "aliases.db"
    store = Aliases(path)
    masked = Masker(store, HOME, inventory).mask(TELLING[6])
    assert isinstance(masked, Device)
    store.close()
    assert aliases.whois(path, masked.mac) == MAC
    assert aliases.whois(path, masked.ipv4[0].upper()) == "192.168.1.23"
    assert aliases.whois(path, masked.name) == "tanaka-note"
    assert aliases.whois(path, "ip-aaaaaaaaaa") == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Masker(Aliases(path), HOME, inventory)
    assert again.mask(TELLING[6]) == masked
    assert "tanaka-note" not in told(again.mask(FileVerdict(at=AT, file_name="tanaka-note")))


def test_a_device_that_becomes_known_is_masked_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "inventory.json"
    inventory = Inventory(path, None, HOME)
    masker = Masker(Aliases(tmp_path / "aliases.db"), HOME, inventory)
    told_of = Alert(at=AT, flow=Flow(PUBLIC6, 1, "203.0.113.9", 2), file_name="suzuki-pad.zip")
    assert masker.mask(told_of) == told_of
    path.write_text(json.dumps({PUBLIC6: MAC}))
    inventory.refresh()
    masker.mask(Device(at=AT, mac=MAC, name="suzuki-pad"))
    after = told(masker.mask(told_of))
    assert PUBLIC6 not in after and "suzuki-pad" not in after


def test_the_key_is_the_boxs_own_and_decides(tmp_path: Path) -> None:
    one, two = Aliases(tmp_path / "a" / "1.db").key, Aliases(tmp_path / "2.db").key
    assert one != two and len(one) == 32
    assert pseudonym(one, "ip", "10.0.0.1") != pseudonym(two, "ip", "10.0.0.1")
    assert pseudonym(one, "ip", "x") != pseudonym(one, "mac", "x")


def test_a_damaged_memory_is_set_aside_and_new_pseudonyms_are_made(tmp_path: Path, inventory: Inventory) -> None:
    path = tmp_path / "aliases.db"
    first = Masker(Aliases.open(path), HOME, inventory).mask(TELLING[8])
    path.write_bytes(b"no database at all" * 100)
    again = Masker(Aliases.open(path), HOME, inventory).mask(TELLING[8])
    assert isinstance(first, Coverage) and isinstance(again, Coverage)
    assert first.mac != again.mac and aliases.whois(path, again.mac) == MAC
    with pytest.raises(DeviceFault):
        aliases.whois(tmp_path / "none.db", again.mac)


def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "MAX_ALIASES", 10)
    store = Aliases(tmp_path / "aliases.db")
    for number in range(50):
        store.note(f"ip-{number}", str(number))
    store.keep()
    assert aliases.whois(tmp_path / "aliases.db", "ip-0") == ""
    assert aliases.whois(tmp_path / "aliases.db", "ip-49") == "49"
