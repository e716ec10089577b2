"""The policy of one box as strict types: who may do what, when, and what is excepted.

One TOML file. An unknown key, a wrong type, a name nobody defined or an impossible value is an error that says
which line's word is meant. Pure: reads no list, no clock, no inventory; `compiler` turns it into rules.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Final, Literal

import msgspec

FUNCTIONS: Final = {
    "web_guard": 1,
    "url_category": 2,
    "keyword": 3,
    "application": 4,
    "firewall": 5,
    "isolation": 6,
    "known_file": 7,
}
"""Function -> its number in the packet mark (`marks.WHY`), by which the gate finds the page to answer with."""

Action = Literal["block", "log"]
Function = Literal["web_guard", "url_category", "keyword", "application", "firewall", "isolation"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}\Z")]
NameOrNone = Annotated[str, msgspec.Meta(pattern=r"^([a-z0-9][a-z0-9_-]{0,47})?\Z")]
Word = Annotated[str, msgspec.Meta(min_length=2, max_length=64)]
Cap = msgspec.Meta(max_length=1000)
MAX_ENTRIES: Final = 500
Entries = msgspec.Meta(max_length=MAX_ENTRIES)


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A key that is not known is an error."""


class Group(Strict, frozen=True, kw_only=True):
    """Devices that are treated alike."""

    name: Name
    devices: Annotated[tuple[str, ...], Cap] = ()
    """MAC addresses, IP addresses, networks with prefix length."""
    kinds: Annotated[tuple[str, ...], Cap] = ()
    """Kinds of device as the inventory guesses them: computer, phone, printer, camera, nas, tv, ..."""


class Schedule(Strict, frozen=True, kw_only=True):
    """Times of the week, in the policy's time zone."""

    name: Name
    times: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=64)]
    """"mon-fri 09:00-18:00", "sat,sun 00:00-24:00", "fri 22:00-06:00" (until the next morning)."""


class Category(Strict, frozen=True, kw_only=True):
    """A category of our own, or more names for a shipped one."""

    name: Name
    files: Annotated[tuple[str, ...], Cap] = ()
    """Lists in any of the formats of `categories`; relative to the policy file."""
    domains: Annotated[tuple[str, ...], Cap] = ()


class _Entry(Strict, frozen=True, kw_only=True):
    action: Action = "block"
    groups: Annotated[tuple[Name, ...], Cap] = ()
    """Only for devices of these groups; empty = every device."""
    schedule: NameOrNone = ""
    """Only at these times; empty = always."""
    dns: Literal["block", "log", "off"] = "block"
    """What happens to the question for such a name. "log" lets it pass, so that clear HTTP shows its page."""


class WebGuard(_Entry, frozen=True, kw_only=True):
    """Malicious hosts, URLs and addresses."""

    name: Name
    files: Annotated[tuple[str, ...], Cap] = ()
    domains: Annotated[tuple[str, ...], Cap] = ()
    urls: Annotated[tuple[str, ...], Cap] = ()
    addresses: Annotated[tuple[str, ...], Cap] = ()


class UrlCategory(_Entry, frozen=True, kw_only=True):
    """Web sites by kind."""

    categories: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=200)]


class Keyword(_Entry, frozen=True, kw_only=True):
    """Words in a URL; of encrypted traffic and DNS in the host name."""

    name: Name
    words: Annotated[tuple[Word, ...], msgspec.Meta(min_length=1, max_length=500)]


class Application(_Entry, frozen=True, kw_only=True):
    """Programs and services by the names of `applications`."""

    applications: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=200)]


class Firewall(Strict, frozen=True, kw_only=True):
    """One packet rule; the first that matches decides, no match passes."""

    name: Name
    action: Literal["allow", "block", "log"] = "block"
    groups: Annotated[tuple[Name, ...], Cap] = ()
    schedule: NameOrNone = ""
    direction: Literal["out", "in", "any"] = "out"
    """Who speaks first: "out" a LAN device, "in" somebody outside."""
    remote: Annotated[tuple[str, ...], Cap] = ()
    """Addresses and networks on the outside; empty = any."""
    services: Annotated[tuple[str, ...], Cap] = ()
    """"tcp/25", "udp/1000-2000", "tcp", "udp", "icmp"; empty = any. Ports are those of the side that is asked."""


