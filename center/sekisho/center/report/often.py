"""How often one source may ask what anybody may ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

SOURCES_CAP: Final = 10_000


class Often:
    """At most `cap` in `within_s` of one source, counted in fixed spans; the oldest sources are forgotten first."""

    def __init__(self, cap: int, within_s: float) -> None:
        self._cap, self._within_s = cap, within_s
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def may(self, source: str, now_s: float) -> bool:
        """Count one more; False when it is too many."""
        span = int(now_s / self._within_s)
        with self._lock:
            then, number = self._seen.pop(source, (span, 0))
            number = number + 1 if then == span else 1
            self._seen[source] = (span, number)
            while len(self._seen) > SOURCES_CAP:
                self._seen.popitem(last=False)
        return number <= self._cap
