"""Groups of devices as rules and packet rules see them: networks that are written down, and addresses that change."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Final

from sekisho.policy.channels import EVERYBODY, Sets, Source
from sekisho.policy.model import Devices, Group, Policy
from sekisho.policy.source import is_mac, mac, network

FULL: Final = {4: 32, 6: 128}


@dataclass(frozen=True)
class Roster:
    """The LAN's devices as the inventory knows them now."""

    by_ip: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    """Hardware address -> kind."""


@dataclass(frozen=True)
class Members:
    """Who belongs to a union of groups."""

    macs: frozenset[str]
    kinds: frozenset[str]
    addresses: frozenset[str]
    networks: tuple[str, ...]

    def changing(self) -> bool:
        """Whether it takes a live list to know them."""
        return bool(self.macs or self.kinds or self.addresses)

    def all_macs(self, roster: Roster) -> set[str]:
        return set(self.macs) | {mac for mac, kind in roster.kinds.items() if kind in self.kinds}

    def live(self, roster: Roster) -> list[bytes]:
        """Addresses that belong to them now and are in none of their networks."""
        macs = self.all_macs(roster)
        found = set(self.addresses) | {ip for ip, owner in roster.by_ip.items() if owner in macs}
        nets = [ipaddress.ip_network(text) for text in self.networks]
        return sorted(ip.encode() for ip in found if not any(ipaddress.ip_address(ip) in net for net in nets))

    def devices(self, roster: Roster) -> Devices:
        """For packet rules: those that match by hardware address need no address of theirs."""
        addresses = (network(text) for text in self.addresses)
        return Devices(False, tuple(sorted(self.all_macs(roster))), tuple(sorted({*self.networks, *addresses})))


def members(groups: list[Group]) -> Members:
    """The union of groups."""
    macs: set[str] = set()
    addresses: set[str] = set()
    networks: set[str] = set()
    for device in (device for group in groups for device in group.devices):
        if is_mac(device):
            macs.add(mac(device))
            continue
        net = ipaddress.ip_network(device, strict=False)
        if net.prefixlen == FULL[net.version]:
            addresses.add(str(net.network_address))
        else:
            networks.add(str(net))
    kinds = frozenset(kind for group in groups for kind in group.kinds)
    return Members(frozenset(macs), kinds, frozenset(addresses), tuple(sorted(networks)))


class Selectors:
    """Names for the unions of groups that a policy uses."""

    def __init__(self, policy: Policy) -> None:
        self._groups = {group.name: group for group in policy.group}
        self._names: dict[tuple[str, ...], str] = {}
        self.live: dict[str, Members] = {}
        """Name of a list -> whose addresses it holds."""

    def of(self, groups: tuple[str, ...]) -> Members:
        return members([self._groups[name] for name in groups])

    def sources(self, groups: tuple[str, ...], sets: Sets) -> list[Source]:
        """What stands in rules for these groups: one or two ways of being one of them."""
        if not groups:
            return [EVERYBODY]
        key = tuple(sorted(set(groups)))
        who = self.of(key)
        found = [Source(f"[{','.join(who.networks)}]")] if who.networks else []
        if who.changing():
            name = self._names.setdefault(key, f"sk-g{len(self._names)}")
            self.live[name] = who
            found.append(Source("any", f"ip.src; {sets.put(name, 'ip', [])}"))
        return found
