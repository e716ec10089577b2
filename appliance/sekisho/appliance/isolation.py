"""Isolated devices below IP, and the isolation of a device at once and for a time.

What an isolated device says in IP is judged with the other rules (firewall.py). Here, in a bridge table of its own,
goes the rest: a device that may reach nobody has no use for anything but DHCP, one that has exceptions keeps ARP. The
set `now` holds devices cut off by a person: it survives a new policy, its entries end by themselves, and it
is looked at in every packet, so that no connection that was judged before goes on.
"""

from __future__ import annotations

import re
from typing import Final

from sekisho.appliance import nft
from sekisho.appliance.core import marks
from sekisho.policy.model import FUNCTIONS, Netfilter

TABLE: Final = "sekisho_isolation"
WHAT: Final = "The isolation of devices"
MAX_CELLS: Final = 4096
FOREVER: Final = 0


def plan(wanted: Netfilter) -> list[str]:
    """The nft lines that put these isolations in force and leave the temporary ones as they are."""
    blocked: set[str] = set()
    reaching: set[str] = set()
    for rule in wanted.rules:
        if rule.function == "isolation":
            (blocked if rule.action == "block" else reaching).update(mac.lower() for mac in rule.devices.macs)
    elements = {"shut": sorted(blocked - reaching), "ajar": sorted(blocked & reaching)}
    lines = [f"add table bridge {TABLE}"]
    for name in elements:
        lines.append(f"add set bridge {TABLE} {name} {{ type ether_addr; }}")
    lines.append(f"add set bridge {TABLE} now {{ type ether_addr; flags timeout; size {MAX_CELLS}; }}")
    lines.append(f"add chain bridge {TABLE} cut {{ type filter hook forward priority -310; policy accept; }}")
    lines += [f"flush chain bridge {TABLE} cut", f"flush set bridge {TABLE} shut", f"flush set bridge {TABLE} ajar"]
    for name, macs in elements.items():
        if macs:
            lines.append(f"add element bridge {TABLE} {name} {{ {', '.join(macs)} }}")
    isolated = marks.REFUSE | FUNCTIONS["isolation"] << marks.WHY_SHIFT
    other = "meta protocol != { ip, ip6 }"
    for side in ("saddr", "daddr"):
        lines += [
            f"add rule bridge {TABLE} cut ether {side} @now udp sport {{ 67, 68 }} udp dport {{ 67, 68 }} accept",
            f"add rule bridge {TABLE} cut ether {side} @now meta protocol {{ ip, ip6 }} meta mark set {isolated:#x}",
            f"add rule bridge {TABLE} cut ether {side} @now {other} drop",
            f"add rule bridge {TABLE} cut ether {side} @shut {other} drop",
            f"add rule bridge {TABLE} cut ether {side} @ajar meta protocol != {{ ip, ip6, arp }} drop",
        ]
    return lines


def isolate(mac: str, seconds: int) -> None:
    """Cut this device off at once, for `seconds` (`FOREVER` = until `release` or a restart of the machine).

    Raises:
        DeviceFault: no plan has been applied yet, or nft failed.

    """
    time = f" timeout {seconds}s" if seconds != FOREVER else ""
    nft.load(f"add element bridge {TABLE} now {{ {_mac(mac)}{time} }}\n", WHAT)


def release(mac: str) -> None:
    """End a temporary isolation; an isolation by the policy stays.

    Raises:
        DeviceFault: the device is not isolated for a time.

    """
    nft.load(f"delete element bridge {TABLE} now {{ {_mac(mac)} }}\n", WHAT)


def _mac(text: str) -> str:
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", text):
        raise ValueError(f"hardware address {text!r}")
    return text.lower()


def present() -> bool:
    """Whether the table is loaded."""
    return nft.present("bridge", TABLE)


def remove() -> None:
    """Take every isolation out.

    Raises:
        DeviceFault: nft failed.

    """
    if present():
        nft.run(["delete", "table", "bridge", TABLE], WHAT)
