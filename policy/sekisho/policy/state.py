"""What of a policy is true now: who is in which group, which schedules run, which exceptions still hold. Pure.

The engine's rules ask lists; here is what those lists hold at a moment. The packet rules are resolved whole.
"""

from __future__ import annotations

import datetime as dt
import ipaddress

import msgspec

from sekisho.policy.channels import ANY_BYTE
from sekisho.policy.compiler import Compiled
from sekisho.policy.lists import Names
from sekisho.policy.model import Devices, Exemption, Isolation, Netfilter, PacketRule, Policy
from sekisho.policy.schedules import Span, is_within, next_edge, parse_times
from sekisho.policy.selectors import Roster, Selectors
from sekisho.policy.source import end_of, is_mac, mac, network, service

EVERYONE = Devices(everyone=True)


class State(msgspec.Struct):
    """A moment of a policy."""

    sets: dict[str, list[bytes]]
    """The lists that change by themselves, and what they hold now."""
    netfilter: Netfilter
    next_change: dt.datetime | None
    """When time alone will make it another state (UTC)."""


def resolve(
    policy: Policy, compiled: Compiled, guards: dict[str, Names], roster: Roster, now: dt.datetime, zone: dt.tzinfo
) -> State:
    """The state of a compiled policy at `now` (aware), with the devices there are."""
    return _Moment(policy, compiled.selectors, roster, now, zone).state(compiled, guards)


class _Moment:
    def __init__(self, policy: Policy, selectors: Selectors, roster: Roster, now: dt.datetime, zone: dt.tzinfo) -> None:
        self._policy = policy
        self._selectors = selectors
        self._roster = roster
        self._now = now
        self._local = now.astimezone(zone)
        self._spans: dict[str, tuple[Span, ...]] = {plan.name: parse_times(plan.times) for plan in policy.schedule}
        self._ends = {
            exemption.id: end_of(exemption.expires, zone)
            for exemption in policy.exception
            if exemption.expires is not None
        }

    def state(self, compiled: Compiled, guards: dict[str, Names]) -> State:
        sets = {name: who.live(self._roster) for name, who in compiled.selectors.live.items()}
        for name, what in compiled.switches.items():
            on = self._holds(what[1:]) if what.startswith("!") else self._runs(what)
            sets[name] = list(ANY_BYTE) if on else []
        rules = [*self._guards(guards), *self._isolations(), *self._firewall()]
        if compiled.detect:
            rules = [msgspec.structs.replace(rule, action="log") if rule.action == "block" else rule for rule in rules]
        return State(sets, Netfilter(tuple(rules)), self._next())

    def _runs(self, schedule: str) -> bool:
        return not schedule or is_within(self._spans[schedule], self._local)

    def _holds(self, exemption: str) -> bool:
        end = self._ends.get(exemption)
        return end is None or self._now < end

    def _next(self) -> dt.datetime | None:
        edges = [next_edge(spans, self._local) for spans in self._spans.values()]
        moments = [edge.astimezone(dt.UTC) for edge in edges if edge is not None]
        moments += [end.astimezone(dt.UTC) for end in self._ends.values() if end > self._now]
        return min(moments, default=None)

    def _devices(self, groups: tuple[str, ...]) -> Devices:
        return self._selectors.of(groups).devices(self._roster) if groups else EVERYONE

    def _guards(self, guards: dict[str, Names]) -> list[PacketRule]:
        rules: list[PacketRule] = []
        for guard in self._policy.web_guard:
            addresses = tuple(sorted(guards[guard.name].addresses))
            if addresses and self._runs(guard.schedule):
                rule = PacketRule(
                    f"web_guard-{guard.name}"[:48], "web_guard", guard.name, guard.action,
                    self._devices(guard.groups), "any", addresses,
                )  # fmt: skip
                rules += [*self._passes(rule), rule]
        return rules

    def _isolations(self) -> list[PacketRule]:
        rules: list[PacketRule] = []
        for cell in self._policy.isolation:
            if not self._runs(cell.schedule):
                continue
            devices = self._cell(cell)
            rule = PacketRule(f"isolation-{cell.name}"[:48], "isolation", cell.name, cell.action, devices, "any")
            if cell.allow:
                remote = tuple(network(text) for text in cell.allow)
                open_ = msgspec.structs.replace(rule, id=f"{rule.id}-allow"[:48], action="allow", remote=remote)
                rules.append(open_)
            rules += [*self._passes(rule), rule]
        return rules

    def _cell(self, cell: Isolation) -> Devices:
        of_groups = self._devices(cell.groups) if cell.groups else Devices()
        macs = [mac(text) for text in cell.devices if is_mac(text)]
        networks = [network(text) for text in cell.devices if not is_mac(text)]
        return Devices(False, tuple(sorted({*of_groups.macs, *macs})), tuple(sorted({*of_groups.networks, *networks})))

    def _firewall(self) -> list[PacketRule]:
        rules: list[PacketRule] = []
        for wall in self._policy.firewall:
            if self._runs(wall.schedule):
                rule = PacketRule(
                    f"firewall-{wall.name}"[:48], "firewall", wall.name, wall.action, self._devices(wall.groups),
                    wall.direction, tuple(network(text) for text in wall.remote),
                    tuple(service(text) for text in wall.services),
                )  # fmt: skip
                rules += [*self._passes(rule), rule]
        return rules

    def _passes(self, rule: PacketRule) -> list[PacketRule]:
        """Exceptions of a packet rule, as rules before it that allow what both are about."""
        found = []
        for exemption in self._policy.exception:
            fits = exemption.function == rule.function and exemption.entry in ("", rule.entry)
            if fits and self._holds(exemption.id) and (exemption.addresses or not exemption.domains):
                allowed = self._both(rule, exemption)
                if allowed is not None:
                    found.append(allowed)
        return found

    def _both(self, rule: PacketRule, exemption: Exemption) -> PacketRule | None:
        devices = _narrower(rule.devices, self._devices(exemption.groups))
        remote = _overlap(rule.remote, tuple(network(text) for text in exemption.addresses))
        if devices is None or remote is None:
            return None
        name = f"x-{exemption.id}-{rule.id}"[:48]
        return msgspec.structs.replace(
            rule, id=name, action="allow", devices=devices, remote=remote, exception=exemption.id
        )


def _narrower(one: Devices, other: Devices) -> Devices | None:
    """Devices that are in both; None when nobody is."""
    if one.everyone or other.everyone:
        return other if one.everyone else one
    macs = tuple(sorted(set(one.macs) & set(other.macs)))
    networks = _overlap(one.networks, other.networks) if one.networks and other.networks else ()
    return Devices(False, macs, networks or ()) if macs or networks else None


def _overlap(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...] | None:
    """Networks that are in both lists, an empty list being everything; None when nothing is in both."""
    if not one or not other:
        return one or other
    found = set()
    for text in other:
        net = ipaddress.ip_network(text)
        for candidate in one:
            known = ipaddress.ip_network(candidate)
            if known.version == net.version and known.overlaps(net):
                found.add(str(max(known, net, key=lambda n: n.prefixlen)))
    return tuple(sorted(found)) or None
