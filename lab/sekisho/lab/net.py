"""Builds and removes a lab's namespaces, cables and addresses through iproute2. Knows no program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault
from sekisho.lab import layout
from sekisho.lab.layout import PLACES, Layout, Place

OFFLOADS = ("tso", "gso", "gro", "tx", "sg")


def command(argv: list[str], stdin: str = "") -> str:
    """Run a system program and return what it printed.

    Raises:
        DeviceFault: it failed; the message carries its own last words.

    """
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise DeviceFault(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-300:]}.")
    return done.stdout


def existing() -> set[str]:
    """Names of all network namespaces on this machine."""
    folder = Path("/run/netns")
    return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()


def build(lay: Layout, *, bridge: bool) -> None:
    """Create the namespaces and join them; with `bridge` also the plain bridge a box without the product is."""
    lan, box, wan, center = (lay.netns(place) for place in PLACES)
    for name in (lan, box, wan, center):
        command(["ip", "netns", "add", name])
        _sysctl(name, "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
    command(["ip", "-batch", "-"], _cables(lan, box, wan, center))
    for name, lines in (
        (lan, _host("eth0", layout.CLIENT4, layout.CLIENT6, layout.SERVER4, layout.SERVER6)),
        (center, _host("eth0", layout.CENTER4, layout.CENTER6, layout.CENTER_GATE4, layout.CENTER_GATE6)),
        (wan, _host("eth0", layout.SERVER4, layout.SERVER6) + _host("eth-center", "10.78.0.1", "fd78::1")),
        (box, ["link set lo up", "link set eth-lan up", "link set eth-wan up", *(_bridge() if bridge else [])]),
    ):
        command(["ip", "-n", name, "-batch", "-"], "\n".join(lines) + "\n")
    _sysctl(wan, "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    for place, iface in _ends():
        off = [word for name in OFFLOADS for word in (name, "off")]
        command(["ip", "netns", "exec", lay.netns(place), "ethtool", "-K", iface, *off])


def remove(lay: Layout) -> None:
    """Delete the lab's namespaces; the cables, addresses and rules in them go along."""
    for name in {lay.netns(place) for place in PLACES} & existing():
        command(["ip", "netns", "del", name])


def _ends() -> list[tuple[Place, str]]:
    return [("lan", "eth0"), ("box", "eth-lan"), ("box", "eth-wan"), ("wan", "eth0"),
            ("wan", "eth-center"), ("center", "eth0")]  # fmt: skip


def _cables(lan: str, box: str, wan: str, center: str) -> str:
    return (
        f"link add eth0 netns {lan} address {layout.CLIENT_MAC} type veth peer name eth-lan netns {box}\n"
        f"link add eth0 netns {wan} type veth peer name eth-wan netns {box}\n"
        f"link add eth-center netns {wan} type veth peer name eth0 netns {center}\n"
    )


def _host(iface: str, v4: str, v6: str, gate4: str = "", gate6: str = "") -> list[str]:
    lines = [
        "link set lo up",
        f"addr add {v4}/24 dev {iface}",
        f"addr add {v6}/64 dev {iface} nodad",
        f"link set {iface} up",
    ]
    if gate4:
        lines += [f"route add default via {gate4}", f"route add default via {gate6}"]
    return lines


def _bridge() -> list[str]:
    return [
        "link add br0 type bridge stp_state 0 forward_delay 0",
        "link set eth-lan master br0",
        "link set eth-wan master br0",
        *_host("br0", layout.BOX4, layout.BOX6, layout.SERVER4, layout.SERVER6),
    ]


def _sysctl(netns: str, *settings: str) -> None:
    command(["ip", "netns", "exec", netns, "sysctl", "-q", "-w", *settings])
