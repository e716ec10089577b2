"""The packet filter of the policy: who may speak to whom, loaded live as two nftables tables in one transaction.

Rules come resolved (policy.model.PacketRule): schedules, groups and exceptions are the compiler's. Each function
(isolation, web_guard, firewall) is a chain of its own: in it the first rule that matches decides, `allow` leaves it,
`log` reports and goes on, `block` refuses. A connection is judged in the direction in which it was opened, by its first
packet under the present rules: the generation in the top byte of its mark says so, and a new plan judges every
connection again with its next packet. So a thousand rules cost an established connection one comparison.

A refused first packet takes the shortest way to the last line (refusal.py), which answers it; a packet within an
established TCP connection passes the engine and the gate first, which end it at both ends. What must never be cut is
not judged: neighbour discovery, DHCP, and whatever is addressed to the box itself, which does not pass here at all.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from sekisho.appliance import isolation, nft
from sekisho.appliance.core import marks
from sekisho.policy.model import FUNCTIONS, Devices, Netfilter, PacketRule, Service

TABLE: Final = "sekisho_firewall"
GROUP, SNAP_BYTES = isolation.GROUP, isolation.SNAP_BYTES
WHAT: Final = "The firewall rules"
ORDER: Final = ("isolation", "web_guard", "firewall")
EVENTS_PER_SECOND: Final = 20
"""Per rule; hits beyond are counted, not told one by one."""
GENERATION: Final = 0xFF000000
SHIFT: Final = 24
_ALL_MARKS: Final = 0xFFFFFFFF
_FAMILIES: Final = ((4, "ip", "ipv4_addr"), (6, "ip6", "ipv6_addr"))
_NEVER_CUT: Final = (
    "icmpv6 type { 133, 134, 135, 136, 137 } accept",
    "udp sport { 67, 68, 546, 547 } udp dport { 67, 68, 546, 547 } accept",
)


def plan(wanted: Netfilter, generation: int) -> str:
    """The nft text that replaces whatever was in force; `generation` is 1-255 and differs from the last one's."""
    if not 1 <= generation <= 255:
        raise ValueError(f"generation {generation}")
    sets: list[str] = []
    chains: list[str] = []
    functions: dict[str, list[str]] = {name: [] for name in ORDER}
    for number, rule in enumerate(wanted.rules):
        sets += _sets(number, rule)
        chains += [f"counter h{number} {{ }}", f"chain r{number} {{", *_verdict(number, rule), "}"]
        functions[rule.function] += [f"{match} goto r{number}" if rule.action != "log" else f"{match} jump r{number}"
                                     for match in _matches(number, rule)]  # fmt: skip
    for name in ORDER:
        chains += [f"chain {name} {{", *functions[name], "}"]
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{", *sets, *_refuse(), *chains]
    return "\n".join([*lines, *_judge(generation), "}", *isolation.plan(wanted), ""])


def _judge(generation: int) -> list[str]:
    keep, seen = _ALL_MARKS ^ GENERATION, generation << SHIFT
    return [
        "chain judge {",
        "type filter hook forward priority -160; policy accept;",
        f"meta mark & {marks.REFUSE:#x} != 0 goto refuse",  # by the temporary cells, or a flow refused before
        "ct direction reply accept",
        f"ct mark & {GENERATION:#x} == {seen:#x} accept",
        *_NEVER_CUT,
        *(f"jump {name}" for name in ORDER),
        f"ct mark set ct mark & {keep:#x} | {seen:#x}",
        "}",
    ]


def _refuse() -> list[str]:
    """Marks a packet for refusal; within a connection the mark is the connection's, which the engine may look at."""
    inside = "tcp flags & (syn | ack) != syn"
    why = marks.REFUSE | marks.WHY
    keep = _ALL_MARKS ^ (why | marks.BYPASS)
    lines = []
    for name in ORDER:
        mark = marks.REFUSE | FUNCTIONS[name] << marks.WHY_SHIFT
        lines += [f"chain refuse_{name} {{", f"{inside} ct mark set ct mark & {keep:#x} | {mark:#x} accept"]
        lines += [f"meta mark set {mark:#x} accept", "}"]
    isolated = marks.REFUSE | FUNCTIONS["isolation"] << marks.WHY_SHIFT
    lines += [
        "chain refuse {",
        f"{inside} ct mark set ct mark & {keep:#x} | {isolated:#x} meta mark set 0 accept",
        "accept",
        "}",
    ]
    return lines


def _verdict(number: int, rule: PacketRule) -> list[str]:
    told = f'limit rate {EVENTS_PER_SECOND}/second burst {EVENTS_PER_SECOND} packets log prefix "{_name(rule)}" '
    told += f"group {GROUP} snaplen {SNAP_BYTES} queue-threshold 1"
    lines = [f"counter name h{number}"]
    if rule.action != "allow" or rule.exception:
        lines.append(told)
    if rule.action == "block":
        lines.append(f"goto refuse_{rule.function}")
    return lines


def _name(rule: PacketRule) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,48}", rule.id):
        raise ValueError(f"rule id {rule.id!r}")
    return f"sk {rule.id}"


