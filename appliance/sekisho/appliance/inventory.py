"""The devices of the office: who is there, under which addresses, since when, and what it seems to be.

`Inventory` is the pure account; `Listener` is the thread that feeds it from the LAN port, through a kernel
filter that lets only ARP, neighbour discovery, announcements and the first packet of a connection up. Writes
`run/inventory.json` ({"ip": "mac"}, which telemetry and inspect read) and `run/kinds.json` ({"mac": "kind"}) at every
change and `state/inventory.json` (the whole account) from time to time.
"""

from __future__ import annotations

import ctypes
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.devices import kinds, vendors
from sekisho.appliance.devices.told import Told
from sekisho.appliance.devices.vendors import is_random
from sekisho.appliance.frames import (
    DHCP6_SERVER,
    DHCP_SERVER,
    LLMNR,
    MAX_FRAME_BYTES,
    MDNS,
    NETBIOS,
    SSDP,
    Sighting,
    parse_frame,
)
from sekisho.telemetry.events import Device

MAX_DEVICES: Final = 4096
MAX_ADDRESSES: Final = 16
"""Per device and family; temporary IPv6 addresses come and go, the oldest goes."""
MAX_STATE_BYTES: Final = 16 << 20
BREATH_FRAMES: Final = 200
"""After so many frames without a pause the listener rests: a flood costs its senders, not the watchdog."""
BREATH_S: Final = 0.05
EVENTS_PER_MINUTE: Final = 600
"""A machine that invents addresses fills the account's cap, not the line to the centre."""
SAVE_S: Final = 60.0
NEWS_S: Final = 2.0
"""A new device is on disk so soon; last-seen times of known ones may wait `SAVE_S`."""
PUBLISH_S: Final = 0.2
TO_PORTS: Final = (DHCP_SERVER, DHCP6_SERVER, MDNS, SSDP)
FROM_PORTS: Final = (LLMNR, NETBIOS, SSDP)
"""Answers and registrations; who asks tells nothing of itself."""
SO_ATTACH_FILTER: Final = 26
ETH_P_ALL: Final = 0x0003

log = logging.getLogger(__name__)


class Known(msgspec.Struct):
    """One device."""

    first_seen: str
    last_seen: str
    ipv4: list[str] = []
    ipv6: list[str] = []
    vendor: str = ""
    name: str = ""
    sureness: int = 0
    """Of the name (`devices.told`)."""
    kind: str = ""
    worth: int = 0
    """Of the clue that told the kind (`devices.kinds`)."""


