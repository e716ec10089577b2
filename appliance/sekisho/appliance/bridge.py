"""The bridge between the two cables, and the memory of what was there before.

Owns br0, its two ports and `run/appliance/found.json`. The bridge outlives the daemon: only
`down` takes it away and puts back what was found. STP stays off (two ports cannot loop) and the
bridge forwards what 802.1D would swallow (802.1X, LLDP), because the customer must not notice it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from sekisho.appliance import netfilter
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings

IFF_UP: Final = 1
FORWARD_ALL_GROUPS: Final = 0xFFF8
"""Every reserved multicast address the kernel allows to be forwarded (not STP, pause, LACP)."""
LAST_RESORT: Final = 0x7FFFFFFF
LINK_WAIT_S: Final = 3.0
IFA_F_NODAD: Final = 2
"""Usable at once: nobody else has it."""


class Port(msgspec.Struct):
    """One interface as it was found."""

    up: bool
    addresses: list[str] = []


class Found(msgspec.Struct):
    """The machine's state before the box was put up."""

    ports: dict[str, Port]
    sysctls: dict[str, str]
    bridge: bool = False
    """The bridge existed before us and is not ours to delete."""


def found_path(settings: Settings) -> Path:
    return settings.run / "appliance" / "found.json"


@contextmanager
def _netlink(what: str) -> Iterator[Any]:
    try:
        with IPRoute() as route:
            yield route
    except (NetlinkError, OSError) as err:
        raise DeviceFault(f"{what}: {err}.") from err


def _index(route: Any, name: str) -> int | None:
    found = route.link_lookup(ifname=name)
    return int(found[0]) if found else None


def up(settings: Settings) -> None:
    """Build the bridge, or adopt the one that is there; safe to repeat.

    Raises:
        DeviceFault: the kernel refused a step; run `down` to undo the earlier ones.

    """
    wanted = settings.bridge
    with _netlink(f"The bridge {wanted.name} could not be built") as route:
        path = found_path(settings)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, msgspec.json.encode(_look_around(route, settings)))
        netfilter.write_sysctls(dict(netfilter.SYSCTLS))
        if _index(route, wanted.name) is None:
            route.link("add", ifname=wanted.name, kind="bridge", br_stp_state=0, br_forward_delay=0)
        bridge = _index(route, wanted.name)
        route.link(
            "set",
            index=bridge,
            kind="bridge",
            br_stp_state=0,
            br_mcast_snooping=0,
            br_group_fwd_mask=FORWARD_ALL_GROUPS,
        )
        _quiet(wanted.name, disable=False)
        for name in (wanted.lan, wanted.wan):
            _quiet(name, disable=True)
            port = route.link("get", ifname=name)[0]
            if port.get_attr("IFLA_MASTER") != bridge:
                route.link("set", index=port["index"], master=bridge)
            route.link("set", index=port["index"], state="up")
        route.link("set", index=bridge, state="up")
        _address(route, settings, bridge)


def _look_around(route: Any, settings: Settings) -> Found:
    ports = {}
    for name in (settings.bridge.lan, settings.bridge.wan):
        link = route.link("get", ifname=name)[0]
        addresses = [
            f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}"
            for a in route.get_addr(index=link["index"], family=socket.AF_INET6)
            if a["scope"] == 0
        ]
        ports[name] = Port(up=bool(link["flags"] & IFF_UP), addresses=addresses)
    bridge = _index(route, settings.bridge.name) is not None
    return Found(ports=ports, sysctls=netfilter.read_sysctls(), bridge=bridge)


def _quiet(name: str, *, disable: bool) -> None:
    """A port speaks no IPv6 of its own; the bridge believes no router advertisement."""
    conf = Path("/proc/sys/net/ipv6/conf") / name
    switches = {"disable_ipv6": "1" if disable else "0", "accept_ra": "0"}
    for key, value in switches.items():
        if (conf / key).exists():
            (conf / key).write_text(value)


def _address(route: Any, settings: Settings, bridge: int | None) -> None:
    for address in settings.bridge.addresses:
        ip, prefix = address.split("/") if "/" in address else (address, "128" if ":" in address else "32")
        extra = {"flags": IFA_F_NODAD} if ":" in ip else {}
        _ignore_existing(route.addr, "add", index=bridge, address=ip, prefixlen=int(prefix), **extra)
    for gateway in settings.bridge.gateways:
        family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
        _ignore_existing(route.route, "replace", dst="default", gateway=gateway, oif=bridge, family=family)
    # A reset sent in a stranger's name is dropped by a kernel that has no way back to the stranger, even on a
    # bridge port where the way is already known. This route of last resort is that way.
    for family in (socket.AF_INET, socket.AF_INET6):
        _ignore_existing(route.route, "add", dst="default", oif=bridge, family=family, priority=LAST_RESORT, scope=253)


def _ignore_existing(call: Any, *args: Any, **kwargs: Any) -> None:
    try:
        call(*args, **kwargs)
    except NetlinkError as err:
        if err.code != 17:  # EEXIST
            raise


def down(settings: Settings) -> bool:
    """Undo `up`: ports freed, bridge gone, sysctls and port states as found. False when there was nothing to undo.

    Raises:
        DeviceFault: the kernel refused a step.

    """
    path = found_path(settings)
    if not path.exists():
        return False
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Found)
    except msgspec.MsgspecError as err:
        raise DeviceFault(f"{path} is damaged: {err}.", "Restart the machine to clear the bridge.") from err
    with _netlink(f"The bridge {settings.bridge.name} could not be taken down") as route:
        for name, port in found.ports.items():
            index = _index(route, name)
            if index is None:
                continue
            route.link("set", index=index, master=0)
            _quiet(name, disable=False)
            route.link("set", index=index, state="up" if port.up else "down")
            for address in port.addresses:
                ip, prefix = address.split("/")
                _ignore_existing(route.addr, "add", index=index, address=ip, prefixlen=int(prefix), flags=IFA_F_NODAD)
        bridge = _index(route, settings.bridge.name)
        if bridge is not None and not found.bridge:
            route.link("del", index=bridge)
    netfilter.write_sysctls(found.sysctls)
    path.unlink()
    return True


def wait_for_link(settings: Settings) -> list[str]:
    """Ports without a link a few seconds after they were switched on."""
    deadline = time.monotonic() + LINK_WAIT_S
    with _netlink("The ports could not be read") as route:
        while True:
            ports = (settings.bridge.lan, settings.bridge.wan)
            dark = [n for n in ports if not route.link("get", ifname=n)[0].get_attr("IFLA_CARRIER")]
            if not dark or time.monotonic() > deadline:
                return dark
            time.sleep(0.1)
