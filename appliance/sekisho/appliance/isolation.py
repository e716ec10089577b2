"""Isolated devices below IP, and the isolation of a device at once and for a time.

What an isolated device says in IP is judged with the other rules (firewall.py). Here, in a bridge table of its own,
goes the rest: a device that may reach nobody has no use for anything but DHCP, one that has exceptions keeps ARP. The
set `now` holds devices cut off by a person: it survives a new policy, its entries end by themselves, and it
is looked at in every packet, so that no connection that was judged before goes on. `sekisho box isolate` fills it.
"""

from __future__ import annotations

import re
from typing import Final

from sekisho.appliance import express, nft
from sekisho.appliance.core import marks
from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy.model import FUNCTIONS, Devices, Netfilter, PacketRule

TABLE: Final = "sekisho_isolation"
WHAT: Final = "The isolation of devices"
MAX_CELLS: Final = 4096
FOREVER: Final = 0
GROUP: Final = 66
SNAP_BYTES: Final = 128
EVENTS_PER_SECOND: Final = 20
NOW: Final = PacketRule("now", "isolation", "now", "block", Devices())
"""What events call the isolation by a person: no rule of the policy is named so (theirs begin with their function)."""


def plan(wanted: Netfilter) -> list[str]:
    """The nft lines that put these isolations in force and leave the temporary ones as they are."""
    blocked: set[str] = set()
    reaching: set[str] = set()
    for rule in wanted.rules:
        if rule.function == "isolation":
            (blocked if rule.action == "block" else reaching).update(mac.lower() for mac in rule.devices.macs)
    elements = {"shut": sorted(blocked - reaching), "ajar": sorted(blocked & reaching)}
    isolated = marks.REFUSE | FUNCTIONS["isolation"] << marks.WHY_SHIFT
    told = f'limit rate {EVENTS_PER_SECOND}/second log prefix "sk {NOW.id}" group {GROUP} snaplen {SNAP_BYTES}'
    rules = {
        "held": (
            "udp sport { 67, 68 } udp dport { 67, 68 } accept",
            "meta protocol != { ip, ip6 } drop",
            f"meta mark set {isolated:#x}",
            f"{told} queue-threshold 1",
        ),
        "cut": (
            "ether saddr @now goto held",
            "ether daddr @now goto held",
            "meta protocol { ip, ip6 } accept",
            "ether saddr @shut drop",
            "ether daddr @shut drop",
            "ether saddr @ajar meta protocol != arp drop",
            "ether daddr @ajar meta protocol != arp drop",
        ),
    }
    lines = [f"add table bridge {TABLE}"]
    lines += [f"add set bridge {TABLE} {name} {{ type ether_addr; }}" for name in elements]
    lines.append(f"add set bridge {TABLE} now {{ type ether_addr; flags timeout; size {MAX_CELLS}; }}")
    lines.append(f"add chain bridge {TABLE} held")
    lines.append(f"add chain bridge {TABLE} cut {{ type filter hook forward priority -310; policy accept; }}")
    lines += [f"flush set bridge {TABLE} {name}" for name in elements]
    lines += [f"flush chain bridge {TABLE} {chain}" for chain in reversed(rules)]
    lines += [f"add element bridge {TABLE} {name} {{ {', '.join(macs)} }}" for name, macs in elements.items() if macs]
    return [*lines, *(f"add rule bridge {TABLE} {chain} {rule}" for chain, body in rules.items() for rule in body)]


def isolate(mac: str, seconds: int) -> None:
    """Cut this device off at once, for `seconds` (`FOREVER` = until `release` or a restart of the machine).

    Raises:
        RejectedInput: that is no hardware address.
        DeviceFault: no plan has been applied yet, or nft failed.

    """
    time = f" timeout {seconds}s" if seconds != FOREVER else ""
    address = _mac(mac)
    # An element that is there already would keep its old end.
    lines = (f"add element bridge {TABLE} now {{ {address} }}", f"delete element bridge {TABLE} now {{ {address} }}")
    nft.load("\n".join((*lines, f"add element bridge {TABLE} now {{ {address}{time} }}", "")), WHAT)
    express.flush()


def release(mac: str) -> None:
    """End a temporary isolation; an isolation by the policy stays.

    Raises:
        RejectedInput: that is no hardware address.
        DeviceFault: the device is not isolated for a time.

    """
    nft.load(f"delete element bridge {TABLE} now {{ {_mac(mac)} }}\n", WHAT)


def _mac(text: str) -> str:
    if not re.fullmatch(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}", text):
        raise RejectedInput(f"{text!r} is not a hardware address.", "Write it as 02:00:00:00:00:0a.")
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