class Inventory:
    """The account, capped in every direction; the device unseen for longest makes room."""

    def __init__(self, devices: dict[str, Known] | None = None) -> None:
        self._vendors = vendors.shipped()
        self._kinds = kinds.shipped()
        self.devices = dict(list((devices or {}).items())[-MAX_DEVICES:])
        self.by_ip = {ip: mac for mac, known in self.devices.items() for ip in (*known.ipv4, *known.ipv6)}
        for mac, known in self.devices.items():  # an account of before there was a listing, or of before its renewal
            self._look_up(mac, known)

    def handle(self, seen: Sighting, at: str) -> Device | None:
        """Enter a sighting; the event when the device, the address, the name or the kind is new."""
        known = self.devices.pop(seen.mac, None)
        is_new = known is None
        if known is None:
            known = Known(at, at)
            self._look_up(seen.mac, known)
            if len(self.devices) >= MAX_DEVICES:
                self._forget(next(iter(self.devices)))
        self.devices[seen.mac] = known  # at the end: the order is by last sighting
        known.last_seen = at
        owner = self.by_ip.get(seen.ip)
        if seen.ip and owner != seen.mac and (seen.sure or owner is None):
            self._assign(seen)
            is_new = True
        if not (self._learn(known, seen.told) or is_new):
            return None
        return Device(
            at=at, mac=seen.mac, ipv4=list(known.ipv4), ipv6=list(known.ipv6), first_seen=known.first_seen,
            last_seen=at, vendor=known.vendor, name=known.name, kind=known.kind, random_mac=is_random(seen.mac),
        )  # fmt: skip

    def kinds(self) -> dict[str, str]:
        """What each device seems to be, where there is a guess."""
        return {mac: known.kind for mac, known in self.devices.items() if known.kind}

    def _look_up(self, mac: str, known: Known) -> None:
        known.vendor = self._vendors.of(mac)
        if known.vendor and not known.kind:
            known.kind, known.worth = self._kinds.guess([f"vendor:{known.vendor.lower()}"])

    def _learn(self, known: Known, told: Told) -> bool:
        """Take over what is surer than what is known; a name as sure as the known one is a newer name."""
        before = known.name, known.kind
        if told.name and told.sureness >= known.sureness:
            known.name, known.sureness = told.name, told.sureness
        if told.clues:
            guess = self._kinds.guess(told.clues)
            if guess.worth > known.worth:
                known.kind, known.worth = guess
        return (known.name, known.kind) != before

    def _assign(self, seen: Sighting) -> None:
        former = self.devices.get(self.by_ip.get(seen.ip, ""))
        if former is not None:
            self._list(former, seen.ip).remove(seen.ip)
        addresses = self._list(self.devices[seen.mac], seen.ip)
        addresses.append(seen.ip)
        if len(addresses) > MAX_ADDRESSES:
            self.by_ip.pop(addresses.pop(0), None)
        self.by_ip[seen.ip] = seen.mac

    @staticmethod
    def _list(known: Known, ip: str) -> list[str]:
        return known.ipv6 if ":" in ip else known.ipv4

    def _forget(self, mac: str) -> None:
        known = self.devices.pop(mac)
        for ip in (*known.ipv4, *known.ipv6):
            self.by_ip.pop(ip, None)


def load(path: Path) -> Inventory:
    """The saved account; an empty one when there is none or it is damaged."""
    try:
        if path.stat().st_size <= MAX_STATE_BYTES:
            return Inventory(msgspec.json.decode(path.read_bytes(), type=dict[str, Known]))
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as err:  # also what is no account, or no address in it
        log.warning("the saved inventory is not usable, starting afresh: %s", err)
    return Inventory()