class Isolation(Strict, frozen=True, kw_only=True):
    """Devices that talk to nobody through the box."""

    name: Name
    action: Action = "block"
    groups: Annotated[tuple[Name, ...], Cap] = ()
    devices: Annotated[tuple[str, ...], Cap] = ()
    schedule: NameOrNone = ""
    allow: Annotated[tuple[str, ...], Cap] = ()
    """Outside addresses and networks that stay reachable (update servers)."""


class Exemption(Strict, frozen=True, kw_only=True):
    """What an entry does not apply to: rule x device x destination, with a reason and an end."""

    id: Name
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    function: Function | Literal[""] = ""
    entry: str = ""
    """Category, application, or name of an entry; empty = all of the function."""
    sids: Annotated[tuple[int, ...], Cap] = ()
    """Signatures instead of a function."""
    groups: Annotated[tuple[Name, ...], Cap] = ()
    domains: Annotated[tuple[str, ...], Cap] = ()
    """Destinations by name, with their sub-domains."""
    addresses: Annotated[tuple[str, ...], Cap] = ()
    """Destinations by address or network. Neither names nor addresses = every destination."""
    expires: dt.datetime | None = None
    """Ends at this time, in the policy's zone where it names none; in the file a date ends with its day."""


class Signatures(Strict, frozen=True, kw_only=True):
    """Which signatures block instead of only reporting. The first that matches decides; none = as written."""

    action: Action
    sids: Annotated[tuple[int, ...], Cap] = ()
    classtypes: Annotated[tuple[str, ...], Cap] = ()
    severity: Annotated[tuple[Annotated[int, msgspec.Meta(ge=1, le=255)], ...], Cap] = ()
    """Priorities: 1 is the gravest."""


class Policy(Strict, frozen=True, kw_only=True):
    """The whole file. Table names are singular: `[[url_category]]`."""

    zone: str = ""
    """IANA time zone of the schedules; empty = the machine's own."""
    quic: Literal["inspect", "block"] = "inspect"
    """"block" refuses QUIC as a whole: browsers fall back to TLS at once."""
    group: Annotated[tuple[Group, ...], Entries] = ()
    schedule: Annotated[tuple[Schedule, ...], Entries] = ()
    category: Annotated[tuple[Category, ...], Entries] = ()
    web_guard: Annotated[tuple[WebGuard, ...], Entries] = ()
    url_category: Annotated[tuple[UrlCategory, ...], Entries] = ()
    keyword: Annotated[tuple[Keyword, ...], Entries] = ()
    application: Annotated[tuple[Application, ...], Entries] = ()
    firewall: Annotated[tuple[Firewall, ...], Entries] = ()
    isolation: Annotated[tuple[Isolation, ...], Entries] = ()
    exception: Annotated[tuple[Exemption, ...], Entries] = ()
    signatures: Annotated[tuple[Signatures, ...], Entries] = ()


class Devices(msgspec.Struct, frozen=True, order=True):
    """Whom a packet rule is about, schedule and groups resolved. All empty and not `everyone` = nobody."""

    everyone: bool = False
    macs: tuple[str, ...] = ()
    """aa:bb:cc:dd:ee:ff"""
    networks: tuple[str, ...] = ()
    """Canonical v4 and v6 networks (an address has /32 or /128)."""


class Service(msgspec.Struct, frozen=True, order=True):
    """Protocol and ports of the side that is asked; 0-0 = any port."""

    proto: Literal["tcp", "udp", "icmp"]
    first: int = 0
    last: int = 0


class PacketRule(msgspec.Struct, frozen=True):
    """One rule of the packet filter; in order, the first that matches decides (`log` reports and goes on)."""

    id: str
    """Unique; letters, digits, '_', '-', at most 48: the name of a chain's or set's comment."""
    function: Literal["firewall", "isolation", "web_guard"]
    entry: str
    action: Literal["allow", "block", "log"]
    devices: Devices
    direction: Literal["out", "in", "any"] = "out"
    remote: tuple[str, ...] = ()
    """Canonical networks, both families mixed, possibly 100,000; empty = any."""
    services: tuple[Service, ...] = ()
    exception: str = ""
    """The exception this `allow` comes from: its hits are counted under that name."""


class Netfilter(msgspec.Struct, frozen=True):
    """What the kernel has to enforce now."""

    rules: tuple[PacketRule, ...] = ()
