"""Where the engine hears what somebody asks for: the protocols, and the words of a rule for each.

No module but this one and `compiler` knows Suricata's rule language. A policy rule never drops: it marks the packet
(`marks.REFUSE` and the function's number) and lets netfilter answer it, so that nobody waits for a reply that never
comes. Every rule alerts, and says in its metadata what decided.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sekisho.appliance.core import marks
from sekisho.appliance.datasets import KIND
from sekisho.policy.model import FUNCTIONS

SIDS: Final = range(9100000, 9200000)
ANY_BYTE: Final = tuple(bytes([number]) for number in range(256))
"""The content of a switch that is on: whatever byte a buffer begins with is in it."""


@dataclass(frozen=True)
class Channel:
    """One protocol. `name` is the buffer with the host name; `always` one that every request has."""

    protocol: str
    name: str
    always: str
    fold: str = ""
    """Brings the name to lower case where the engine does not."""

    @property
    def named(self) -> str:
        """Begins a match of the name: the rule is looked at when there is a name, and not before.

        The engine asks for bits when it first looks at a rule for a request, and keeps the answer. Without a pattern of
        its own a rule is looked at with the request's first packet, when no exception can have been found yet.
        """
        return f'{self.name}; content:"."; fast_pattern; {self.name}; {self.fold}'


HTTP: Final = Channel("http", "http.host", "http.method")
TLS: Final = Channel("tls", "tls.sni", "tls.sni", "to_lowercase; ")
QUIC: Final = Channel("quic", "quic.sni", "quic.sni", "to_lowercase; ")
DNS: Final = Channel("dns", "dns.query", "dns.query", "to_lowercase; ")
NAMED: Final = (HTTP, TLS, QUIC, DNS)
ALL_QUIC: Final = Channel("quic", "", "udp.hdr")
OVER_UDP: Final = ("bittorrent-dht", "tftp", "dhcp", "ntp", "snmp", "ike")


def of_protocol(word: str) -> Channel:
    """A protocol that is refused as a whole, whatever host it goes to."""
    return Channel(word, "", "udp.hdr" if word in OVER_UDP else "tcp.hdr")


@dataclass(frozen=True)
class Source:
    """Whom a rule is about: addresses in its head, or a live set of addresses."""

    head: str = "any"
    match: str = ""


EVERYBODY: Final = Source()


@dataclass
class Sets:
    """The engine's lists: their content, and how a rule asks them. Loaded from `directory`."""

    directory: Path
    content: dict[str, list[bytes]] = field(default_factory=dict)
    kinds: dict[str, KIND] = field(default_factory=dict)

    def put(self, name: str, kind: KIND, entries: list[bytes]) -> str:
        """The keyword that looks a buffer up in this list."""
        self.content.setdefault(name, entries)
        self.kinds[name] = kind
        rows = max(256, 1 << min(18, (len(self.content[name]) // 4).bit_length()))
        return f"dataset:isset,{name},type {kind},load {self.directory / name}.lst,memcap 512mb,hashsize {rows}; "


def switch(sets: Sets, channel: Channel, name: str) -> str:
    """True while the list `name` holds every byte: turned on and off in the running engine."""
    return f'{channel.always}; pcrexform:"(?s)(.)"; ' + sets.put(name, "string", [])


def last_labels(count: int) -> str:
    r"""The transform that leaves the last `count` labels of a name; dots at its end go. Shorter names stay whole.

    Anchored, so that a long hostile name costs no more than its length.
    """
    above = f"(?:[^.]+\\.){{{count - 1}}}" if count > 1 else ""
    return f'pcrexform:"^(?:.*\\.)?({above}[^.]+)\\.*$"; '


def first_segments(count: int) -> str:
    """The transform that leaves the first `count` segments of a path; 0 leaves path and query as they are."""
    return f'pcrexform:"^((?:/[^/?]+){{{count}}})(?:[/?]|$)"; ' if count else ""


def content(word: bytes) -> str:
    """Any bytes as a content match."""
    return f'content:"|{word.hex(" ")}|"; '


@dataclass
class Rulebook:
    """Rules as they are made, each with a number that stays the same while its meaning does."""

    taken: dict[int, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def number(self, meaning: str) -> int:
        """A free number, derived from the meaning.

        Raises:
            ValueError: more than half of all numbers are taken.

        """
        if len(self.taken) > len(SIDS) // 2:
            raise ValueError(f"more than {len(SIDS) // 2} rules")
        sid = SIDS[zlib.crc32(meaning.encode()) % len(SIDS)]
        while sid in self.taken:
            sid = SIDS[(sid - SIDS.start + 1) % len(SIDS)]
        self.taken[sid] = meaning
        return sid

    def helper(self, protocol: str, source: Source, remote: str, body: str, priority: int) -> None:
        """A rule that only sets or clears a bit."""
        sid = self.number(f"helper {protocol} {source} {remote} {body}")
        self.lines.append(
            f"alert {protocol} {source.head} any -> {remote} any (flow:to_server; {source.match}{body}noalert; "
            f"priority:{priority}; sid:{sid}; rev:1;)"
        )

    def verdict(
        self, channel: Channel, source: Source, body: str, function: str, entry: str, action: str, exception: str = ""
    ) -> None:
        """A rule that refuses ("block") or only reports ("log", or an exception that was used)."""
        refuses = action == "block" and not exception
        sid = self.number(f"{channel.protocol} {source} {body} {function} {entry} {exception}")
        mark = marks.REFUSE | FUNCTIONS[function] << marks.WHY_SHIFT
        about = f"sekisho_function {function}, sekisho_entry {entry}, sekisho_action {'block' if refuses else 'log'}"
        about += f", sekisho_exception {exception}" if exception else ""
        self.lines.append(
            f'alert {channel.protocol} {source.head} any -> any any (msg:"sekisho {function} {entry}"; '
            f"flow:to_server; {source.match}{body}"
            + (f"nfq_set_mark:{mark:#x}/{marks.REFUSE | marks.WHY:#x}; " if refuses else "")
            + f"metadata:{about}; priority:{1 if function == 'web_guard' else 3}; sid:{sid}; rev:1;)"
        )
