"""An exception that lets pass what one alert was about, and no more: this rule, this device, this destination. Pure.

What an alert says was chosen by strangers: it becomes an exception only as a canonical host name, an address, a
hardware address or a number, or not at all.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import re
from typing import Annotated, Final, get_args

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.policy import names, source
from sekisho.policy.applications import table
from sekisho.policy.categories import titles
from sekisho.policy.model import Exemption, Function, Group
from sekisho.policy.overlay import Overlay
from sekisho.telemetry.events import Alert, Event

DAYS: Final = 30
MAX_DAYS: Final = 366
REASON_CAP: Final = 200
PACKETS: Final = ("firewall", "isolation")
"""Functions that know addresses only."""
_ENTRY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")


class Wanted(msgspec.Struct, frozen=True):
    """What somebody wants to let pass."""

    function: str = ""
    """Empty: a signature."""
    entry: str = ""
    sid: Annotated[int, msgspec.Meta(ge=0)] = 0
    device: str = ""
    """Hardware address; empty: every device."""
    destination: str = ""
    """Host name (with its sub-domains), address or network; empty: every one."""


class NoException(RejectedInput):
    """Nothing of the kind can be made; `field` says what is wrong."""

    def __init__(self, field: str) -> None:
        super().__init__(f"No exception can be made: {field}.")
        self.field = field


def from_event(event: Event) -> Wanted | None:
    """The narrowest exception for what this event tells; None where none can help (files are released at the box)."""
    if not isinstance(event, Alert):
        return None
    device = source.mac(event.flow.mac) if source.is_mac(event.flow.mac) else ""
    host, remote = _host(event), _remote(event)
    if event.function:
        if event.function not in get_args(Function) or not _ENTRY.fullmatch(event.policy):
            return None
        destination = remote if event.function in PACKETS else host or remote
        return Wanted(event.function, event.policy, 0, device, destination)
    return Wanted("", "", event.sid, device, host or remote) if event.sid > 0 else None


def _host(event: Alert) -> str:
    for text in (event.host, event.sni, event.dns_name):
        try:
            name = names.canonical(text.partition(":")[0]) if text else ""
        except ValueError:
            continue
        if "." in name and not names.is_address(name):
            return name
    return ""


def _remote(event: Alert) -> str:
    text = event.flow.src_ip if event.direction == "in" else event.flow.dst_ip
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def add(overlay: Overlay, wanted: Wanted, reason: str, until: dt.datetime) -> Overlay:
    """The overlay with the exception; the same one made again replaces the first.

    Raises:
        NoException: one of the fields cannot be used.

    """
    made, group = exemption(wanted, reason, until)
    groups = overlay.group
    if group is not None and all(one.name != group.name for one in groups):
        groups = (*groups, group)
    others = tuple(one for one in overlay.exception if one.id != made.id)
    return msgspec.structs.replace(overlay, group=groups, exception=(*others, made))


def remove(overlay: Overlay, ident: str) -> Overlay:
    """The overlay without the exception, and without a group that only exceptions used and none does any more."""
    left = tuple(one for one in overlay.exception if one.id != ident)
    used = {name for one in left for name in one.groups}
    groups = tuple(one for one in overlay.group if not one.name.startswith("x-") or one.name in used)
    return msgspec.structs.replace(overlay, group=groups, exception=left)


def exemption(wanted: Wanted, reason: str, until: dt.datetime) -> tuple[Exemption, Group | None]:
    """The exception in the policy's words, and the group of its one device.

    Raises:
        NoException: one of the fields cannot be used.

    """
    if not reason.strip() or len(reason) > REASON_CAP or not reason.isprintable():
        raise NoException("reason")
    group = None
    if wanted.device:
        if not source.is_mac(wanted.device):
            raise NoException("device")
        mac = source.mac(wanted.device)
        group = Group(name=f"x-{mac.replace(':', '')}", devices=(mac,))
    domains, addresses = _destination(wanted)
    what: dict[str, object] = {"sids": (wanted.sid,)} if wanted.sid else _function(wanted)
    if not (domains or addresses or group):
        raise NoException("too_wide")
    key = repr((wanted.function, wanted.entry, wanted.sid, group and group.devices, domains, addresses))
    made = Exemption(
        id=f"x-{hashlib.sha256(key.encode()).hexdigest()[:10]}", reason=reason.strip(), domains=domains,
        addresses=addresses, groups=(group.name,) if group else (), expires=until, **what,  # type: ignore[arg-type]
    )  # fmt: skip
    return made, group


def _function(wanted: Wanted) -> dict[str, object]:
    if wanted.function not in get_args(Function) or (wanted.entry and not _ENTRY.fullmatch(wanted.entry)):
        raise NoException("what")
    known = {"url_category": set(titles()), "application": set(table())}.get(wanted.function)
    if wanted.entry and known is not None and wanted.entry not in known:
        raise NoException("what")
    return {"function": wanted.function, "entry": wanted.entry}


def _destination(wanted: Wanted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    text = wanted.destination.strip()
    if not text:
        return (), ()
    try:
        return (), (source.network(text),)
    except ValueError:
        pass
    try:
        name = names.canonical(text)
    except ValueError as err:
        raise NoException("destination") from err
    if "." not in name or wanted.function in PACKETS:
        raise NoException("destination")
    return (name,), ()
