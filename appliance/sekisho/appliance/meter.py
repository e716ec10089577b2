"""Counts in the kernel, at the far port, which frames of which device were looked at.

A table of nftables sets (family netdev, egress of both ports, Linux >= 5.16), keyed by the LAN device's MAC: one set
for every way a frame can have taken through the box, told from its mark (core/marks.py). What leaves the LAN port
counts for its destination, what leaves the WAN port for its source, so that all sets together are the two ports' own
transmit counters. A device silent for two hours leaves its set; a set that is full lets the frame fall through to
"full", so that the sum stays right under a flood of invented addresses.

The express lane carries hundreds of thousands of frames a second, and looking up a MAC for each would cost it 7 %. Its
frames are counted exactly in one counter a port, and every thirteenth by MAC: who has which share is told by those.

This module loads, reads and removes the table; what the ways mean is `coverage`'s business.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import msgspec

from sekisho.appliance.core import marks
from sekisho.appliance.core.boot import boot_id
from sekisho.appliance.core.errors import DeviceFault

TABLE: Final = "sekisho_coverage"
TOOL_TIMEOUT_S: Final = 10
SET_SIZE: Final = 4096
REMEMBERED: Final = "2h"
"""Far longer than the time between two readings: an element that goes has been read."""
_LET_GO: Final = marks.EXPRESS | marks.BYPASS
_SEALED: Final = "{ 443, 500, 853, 4500, 51820 }"
"""UDP ports of QUIC, IKE, DNS over QUIC and WireGuard: the engine sees the handshake, nobody the content."""

_RIDES: Final = f"meta mark {marks.BYPASS:#x}"
"""Just this mark: given by the express lane, whose frames have passed no other rule."""
_EACH: Final = 13
"""Prime, so that no rhythm of data and acknowledgements falls in step with it."""
SIDES: Final = ("lan", "wan")
RIDERS: Final = "riders"
"""Way whose counts are the two ports' exact totals of the express lane, by side; the samples are `sample_SIDE`."""

SAMPLES: Final = {side: f"sample_{side}" for side in SIDES}
WAYS: Final = ("opaque", "large", "scarce", "gate", "both", "engine", "sealed", "own", "around", "other")
"""opaque: let go after the handshake. large, scarce: the gate let it go unlooked at for its size or for lack of memory.
gate, both, engine: who had to look. sealed: the engine, but all is encrypted. own: the box speaks itself. around: IP
that was handed to nobody. other: not IP."""


class Reading(msgspec.Struct, frozen=True):
    """All counters at one instant: way -> MAC -> bytes since the beginning of `epoch`."""

    epoch: str
    """Changes whenever the counters began anew (a restart of the machine, a table loaded afresh)."""
    counts: dict[str, dict[str, int]]


class _Counter(msgspec.Struct):
    bytes: int
    name: str = ""


class _Element(msgspec.Struct):
    val: str
    counter: _Counter


class _Entry(msgspec.Struct):
    elem: _Element


class _Set(msgspec.Struct):
    name: str
    elem: list[_Entry] = []


class _Table(msgspec.Struct):
    handle: int


class _Rule(msgspec.Struct):
    comment: str = ""
    expr: list[dict[str, Any]] = []


class _Object(msgspec.Struct):
    rule: _Rule | None = None
    table: _Table | None = None
    set: _Set | None = None
    counter: _Counter | None = None


class _Listing(msgspec.Struct):
    nftables: list[_Object]


def plan(lan: str, wan: str, own: list[str]) -> str:
    """The nftables text; `own` are the box's MAC addresses. Replaces an earlier table in one transaction."""
    body = _body(lan, wan, own)
    name = _plan_name(body)
    head = [f"table netdev {TABLE}", f"delete table netdev {TABLE}", f"table netdev {TABLE} {{"]
    return "\n".join([*head, f"counter {name} {{ }}", *body, "}", ""])


def _body(lan: str, wan: str, own: list[str]) -> list[str]:
    lines = ["counter full { }"]
    for way in (*WAYS, *SAMPLES.values()):
        lines.append(f"set {way} {{ type ether_addr; size {SET_SIZE}; flags dynamic,timeout; timeout {REMEMBERED};")
        lines.append("counter; }")
    ours = f"ether saddr {{ {', '.join(sorted(set(own)))} }}" if own else ""
    return lines + _chain("lan", lan, "daddr", ours) + _chain("wan", wan, "saddr", ours)