def _sets(number: int, rule: PacketRule) -> Iterator[str]:
    if rule.devices.macs:
        yield _set(f"m{number}", "ether_addr", sorted({mac.lower() for mac in rule.devices.macs}), interval=False)
    for name, networks in (("d", rule.devices.networks), ("x", rule.remote)):
        for version, _, kind in _FAMILIES:
            if found := [str(n) for n in _merged(networks, version)]:
                yield _set(f"{name}{version}_{number}", kind, found, interval=True)


def _merged(networks: Iterable[str], version: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """The networks of one family, none inside another: a kernel set refuses those."""
    parsed = (ipaddress.ip_network(text) for text in networks)
    if version == 4:
        return list(ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv4Network)))
    return list(ipaddress.collapse_addresses(n for n in parsed if isinstance(n, ipaddress.IPv6Network)))


def _set(name: str, kind: str, elements: Sequence[str], *, interval: bool) -> str:
    flags = "flags interval; " if interval else ""
    return f"set {name} {{ type {kind}; {flags}elements = {{ {', '.join(elements)} }}; }}"


def _matches(number: int, rule: PacketRule) -> Iterator[str]:
    """Every way a packet can be what the rule is about, as nft expressions; none when it is about nobody."""
    sides = {"out": (("saddr", "daddr"),), "in": (("daddr", "saddr"),)}
    for near, far in sides.get(rule.direction) or (*sides["out"], *sides["in"]):
        for version, ip, _ in _FAMILIES:
            for device in _devices(number, rule.devices, version, ip, near):
                remote = _remote(number, rule, version, ip, far)
                if remote is not None:
                    for service in _services(rule.services, version):
                        family = f"meta nfproto ipv{version}"
                        yield " ".join(part for part in (family, device, remote, service) if part)


def _devices(number: int, devices: Devices, version: int, ip: str, near: str) -> Iterator[str]:
    if devices.everyone:
        yield ""
        return
    if devices.macs:
        yield f"ether {near} @m{number}"
    if any(ipaddress.ip_network(text).version == version for text in devices.networks):
        yield f"{ip} {near} @d{version}_{number}"


def _remote(number: int, rule: PacketRule, version: int, ip: str, far: str) -> str | None:
    if not rule.remote:
        return ""
    if any(ipaddress.ip_network(text).version == version for text in rule.remote):
        return f"{ip} {far} @x{version}_{number}"
    return None


def _services(services: Sequence[Service], version: int) -> Iterator[str]:
    if not services:
        yield ""
    for proto in ("tcp", "udp"):
        of = [s for s in services if s.proto == proto]
        if any(not s.last for s in of):
            yield f"meta l4proto {proto}"
        elif of:
            ports = sorted({(s.first, s.last) for s in of})
            yield f"{proto} dport {{ {', '.join(_spans(ports))} }}"
    if any(s.proto == "icmp" for s in services):
        yield f"meta l4proto {'icmp' if version == 4 else 'icmpv6'}"


def _spans(ports: list[tuple[int, int]]) -> Iterator[str]:
    """Port ranges without overlap."""
    first, last = ports[0]
    for start, end in ports[1:]:
        if start <= last + 1:
            last = max(last, end)
            continue
        yield f"{first}-{last}"
        first, last = start, end
    yield f"{first}-{last}"


def _generation() -> int:
    """The generation in force; 0 when nothing is loaded."""
    if not nft.present("inet", TABLE):
        return 0
    listed = nft.run(["list", "chain", "inet", TABLE, "judge"], WHAT)
    found = re.search(r"ct mark set ct mark & \S+ \| (0x[0-9a-f]{8})", listed)
    return int(found[1], 16) >> SHIFT if found else 0


def apply(wanted: Netfilter) -> None:
    """Put these rules in force, all at once and live; every connection is judged by them from its next packet on.

    Where just these are in force already nothing is loaded.

    Whoever calls it empties the express lane afterwards (express.flush): its riders do not pass here.

    Raises:
        DeviceFault: nft or the kernel refused them; what was in force stays in force.

    """
    text = plan(wanted, _generation() % 255 + 1)
    nft.load_anew("inet", TABLE, text, WHAT, meaning=plan(wanted, 1), force=not isolation.present())


def hits() -> dict[int, int]:
    """Packets that each rule of the plan in force decided, by its place; counted since it was loaded.

    Raises:
        DeviceFault: nothing is loaded, or nft failed.

    """
    listed = json.loads(nft.run(["-j", "list", "counters", "table", "inet", TABLE], WHAT))
    counters = [item["counter"] for item in listed["nftables"] if "counter" in item]
    return {int(c["name"][1:]): int(c["packets"]) for c in counters if re.fullmatch(r"h\d+", c["name"])}


def present() -> bool:
    """Whether rules are in force, be they none."""
    return nft.present("inet", TABLE) and isolation.present()


def remove() -> None:
    """Take everything out, temporary isolations too.

    Raises:
        DeviceFault: nft failed.

    """
    isolation.remove()
    if nft.present("inet", TABLE):
        nft.run(["delete", "table", "inet", TABLE], WHAT)