class Listener:
    """Feeds the account from one port; `run` is a thread of the daemon."""

    def __init__(self, port: str, published: Path, kinds: Path, saved: Path, report: Callable[[Device], None]) -> None:
        self._port = port
        self._published = published
        self._kinds = kinds
        self._saved = saved
        self._report = report
        self._inventory = load(saved)
        self._changed = True
        self._unsaved = False
        self._published_at = 0.0
        self._saved_at = time.monotonic()
        self._minute = 0
        self._events = 0

    @property
    def count(self) -> int:
        return len(self._inventory.devices)

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop`; a port that goes away is waited for."""
        while not stop.is_set():
            try:
                with listen(self._port) as sock:
                    while not stop.is_set():
                        if all(self._hear(sock) for _ in range(BREATH_FRAMES)):
                            stop.wait(BREATH_S)
                        self._write(time.monotonic())
            except OSError as err:
                log.warning("inventory: %s: %s", self._port, err)
                stop.wait(1.0)
        self._save()

    def _hear(self, sock: socket.socket) -> bool:
        """Take in one frame; False when there was none for a moment."""
        try:
            frame = sock.recv(MAX_FRAME_BYTES + 1)
        except TimeoutError:
            return False
        seen = parse_frame(frame)
        if seen is not None:
            self._enter(seen)
            self._write(time.monotonic())  # in a busy office there is no pause to wait for
        return True

    def _enter(self, seen: Sighting) -> None:
        device = self._inventory.handle(seen, utc.now())
        if device is not None:
            self._changed = self._unsaved = True
            if self._may_report():
                self._report(device)

    def _may_report(self) -> bool:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._events = minute, 0
        self._events += 1
        return self._events <= EVENTS_PER_MINUTE

    def _write(self, now: float) -> None:
        if self._changed and now - self._published_at >= PUBLISH_S:
            self._changed, self._published_at = False, now
            self._try_write(self._kinds, self._inventory.kinds(), 0o644)
            self._try_write(self._published, self._inventory.by_ip, 0o644)
        if now - self._saved_at >= (NEWS_S if self._unsaved else SAVE_S):
            self._unsaved, self._saved_at = False, now
            self._save()

    def _save(self) -> None:
        self._try_write(self._saved, self._inventory.devices, 0o640)

    @staticmethod
    def _try_write(path: Path, content: object, mode: int) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, msgspec.json.encode(content), mode)
        except OSError as err:
            log.warning("inventory not written: %s", err)


def _filter() -> bytes:
    """Classic BPF: frames that arrive (not leave) and are ARP, ICMPv6 133-136, a TCP SYN, or a UDP announcement.

    Of a frame with a VLAN tag the kernel has put the tag aside by then.
    """
    word, half, byte, byte_x, half_x, header, both = 0x20, 0x28, 0x30, 0x50, 0x48, 0xB1, 0x54
    equal, at_least, above, any_bit, give = 0x15, 0x35, 0x25, 0x45, 0x06
    # (label, operation, operand, where to go when true, when false); no label to go to = the next line
    program = [
        ("", word, 0xFFFFF000 + 4, "", ""), ("", equal, socket.PACKET_OUTGOING, "no", ""),
        ("", half, 12, "", ""), ("", equal, 0x0806, "yes", ""), ("", equal, 0x0800, "", "six"),
        ("", half, 20, "", ""), ("", any_bit, 0x1FFF, "no", ""), ("", header, 14, "", ""),
        ("", byte, 23, "", ""), ("", equal, 6, "", "udp"), ("", byte_x, 27, "", ""), ("", both, 0x12, "", ""),
        ("", equal, 2, "yes", "no"),
        ("udp", equal, 17, "", "no"), ("", half_x, 16, "", ""), *_any(TO_PORTS, "yes"),
        ("", half_x, 14, "", ""), *_any(FROM_PORTS, "yes"), ("", give, 0, "", ""),
        ("six", equal, 0x86DD, "", "no"), ("", byte, 20, "", ""), ("", equal, 6, "", "six_udp"),
        ("", byte, 67, "", ""), ("", both, 0x12, "", ""), ("", equal, 2, "yes", "no"),
        ("six_udp", equal, 17, "", "nd"), ("", half, 56, "", ""), *_any(TO_PORTS, "yes"),
        ("", half, 54, "", ""), *_any(FROM_PORTS, "yes"), ("", give, 0, "", ""),
        ("nd", equal, 58, "", "no"), ("", byte, 54, "", ""), ("", at_least, 133, "", "no"),
        ("", above, 136, "no", "yes"),
        ("yes", give, MAX_FRAME_BYTES, "", ""), ("no", give, 0, "", ""),
    ]  # fmt: skip
    at = {label: line for line, (label, *_) in enumerate(program) if label}
    code = b""
    for line, (_, operation, operand, true, false) in enumerate(program):
        jumps = (at[label] - line - 1 if label else 0 for label in (true, false))
        code += struct.pack("=HBBI", operation, *jumps, operand)
    return code


def _any(values: tuple[int, ...], then: str) -> list[tuple[str, int, int, str, str]]:
    """Go to `then` when the accumulator is one of `values`, on to the next line when it is none."""
    return [("", 0x15, value, then, "") for value in values]


def listen(port: str) -> socket.socket:
    """A raw socket on `port` behind the filter, with a short time-out.

    Raises:
        OSError: no such port, or not root.

    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        program = ctypes.create_string_buffer(_filter())
        steps = len(_filter()) // 8
        fprog = struct.pack("HP", steps, ctypes.addressof(program))
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)
        sock.settimeout(PUBLISH_S)
        sock.bind((port, ETH_P_ALL))
    except OSError:
        sock.close()
        raise
    return sock