def _chain(side: str, device: str, key: str, ours: str) -> list[str]:
    def count(way: str, match: str, of: str = key) -> str:
        return f"{match} update @{way} {{ ether {of} }} accept".strip()

    return [
        f"chain to_{side} {{",
        f'type filter hook egress device "{device}" priority 10; policy accept;',
        f'{_RIDES} counter numgen inc mod {_EACH} != 0 accept comment "{RIDERS}_{side}"',
        count(SAMPLES[side], _RIDES),
        count("opaque", f"meta mark & {_LET_GO:#x} != 0"),
        count("large", f"meta mark & {marks.LARGE:#x} != 0"),
        count("scarce", f"meta mark & {marks.SCARCE:#x} != 0"),
        count("gate", f"meta mark & {marks.DEEP:#x} != 0"),
        count("both", f"meta mark & {marks.FILES:#x} != 0"),
        f"meta mark & {marks.SEEN:#x} != 0 jump seen_{side}",
        *([count("own", ours, "saddr")] if ours else []),
        count("around", "meta protocol { ip, ip6 }"),
        count("other", ""),
        "counter name full",
        "}",
        f"chain seen_{side} {{",
        count("sealed", f"udp sport {_SEALED}"),
        count("sealed", f"udp dport {_SEALED}"),
        count("sealed", "meta l4proto esp"),
        count("engine", ""),
        "}",
    ]


def _plan_name(body: list[str]) -> str:
    return "plan_" + hashlib.sha256("\n".join(body).encode()).hexdigest()[:12]


def own_addresses(*devices: str, root: Path = Path("/sys/class/net")) -> list[str]:
    """MAC addresses of those devices that exist."""
    found = []
    for device in devices:
        try:
            found.append((root / device / "address").read_text().strip())
        except OSError:
            continue
    return [mac for mac in found if re.fullmatch(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", mac)]


def install(lan: str, wan: str, own: list[str]) -> bool:
    """Load the table unless just this one is there and counting; True when counting began anew.

    Raises:
        DeviceFault: nft or the kernel refused it; the traffic is not touched by that.

    """
    name = _plan_name(_body(lan, wan, own))
    if _run(["list", "counter", "netdev", TABLE, name]).returncode == 0:
        return False
    done = _run(["-f", "-"], plan(lan, wan, own))
    if done.returncode != 0:
        raise DeviceFault(f"The coverage counters were refused: {done.stderr.strip()[-300:]}.")
    return True


def remove() -> None:
    """Take the table away if it is there.

    Raises:
        DeviceFault: nft failed.

    """
    if _run(["list", "counter", "netdev", TABLE, "full"]).returncode == 0:
        done = _run(["delete", "table", "netdev", TABLE])
        if done.returncode != 0:
            raise DeviceFault(f"The coverage counters could not be removed: {done.stderr.strip()[-300:]}.")


def read() -> Reading:
    """The counters now.

    Raises:
        DeviceFault: the table is gone, or nft does not answer in its own language.

    """
    done = _run(["-j", "list", "table", "netdev", TABLE])
    if done.returncode != 0:
        raise DeviceFault(f"The coverage counters cannot be read: {done.stderr.strip()[-300:]}.")
    try:
        return parse(done.stdout, boot_id())
    except msgspec.MsgspecError as err:
        raise DeviceFault(f"The coverage counters are not understood: {err}.") from err


def parse(text: str, boot: str) -> Reading:
    """A reading from nft's JSON.

    Raises:
        msgspec.MsgspecError: it is something else.

    """
    counts: dict[str, dict[str, int]] = {}
    handle = 0
    for each in msgspec.json.decode(text, type=_Listing).nftables:
        if each.table is not None:
            handle = each.table.handle
        elif each.set is not None and (each.set.name in WAYS or each.set.name in SAMPLES.values()):
            counts[each.set.name] = {entry.elem.val: entry.elem.counter.bytes for entry in each.set.elem}
        elif each.counter is not None and each.counter.name == "full":
            counts["full"] = {"": each.counter.bytes}
        elif each.rule is not None and each.rule.comment.startswith(f"{RIDERS}_"):
            totals = counts.setdefault(RIDERS, {})
            totals[each.rule.comment.removeprefix(f"{RIDERS}_")] = _counted(each.rule)
    return Reading(f"{boot}:{handle}", counts)


def _counted(rule: _Rule) -> int:
    return next(msgspec.convert(part["counter"], _Counter).bytes for part in rule.expr if "counter" in part)


def _run(arguments: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"The coverage counters cannot be reached: {err}.") from err
