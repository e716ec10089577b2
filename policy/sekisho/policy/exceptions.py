"""Exceptions as bits of a connection: cleared by each request, set where one fits, asked by the rules it is about.

The engine runs rules that write bits before rules that read them, and among writers by priority: clear (1), set (2),
ask. So a second request on the same connection does not live on the first one's exception.
"""

from __future__ import annotations

from sekisho.policy import channels
from sekisho.policy.channels import EVERYBODY, NAMED, Channel, Rulebook, Sets, Source
from sekisho.policy.lists import from_words
from sekisho.policy.model import Exemption, Policy
from sekisho.policy.names import by_depth, pruned
from sekisho.policy.selectors import Selectors
from sekisho.policy.source import network

CLEAR, SET = 1, 2


class Exceptions:
    """Collects who asks for which exception on which channel, then writes the rules that set the bits."""

    def __init__(
        self, policy: Policy, book: Rulebook, sets: Sets, selectors: Selectors, switches: dict[str, str]
    ) -> None:
        self._all = policy.exception
        self._book = book
        self._sets = sets
        self._selectors = selectors
        self._switches = switches
        self._used: dict[tuple[str, Channel], Exemption] = {}
        self.for_signatures: dict[int, list[tuple[str, str]]] = {}

    def about(self, function: str, entry: str, channel: Channel) -> list[tuple[str, str]]:
        """(bit, identifier) of the exceptions that may apply to an entry on a channel."""
        found = []
        for exemption in self._all:
            fits = exemption.function == function and exemption.entry in ("", entry)
            if fits and (channel.name or exemption.addresses or not exemption.domains):
                self._used[exemption.id, channel] = exemption
                found.append((f"sk.x.{exemption.id}", exemption.id))
        return found

    def by_name(self, function: str, entry: str) -> bool:
        """Whether it takes the host's name to know what is excepted from an entry."""
        return any(one.function == function and one.entry in ("", entry) and one.domains for one in self._all)

    def finish(self) -> None:
        """Write the rules that clear and set."""
        for (_, channel), exemption in self._used.items():
            bit = f"sk.x.{exemption.id}"
            if channel.name:
                self._clear(channel, bit)
            for source in self._selectors.sources(exemption.groups, self._sets):
                self._set(exemption, channel, source, bit)
        for exemption in self._all:
            if exemption.sids:
                self._signature(exemption)

    def _clear(self, channel: Channel, bit: str) -> None:
        self._book.helper(
            channel.protocol, EVERYBODY, "any", f"{channel.always}; bsize:>0; flowbits:unset,{bit}; ", CLEAR
        )

    def _set(self, exemption: Exemption, channel: Channel, source: Source, bit: str) -> None:
        until = self._until(exemption, channel)
        if exemption.domains and channel.name:
            for named in self._named(exemption, channel):
                self._book.helper(channel.protocol, source, "any", f"{until}{named}flowbits:set,{bit}; ", SET)
        if exemption.addresses or not exemption.domains:
            remote = f"[{','.join(network(text) for text in exemption.addresses)}]" if exemption.addresses else "any"
            some = f"{channel.always}; bsize:>0; "
            self._book.helper(channel.protocol, source, remote, f"{until}{some}flowbits:set,{bit}; ", SET)

    def _named(self, exemption: Exemption, channel: Channel) -> list[str]:
        hosts = from_words(exemption.domains)
        found = []
        for depth, names in by_depth(pruned(hosts.domains)).items():
            asked = self._sets.put(f"sk-xn-{exemption.id}-{depth}", "string", [name.encode() for name in names])
            found.append(f"{channel.name}; {channel.fold}{channels.last_labels(depth)}{asked}")
        return found

    def _until(self, exemption: Exemption, channel: Channel) -> str:
        if exemption.expires is None:
            return ""
        name = f"sk-x-{exemption.id}"
        self._switches[name] = f"!{exemption.id}"
        return channels.switch(self._sets, channel, name)

    def _signature(self, exemption: Exemption) -> None:
        """A signature may look at any packet: by address the bit is the connection's, by name the request's."""
        bits = []
        for source in self._selectors.sources(exemption.groups, self._sets):
            if exemption.domains:
                for channel in NAMED:
                    self._clear(channel, f"sk.xn.{exemption.id}")
                    until = self._until(exemption, channel)
                    for named in self._named(exemption, channel):
                        body = f"{until}{named}flowbits:set,sk.xn.{exemption.id}; "
                        self._book.helper(channel.protocol, source, "any", body, SET)
                bits.append(f"sk.xn.{exemption.id}")
            if exemption.addresses or not exemption.domains:
                remote = ",".join(network(text) for text in exemption.addresses)
                for protocol in ("tcp", "udp"):
                    until = self._until(exemption, Channel(protocol, "", f"{protocol}.hdr"))
                    body = f"{until}flowbits:set,sk.xa.{exemption.id}; "
                    self._book.helper(protocol, source, f"[{remote}]" if remote else "any", body, SET)
                bits.append(f"sk.xa.{exemption.id}")
        for sid in exemption.sids:
            self.for_signatures.setdefault(sid, []).extend((bit, exemption.id) for bit in dict.fromkeys(bits))
