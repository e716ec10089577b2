"""The policy file: read with caps, strictly, every reference checked; and the commented file an owner starts from."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import tomllib
import zoneinfo
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy.model import Exemption, Firewall, Isolation, Policy, Service
from sekisho.policy.schedules import parse_times

MAX_POLICY_BYTES: Final = 4 << 20
EVERYTHING_KEPT: Final = "The policy in force was kept."
_MAC = re.compile(r"(?i)[0-9a-f]{2}(?:[:-][0-9a-f]{2}){5}")
_SERVICE = re.compile(r"(tcp|udp)(?:/(\d{1,5})(?:-(\d{1,5}))?)?|icmp")


def parse(text: str, origin: str = "policy") -> Policy:
    """The policy in TOML text.

    Raises:
        RejectedInput: not TOML, an unknown key, a wrong type, or a word that means nothing; the message names it.

    """
    try:
        policy = msgspec.convert(_whole_days(tomllib.loads(text)), Policy)
        check(policy)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError, OverflowError, RecursionError) as err:
        raise RejectedInput(f"{origin}: {err}.", EVERYTHING_KEPT) from err
    return policy


def read(path: Path) -> str:
    """The text of a policy file of at most `MAX_POLICY_BYTES`; no file is an empty one.

    Raises:
        RejectedInput: unreadable, too large, or no text.

    """
    try:
        with path.open("rb") as source:
            data = source.read(MAX_POLICY_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as err:
        raise RejectedInput(f"{path}: {err.strerror}.", EVERYTHING_KEPT) from err
    if len(data) > MAX_POLICY_BYTES:
        raise RejectedInput(f"{path}: larger than {MAX_POLICY_BYTES} bytes.", EVERYTHING_KEPT)
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        raise RejectedInput(f"{path}: not UTF-8 text.", EVERYTHING_KEPT) from err


def load(path: Path) -> Policy:
    """The policy in a file; no file is an empty policy.

    Raises:
        RejectedInput: `read` or `parse` refused it.

    """
    return parse(read(path), str(path))


def is_mac(text: str) -> bool:
    """Whether a device is named by its hardware address."""
    return _MAC.fullmatch(text) is not None


def mac(text: str) -> str:
    """The inventory's spelling of a hardware address."""
    return text.replace("-", ":").lower()


def network(text: str) -> str:
    """Canonical network; an address gets its full prefix length, host bits are cleared.

    Raises:
        ValueError: neither an address nor a network.

    """
    return str(ipaddress.ip_network(text, strict=False))


def service(text: str) -> Service:
    """A protocol with its ports.

    Raises:
        ValueError: not one of the forms "tcp/25", "udp/1000-2000", "tcp", "udp", "icmp".

    """
    found = _SERVICE.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a service; "tcp/25", "udp/1000-2000", "tcp", "udp" or "icmp" are')
    if text == "icmp":
        return Service("icmp")
    first = int(found[2] or 0)
    last = int(found[3] or first)
    if not (0 <= first <= last <= 65535) or (found[2] and first == 0):
        raise ValueError(f"{text!r}: ports go from 1 to 65535, the smaller one first")
    return Service("tcp" if found[1] == "tcp" else "udp", first, last)


def check(policy: Policy) -> None:
    """Refuse what a type alone cannot.

    Raises:
        ValueError: a name nobody defined, one that is there twice, an address or a time that is none.

    """
    if policy.zone and policy.zone not in zoneinfo.available_timezones():
        raise ValueError(f"{policy.zone!r} is not a time zone such as Asia/Tokyo")
    groups = _unique("group", [group.name for group in policy.group])
    schedules = _unique("schedule", [schedule.name for schedule in policy.schedule])
    _unique("category", [category.name for category in policy.category])
    _unique("exception", [exemption.id for exemption in policy.exception])
    for kind in ("web_guard", "keyword", "firewall", "isolation"):
        _unique(kind, [entry.name for entry in getattr(policy, kind)])
    for plan in policy.schedule:
        parse_times(plan.times)
    for group in policy.group:
        if not group.devices and not group.kinds:
            raise ValueError(f"group {group.name!r} has neither devices nor kinds")
        _devices(group.devices)
    for kind in ("web_guard", "url_category", "keyword", "application", "firewall", "isolation"):
        for entry in getattr(policy, kind):
            _known(kind, "group", entry.groups, groups)
            _known(kind, "schedule", (entry.schedule,) if entry.schedule else (), schedules)
    _check_packet_rules(policy.firewall, policy.isolation)
    for guard in policy.web_guard:
        _networks(guard.addresses)
    for exemption in policy.exception:
        _known("exception", "group", exemption.groups, groups)
        _check_exemption(exemption)
    for choice in policy.signatures:
        if not (choice.sids or choice.classtypes or choice.severity):
            raise ValueError("[[signatures]] needs sids, classtypes or severity")


def _check_packet_rules(firewall: tuple[Firewall, ...], isolation: tuple[Isolation, ...]) -> None:
    for rule in firewall:
        _networks(rule.remote)
        for text in rule.services:
            service(text)
    for cell in isolation:
        if not cell.groups and not cell.devices:
            raise ValueError(f"isolation {cell.name!r} names no device")
        _devices(cell.devices)
        _networks(cell.allow)


def _check_exemption(exemption: Exemption) -> None:
    if bool(exemption.sids) == bool(exemption.function):
        raise ValueError(f"exception {exemption.id!r} needs either a function or sids")
    if exemption.entry and not exemption.function:
        raise ValueError(f"exception {exemption.id!r}: an entry needs its function")
    if exemption.function in ("firewall", "isolation") and exemption.domains:
        raise ValueError(f"exception {exemption.id!r}: packet rules know addresses, not names")
    _networks(exemption.addresses)


def _unique(kind: str, names: list[str]) -> set[str]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{kind} {name!r} is there twice")
    return set(names)


def _known(kind: str, what: str, used: tuple[str, ...], known: set[str]) -> None:
    for name in used:
        if name not in known:
            raise ValueError(f"{kind}: there is no {what} {name!r}")


def _devices(devices: tuple[str, ...]) -> None:
    for device in devices:
        if not is_mac(device):
            network(device)


def _networks(networks: tuple[str, ...]) -> None:
    for text in networks:
        network(text)


def end_of(expires: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """The moment an exception ends; a time without offset is in the policy's zone."""
    return expires if expires.tzinfo else expires.replace(tzinfo=zone)


def _whole_days(tables: dict[str, Any]) -> dict[str, Any]:
    """The same with every bare date of an exception's end as the first moment after it."""
    found = tables.get("exception")
    for exemption in found if isinstance(found, list) else []:
        end = exemption.get("expires") if isinstance(exemption, dict) else None
        if isinstance(end, dt.date) and not isinstance(end, dt.datetime):
            exemption["expires"] = dt.datetime.combine(end + dt.timedelta(days=1), dt.time())
    return tables
