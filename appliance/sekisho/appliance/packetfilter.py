"""The packet rules in force, as the daemon's other parts see them: set, put back when swept away, and counted.

Calls come from several threads; each is one transaction. Hits are summed over reloads, by rule, since the daemon began.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from sekisho.appliance import express, firewall
from sekisho.appliance.packetnews import Reader
from sekisho.policy.model import Netfilter
from sekisho.telemetry.events import Alert


class PacketFilter:
    """Holds the last `Netfilter` that the kernel took. `reader.run` is the thread that reports its hits."""

    def __init__(self, lan: str, report: Callable[[Alert], None]) -> None:
        self.reader = Reader(lan, report)
        self._lock = threading.Lock()
        self._wanted: Netfilter | None = None
        self._before: Counter[str] = Counter()

    def apply(self, wanted: Netfilter) -> None:
        """Put `wanted` in force, live; connections riding the express lane are judged by it as well.

        Raises:
            DeviceFault: the kernel refused it; what was in force stays in force.

        """
        with self._lock:
            if wanted != self._wanted or not firewall.present():
                self._apply(wanted)

    def _apply(self, wanted: Netfilter) -> None:
        counted = self._counted()
        firewall.apply(wanted)
        self._before += counted
        self._wanted = wanted
        self.reader.news.rules(wanted)
        express.flush()

    def mend(self) -> bool:
        """Put the rules back if somebody swept them away; whether that was needed.

        Raises:
            DeviceFault: as `apply`.

        """
        with self._lock:
            if self._wanted is None or firewall.present():
                return False
            self._apply(self._wanted)
            return True

    def hits(self) -> dict[str, int]:
        """Packets that each rule decided, by its id; rules of earlier plans too.

        Raises:
            DeviceFault: nft failed.

        """
        with self._lock:
            return dict(self._before + self._counted())

    def _counted(self) -> Counter[str]:
        if self._wanted is None or not firewall.present():
            return Counter()
        found = firewall.hits()
        return Counter({rule.id: found.get(number, 0) for number, rule in enumerate(self._wanted.rules)})
