"""The express lane: connections the engine has let go (BYPASS) cross from port to port before the bridge.

br_netfilter and conntrack cost a bypassed TLS download a third of its speed. So a packet of such a
connection, seen once on its way out with EXPRESS in its mark, enters its (source, port, destination,
port) into a kernel set; the next ones find it at the ingress of their port and leave by the other,
frame untouched. SYN, FIN and RST never ride: they pass the whole path, so that conntrack and the engine
see every beginning and end, and they take the connection out of the set, so that the next connection
between the same ports starts inspected. An entry lives 30 s, then the normal path renews it.

Entirely in the kernel (nftables, family netdev, Linux >= 5.16); this module only loads and removes it.
"""

from __future__ import annotations

from typing import Final

from sekisho.appliance import nft
from sekisho.appliance.core import marks

TABLE: Final = "sekisho"
WHAT: Final = "The express lane"
SET_SIZE: Final = 65536
FAMILIES: Final = (("4", "ip", "ipv4_addr"), ("6", "ip6", "ipv6_addr"))
ENDS: Final = "tcp flags & (fin | syn | rst) != 0"
RIDES: Final = f"meta mark set {marks.BYPASS:#x}"
"""Tells the coverage counters of the other port what they see; without EXPRESS, so that no entry is made twice."""
MIDDLE: Final = "tcp flags & (fin | syn | rst) == 0"


def plan(lan: str, wan: str) -> str:
    """The nftables text of the lane between two ports; replaces an earlier one in one transaction."""
    lines = [f"table netdev {TABLE}", f"delete table netdev {TABLE}", f"table netdev {TABLE} {{"]
    for side in ("lan", "wan"):
        for number, _, kind in FAMILIES:
            lines += [
                f"set {side}{number} {{",
                f"type {kind} . inet_service . {kind} . inet_service",
                f"flags dynamic,timeout\ntimeout 30s\nsize {SET_SIZE}",
                "}",
            ]
    lines += ["counter express { }"]
    lines += _ingress("lan", lan, wan) + _ingress("wan", wan, lan)
    lines += _egress("lan", lan, "wan") + _egress("wan", wan, "lan")
    return "\n".join([*lines, "}", ""])


def _tuple(ip: str) -> str:
    return f"{ip} saddr . tcp sport . {ip} daddr . tcp dport"


def _ingress(side: str, device: str, other: str) -> list[str]:
    lines = [f"chain from_{side} {{", f'type filter hook ingress device "{device}" priority 0; policy accept;']
    lines += [
        f'{MIDDLE} {_tuple(ip)} @{side}{number} counter name express {RIDES} fwd to "{other}"'
        for number, ip, _ in FAMILIES
    ]
    lines += [f"{ENDS} delete @{side}{number} {{ {_tuple(ip)} }}" for number, ip, _ in FAMILIES]
    return [*lines, "}"]


def _egress(side: str, device: str, came_from: str) -> list[str]:
    lines = [f"chain to_{side} {{", f'type filter hook egress device "{device}" priority 0; policy accept;']
    lines += [f"meta mark & {marks.EXPRESS:#x} == 0 accept"]
    lines += [f"{MIDDLE} add @{came_from}{number} {{ {_tuple(ip)} }}" for number, ip, _ in FAMILIES]
    return [*lines, "}"]


def install(lan: str, wan: str) -> None:
    """Load the lane unless it is there; connections that rode another take the normal path once and board again.

    Raises:
        DeviceFault: nft or the kernel refused it; traffic then takes the normal path, only slower.

    """
    nft.load_anew("netdev", TABLE, plan(lan, wan), WHAT)


def flush() -> None:
    """Let every rider take the normal path once, as a new policy wants; those it allows board again.

    Raises:
        DeviceFault: nft failed.

    """
    if present():
        sets = (f"{side}{number}" for side in ("lan", "wan") for number, _, _ in FAMILIES)
        nft.load("".join(f"flush set netdev {TABLE} {name}\n" for name in sets), WHAT)


def present() -> bool:
    """Whether the lane is loaded."""
    return nft.present("netdev", TABLE)


def remove() -> None:
    """Take the lane out; riders take the normal path at once.

    Raises:
        DeviceFault: nft failed.

    """
    if present():
        nft.run(["delete", "table", "netdev", TABLE], WHAT)
