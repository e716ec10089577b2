"""Is this machine fit to be a box? Each refusal is one sentence an owner can act on, in English and Japanese.

Only looks, changes nothing. Called by `sekisho box check`, by `box up` and by the daemon at start.
"""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import socket
import struct
from pathlib import Path
from typing import Any, Final

import msgspec
from pyroute2 import IPRoute

from sekisho.appliance.core.settings import Settings

SIOCETHTOOL: Final = 0x8946
ETHTOOL_GFLAGS: Final = 0x25
ETHTOOL_GGRO: Final = 0x2B
ETH_FLAG_LRO: Final = 1 << 15
PROGRAMS: Final = ("suricata", "iptables-restore", "ip6tables-restore", "nft")
KERNEL: Final = (
    ("/proc/net/netfilter/nfnetlink_queue", "NFQUEUE (nfnetlink_queue)"),
    ("/proc/net/netfilter/nfnetlink_log", "packet logging (nfnetlink_log)"),
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", "bridge netfilter (br_netfilter)"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "connection tracking (nf_conntrack)"),
)


class Problem(msgspec.Struct, frozen=True):
    """One reason why the box cannot go up."""

    code: str
    text: str
    waits: bool = False
    """True where the daemon goes on all the same: it mends itself (a cable plugged in later)."""


def check(settings: Settings) -> list[Problem]:
    """Everything that stands in the way, empty when the box may go up."""
    bridge = settings.bridge
    problems = _machine()
    if bridge.lan == bridge.wan:
        text = f"The office port and the internet port are both {bridge.lan}; two different ports are needed."
        return [*problems, Problem("same_port", f"{text} LAN と WAN に同じポートは使えません。")]
    with IPRoute() as route:
        for role, name in (("office (LAN)", bridge.lan), ("internet (WAN)", bridge.wan)):
            problems += _port(route, role, name, bridge.name)
    return problems


def _machine() -> list[Problem]:
    problems = []
    for program in PROGRAMS:
        if shutil.which(program) is None:
            text = f"The program {program} is not installed. {program} がインストールされていません。"
            problems.append(Problem("program_missing", text))
    for path, feature in KERNEL:
        if not Path(path).exists():
            text = f"This machine's kernel lacks {feature}; load the module or use another kernel."
            problems.append(Problem("kernel_lacks", f"{text} カーネルの機能が足りません。"))
        elif not os.access(path, os.R_OK):
            text = f"{path} may not be read; run as root, or as the service does (in the group root)."
            problems.append(Problem("rights", f"{text} 管理者権限で実行してください。"))
    return problems


def _port(route: Any, role: str, name: str, bridge: str) -> list[Problem]:
    indexes = route.link_lookup(ifname=name)
    if not indexes:
        text = f"There is no port named {name} for the {role} side; check the name in the settings."
        return [Problem("missing", f"{text} ポート {name} が見つかりません。")]
    link = route.link("get", index=indexes[0])[0]
    problems = []
    master = link.get_attr("IFLA_MASTER")
    if master:
        owner = route.link("get", index=master)[0].get_attr("IFLA_IFNAME")
        if owner != bridge:
            text = f"{name} already belongs to {owner}; free it first with: ip link set {name} nomaster."
            problems.append(Problem("in_use", f"{text} {name} は別のブリッジで使用中です。"))
    # An unpowered port knows nothing of its cable: `box up` switches it on and looks again.
    if link["flags"] & 1 and not link.get_attr("IFLA_CARRIER"):
        problems.append(_no_link(role, name))
    for feature in merging(name):
        text = f"{name} merges packets ({feature}) before they can be inspected; switch it off with: "
        text += f"ethtool -K {name} gro off lro off."
        problems.append(Problem("merging", f"{text} {name} の {feature} を無効にしてください。"))
    return problems


def no_link(settings: Settings, name: str) -> Problem:
    """The refusal for a port of this box without a link."""
    return _no_link("office (LAN)" if name == settings.bridge.lan else "internet (WAN)", name)


def _no_link(role: str, name: str) -> Problem:
    text = f"No link on {name}, the {role} port; plug in the cable and switch on what is at its other end."
    return Problem("no_link", f"{text} {name} のケーブルがつながっていません。", waits=True)


def merging(name: str) -> list[str]:
    """Which receive offloads are on: their packets are larger than the inspection path carries."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        on = ["GRO"] if _ethtool(sock, name, ETHTOOL_GGRO) else []
        if _ethtool(sock, name, ETHTOOL_GFLAGS) & ETH_FLAG_LRO:
            on.append("LRO")
        return on


def _ethtool(sock: socket.socket, name: str, command: int) -> int:
    value = array.array("B", struct.pack("=II", command, 0))
    request = struct.pack("16sP", name.encode(), value.buffer_info()[0])
    try:
        fcntl.ioctl(sock, SIOCETHTOOL, request)
    except OSError:
        return 0  # a port without this knob does not merge
    return int(struct.unpack("=II", value.tobytes())[1])
