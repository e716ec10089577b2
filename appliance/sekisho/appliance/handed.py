"""How many packets were handed to an inspector, and how many of them its queue really took.

A full queue that fails open passes a packet on as if it had been looked at, and the kernel keeps no count of that. But
the rule that hands packets over counts them, and the queue numbers those it takes: what lies between was shed. The two
cannot be read at one instant, so the queue is read before and after, and only what was shed for certain is told: how
long a busy machine takes to read makes no packet a shed one. Loading rules afresh (as when the engine hangs) ends the
rule's count: what was shed since the last reading is not known then.

With its program a queue's count is gone. What was asked of it until that was noticed went to nobody, and no queue was
full: it is told apart by the frames that crossed the box's ports since the program was last seen (`Alive`).
What was shed is known in packets and told in bytes of the average packet. Pure, but for `read` and `crossed`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.netfilter import GATE_QUEUE, TOOL_TIMEOUT_S
from sekisho.appliance.watchdog import MAX_QUEUES_BYTES, QUEUES_PATH, Queue, parse_queues

_RULE: Final = re.compile(r"^\[(\d+):\d+\] -A SK_\S+ -j NFQUEUE --queue-num (\d+)", re.M)


class Handed(NamedTuple):
    """Packets since some beginning: asked of one inspector, taken by it."""

    asked: int = 0
    taken: int = 0
    """Just before `asked` was read."""
    after: int = 0
    """As `taken`, just after."""


class Alive(NamedTuple):
    """An inspector as it was last seen at its queue."""

    taken: int = 0
    """Packets its queue had taken."""
    crossed: int = 0
    """Frames that had come in at the box's ports, at the latest."""


class Shed(NamedTuple):
    """Which part of the packets each inspector was handed it never saw, 0-1."""

    engine: float = 0.0
    """Its queue was full."""
    gate: float = 0.0
    engine_left: float = 0.0
    """It had ended, which was noticed later."""
    gate_left: float = 0.0


NONE_SHED: Final = Shed()


class Sheds:
    """Follows one inspector's two counts from reading to reading."""

    def __init__(self) -> None:
        self._anchor: Handed | None = None
        self._last = Handed()

    def handle(self, now: Handed) -> float:
        """The part that its full queue shed since the last call; 0 over a restart of either side."""
        if self._anchor is None or now.asked < self._last.asked or now.taken < self._last.taken:
            self._anchor = self._last = now
            return 0.0
        asked = now.asked - self._last.asked
        most, least = self._missed(now.asked, now.taken, now.after)
        self._last = now
        if most >= 0 >= least:
            return 0.0  # the anchor stays: small ones add up until they are certain
        self._anchor = now
        return min(1.0, least / asked) if least > 0 and asked else 0.0

    def end(self, asked: int, alive: Alive, crossed: int) -> tuple[float, float]:
        """The inspector has ended: the parts that its full queue shed before, and that came when it had left."""
        since = asked - self._last.asked
        if self._anchor is None or since <= 0:
            return 0.0, 0.0
        took = max(alive.taken, self._last.after)
        most, least = self._missed(asked, took, took)
        left = max(0, min(most, crossed - alive.crossed))
        return min(1.0, max(0, least - left) / since), min(1.0, left / since)

    def forget(self) -> None:
        """The inspector was away: what it did not take then is accounted for already."""
        self._anchor = None

    def _missed(self, asked: int, taken: int, after: int) -> tuple[int, int]:
        """How many packets it did not take since the anchor, at most and at least."""
        anchor = self._anchor or Handed()
        asked -= anchor.asked
        return asked - (taken - anchor.after), asked - (after - anchor.taken)


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


def crossed(*ports: str, root: Path = Path("/sys/class/net")) -> int:
    """Frames that have come in at these ports; of one that is gone none."""
    found = 0
    for port in ports:
        with suppress(OSError, ValueError):
            found += int((root / port / "statistics" / "rx_packets").read_text())
    return found


def read() -> tuple[Handed, Handed]:
    """(engine, gate) now; about 40 ms.

    Raises:
        DeviceFault: the tools do not answer.

    """
    try:
        before = _taken_now()
        saved = [
            subprocess.run(
                [f"{tool}-save", "-c", "-t", table], capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=True
            ).stdout
            for tool in ("iptables", "ip6tables")
            for table in ("mangle", "filter")
        ]
        engine, gate = zip(asked("\n".join(saved)), before, _taken_now(), strict=True)
    except (OSError, subprocess.SubprocessError) as err:
        raise DeviceFault(f"The packet rules' counters cannot be read: {err}.") from err
    return Handed(*engine), Handed(*gate)


def _taken_now() -> tuple[int, int]:
    with QUEUES_PATH.open("rb") as source:
        return taken(parse_queues(source.read(MAX_QUEUES_BYTES).decode("ascii", "replace")))
