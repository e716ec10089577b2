"""DHCP as clients speak it: host name, vendor class and the list of wanted options, which is a system's fingerprint.

RFC 2132 (options), RFC 4702 (client FQDN), RFC 8415 and RFC 4704 for DHCPv6. Options are a flat list of (code, length,
bytes); at most `MAX_OPTIONS` are looked at, what overruns its message ends the look, and nothing is followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sekisho.appliance.devices.told import NOTHING, Told, clue, name_of

MAX_OPTIONS: Final = 64
OPTIONS_AT: Final = 240
COOKIE: Final = b"\x63\x82\x53\x63"
HOST_NAME, WANTED, CLASS, FQDN, END = 12, 55, 60, 81, 255
V6_WANTED, V6_CLASS, V6_FQDN = 6, 16, 39
V6_CLIENT_SAYS: Final = (1, 3, 4, 5, 6, 8, 9, 11)
"""Message types a client sends (RFC 8415 7.3)."""
ASCII_NAME, WIRE_NAME = 0, 4
"""FQDN flag E: the name is in DNS labels (RFC 4702 2.1)."""


def told_v4(message: bytes) -> Told:
    """What the client's message (BOOTP and options) says of the client."""
    if message[OPTIONS_AT - 4 : OPTIONS_AT] != COOKIE:
        return NOTHING
    name, full, clues = b"", b"", []
    for code, value in _options_v4(message[OPTIONS_AT:]):
        if code == HOST_NAME:
            name = value
        elif code == FQDN and len(value) > 3:
            full = _first_label(value[3:]) if value[0] & WIRE_NAME else value[3:]
        elif code == CLASS:
            clues.append(clue("class", value))
        elif code == WANTED:
            clues.append("dhcp:" + ",".join(map(str, value[:32])))
    return _told(name_of(name) or name_of(full), clues)


def _options_v4(options: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    for _ in range(MAX_OPTIONS):
        if at >= len(options) or options[at] == END:
            return
        if options[at] == 0:
            at += 1
            continue
        value = options[at + 2 : at + 2 + (options[at + 1] if at + 1 < len(options) else 0)]
        if at + 1 >= len(options) or len(value) != options[at + 1]:
            return
        yield options[at], value
        at += 2 + len(value)


def told_v6(message: bytes) -> Told:
    """What a DHCPv6 client's message says of the client."""
    if len(message) < 4 or message[0] not in V6_CLIENT_SAYS:
        return NOTHING
    name, clues = b"", []
    at = 4
    for _ in range(MAX_OPTIONS):
        if at + 4 > len(message):
            break
        code, length = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 2 : at + 4], "big")
        value = message[at + 4 : at + 4 + length]
        if len(value) != length:
            break
        at += 4 + length
        if code == V6_FQDN and length > 1:
            name = _first_label(value[1:])
        elif code == V6_CLASS and length > 6:
            clues.append(clue("class", value[6:]))  # enterprise number, then length and data
        elif code == V6_WANTED:
            pairs = zip(value[:64:2], value[1:64:2], strict=False)
            clues.append("dhcp6:" + ",".join(str(high << 8 | low) for high, low in pairs))
    return _told(name_of(name), clues)


def _told(name: str, clues: list[str]) -> Told:
    return Told(name, 4 if name else 0, tuple(clues[:8]))


def _first_label(wire: bytes) -> bytes:
    length = wire[0] if wire else 0
    return wire[1 : 1 + length] if 0 < length <= 63 else b""
