"""Reads who speaks from the frames a device cannot avoid sending: ARP, neighbour discovery, DHCP, opening a connection;
and what it tells of itself in DHCP, mDNS, SSDP, LLMNR and NetBIOS announcements (`devices`).

Opening a connection is needed because a machine whose neighbour cache is kept fresh by its own TCP traffic may say no
ARP for hours after the box was plugged in. It and the announcements are the weakest word on addresses: they never take
one from another device.
Frames come from machines that may be hostile: every offset is checked, nothing is followed, and what
does not fit is simply nobody.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Final, NamedTuple

from sekisho.appliance.devices import dhcp, dns, ssdp
from sekisho.appliance.devices.told import NOTHING, Told

MAX_FRAME_BYTES: Final = 1600
TCP: Final = 6
UDP: Final = 17
ICMP6: Final = 58
ETHERNET: Final = 14
ARP: Final = 0x0806
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
DHCP_SERVER, DHCP6_SERVER, NETBIOS, SSDP, MDNS, LLMNR = 67, 547, 137, 1900, 5353, 5355
LINK_LAYER_OPTION: Final = {133: 1, 135: 1, 136: 2}
"""ND message type -> the option that names the speaker's own address (RFC 4861 4.6.1)."""
ND_OPTIONS_AT: Final = {133: 8, 135: 24, 136: 24}


class Sighting(NamedTuple):
    """A device that spoke; `ip` is empty where it has no address yet."""

    mac: str
    ip: str
    sure: bool = True
    """False when the address was merely used, not claimed."""
    told: Told = NOTHING


def parse_frame(frame: bytes) -> Sighting | None:
    """The device that sent `frame`, or None when the frame does not say so consistently."""
    if not ETHERNET <= len(frame) <= MAX_FRAME_BYTES:
        return None
    source, kind, body = frame[6:12], int.from_bytes(frame[12:14], "big"), frame[ETHERNET:]
    if source[0] & 1 or source == bytes(6):
        return None
    if kind == ARP:
        return _arp(source, body)
    if kind == IPV4 and len(body) >= 20 and body[0] >> 4 == 4:
        length = (body[0] & 15) * 4
        if length < 20 or int.from_bytes(body[6:8], "big") & 0x3FFF:
            return None  # fragments: nothing that small devices say of themselves needs one
        return _transport(source, body[9], body[12:16], body[length:])
    if kind == IPV6 and len(body) >= 40:
        if body[6] == ICMP6:
            return _neighbour(source, body)
        return _transport(source, body[6], body[8:24], body[40:])
    return None


def _transport(source: bytes, protocol: int, sender: bytes, segment: bytes) -> Sighting | None:
    if protocol == TCP:
        return _opening(source, sender, segment)
    if protocol != UDP or len(segment) < 8:
        return None
    from_port, to_port = struct.unpack_from("!HH", segment)
    message = segment[8:]
    if to_port == DHCP_SERVER:
        return _dhcp(source, message)
    told = NOTHING
    if to_port == DHCP6_SERVER:
        told = dhcp.told_v6(message)
    elif from_port == MDNS == to_port:
        told = dns.told_mdns(message, str(ipaddress.ip_address(sender)))
    elif SSDP in (to_port, from_port):
        told = ssdp.told_ssdp(message)
    elif from_port == LLMNR:
        told = dns.told_llmnr(message)
    elif from_port == NETBIOS:
        told = dns.told_netbios(message)
    else:
        return None
    seen = _sighting(source, sender)
    return seen._replace(sure=False, told=told) if seen is not None and seen.ip else None


def _opening(source: bytes, sender: bytes, segment: bytes) -> Sighting | None:
    if len(segment) < 14 or segment[13] & 0x12 != 2:
        return None  # not a SYN
    seen = _sighting(source, sender)
    return seen._replace(sure=False) if seen is not None and seen.ip else None


def _sighting(mac: bytes, packed: bytes) -> Sighting | None:
    address = ipaddress.ip_address(packed)
    if address.is_multicast or address.is_loopback or packed == b"\xff" * 4:
        return None
    return Sighting(mac.hex(":"), "" if address.is_unspecified else str(address))


def _arp(source: bytes, body: bytes) -> Sighting | None:
    if len(body) < 28 or body[:6] != b"\x00\x01\x08\x00\x06\x04" or body[8:14] != source:
        return None  # not Ethernet/IPv4, or speaking in another's name
    return _sighting(source, body[14:18])


def _dhcp(source: bytes, message: bytes) -> Sighting | None:
    if len(message) < 240 or message[:3] != b"\x01\x01\x06" or message[28:34] != source:
        return None
    seen = _sighting(source, message[12:16])
    return seen._replace(told=dhcp.told_v4(message)) if seen is not None else None


def _neighbour(source: bytes, body: bytes) -> Sighting | None:
    if len(body) < 48 or body[6] != 58 or body[7] != 255:
        return None  # a hop limit below 255 came through a router (RFC 4861 7.1)
    sender, message = body[8:24], body[40:]
    kind = message[0]
    if kind not in LINK_LAYER_OPTION or len(message) < ND_OPTIONS_AT[kind]:
        return None
    named = _option(message[ND_OPTIONS_AT[kind] :], LINK_LAYER_OPTION[kind])
    if named is not None and named != source:
        return None
    # An advertisement names the address it speaks of; the others speak from it (:: while it is being tried).
    return _sighting(source, message[8:24] if kind == 136 else sender)


def _option(options: bytes, wanted: int) -> bytes | None:
    while len(options) >= 8:
        kind, length = struct.unpack_from("!BB", options)
        if length == 0:
            return None
        if kind == wanted and length == 1:
            return options[2:8]
        options = options[length * 8 :]
    return None
