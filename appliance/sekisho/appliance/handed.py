"""How many packets were handed to an inspector, and how many of them its queue really took.

A full queue that fails open passes a packet on as if it had been looked at, and the kernel keeps no count of that. But
the rule that hands packets over counts them, and the queue numbers those it takes: what lies between was shed. Loading
rules afresh (as when the engine hangs) ends the rule's count: what was shed since the last reading is not known then.
What was shed is known in packets and told in bytes of the average packet. Pure, but for `read`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from typing import Final, NamedTuple

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.netfilter import GATE_QUEUE, TOOL_TIMEOUT_S
from sekisho.appliance.watchdog import MAX_QUEUES_BYTES, QUEUES_PATH, Queue, parse_queues

JITTER: Final = 200
"""Packets that may lie between reading one side and the other; a queue that overflows sheds thousands."""
_RULE: Final = re.compile(r"^\[(\d+):\d+\] -A SK_\S+ -j NFQUEUE --queue-num (\d+)", re.M)


class Handed(NamedTuple):
    """Packets since some beginning: asked of one inspector, taken by it."""

    asked: int = 0
    taken: int = 0


class Shed(NamedTuple):
    """Which part of the packets each inspector was handed it never saw, 0-1."""

    engine: float = 0.0
    gate: float = 0.0


NONE_SHED: Final = Shed()


class Sheds:
    """Follows one inspector's two counts from reading to reading."""

    def __init__(self) -> None:
        self._anchor: Handed | None = None
        self._last = Handed()

    def handle(self, now: Handed) -> float:
        """The part that was shed since the last call; 0 over a restart of either side."""
        if self._anchor is None or now.asked < self._last.asked or now.taken < self._last.taken:
            self._anchor = self._last = now
            return 0.0
        asked = now.asked - self._last.asked
        gap = (now.asked - self._anchor.asked) - (now.taken - self._anchor.taken)
        self._last = now
        if 0 <= gap <= JITTER:
            return 0.0  # the anchor stays: small ones add up until they can be told from jitter
        self._anchor = now
        return min(1.0, gap / asked) if gap > 0 and asked else 0.0

    def forget(self) -> None:
        """The inspector was away: what it did not take then is accounted for already."""
        self._anchor = None


def asked(rules: str) -> tuple[int, int]:
    """(engine, gate) from what iptables-save -c says."""
    found = {True: 0, False: 0}
    for packets, number in _RULE.findall(rules):
        found[int(number) == GATE_QUEUE] += int(packets)
    return found[False], found[True]


def taken(queues: Mapping[int, Queue]) -> tuple[int, int]:
    """(engine, gate) from the kernel's table of queues."""
    found = {True: 0, False: 0}
    for number, queue in queues.items():
        found[number == GATE_QUEUE] += queue.sequence
    return found[False], found[True]


def read() -> tuple[Handed, Handed]:
    """(engine, gate) now; about 40 ms.

    Raises:
        DeviceFault: the tools do not answer.

    """
    try:
        saved = [
            subprocess.run(
                [f"{tool}-save", "-c", "-t", table], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True
            ).stdout
            for tool in ("iptables", "ip6tables")
            for table in ("mangle", "filter")
        ]
        with QUEUES_PATH.open("rb") as source:
            queues = parse_queues(source.read(MAX_QUEUES_BYTES).decode("ascii", "replace"))
    except (OSError, subprocess.SubprocessError) as err:
        raise DeviceFault(f"The packet rules' counters cannot be read: {err}.") from err
    engine, gate = zip(asked("\n".join(saved)), taken(queues), strict=True)
    return Handed(*engine), Handed(*gate)
