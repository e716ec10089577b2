"""How long somebody who got the password wrong has to wait: longer each time, and all together not too often.

Pure. A source is an IPv4 address or an IPv6 /64. The first `FREE` mistakes cost nothing, then the wait doubles up to
`LONGEST_S`; a source that has been quiet for `FORGET_S` begins anew. Verifying is slow on purpose, so that not more
than `ALL_PER_MINUTE` tries of all sources are looked at in a minute.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque
from typing import Final

FREE: Final = 5
FIRST_S: Final = 2.0
LONGEST_S: Final = 15 * 60.0
FORGET_S: Final = 3600.0
ALL_PER_MINUTE: Final = 30
SOURCES: Final = 512


class Delays:
    """Mistakes by source; times are monotonic seconds."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._tries: deque[float] = deque(maxlen=ALL_PER_MINUTE)

    def wait_s(self, address: str, now: float) -> float:
        """Seconds until this source may try again; 0 = now."""
        count, last = self._wrong.get(_source(address), (0, 0.0))
        own = last + _delay(count) - now if now - last < FORGET_S else 0.0
        full = len(self._tries) == ALL_PER_MINUTE
        return max(0.0, own, self._tries[0] + 60 - now if full else 0.0)

    def tried(self, now: float) -> None:
        """Count a look at a password; called before the look."""
        self._tries.append(now)

    def wrong(self, address: str, now: float) -> int:
        """Count a mistake; how many there were in a row."""
        source = _source(address)
        count, last = self._wrong.pop(source, (0, 0.0))
        count = count + 1 if now - last < FORGET_S else 1
        while len(self._wrong) >= SOURCES:
            self._wrong.popitem(last=False)
        self._wrong[source] = (count, now)
        return count

    def right(self, address: str) -> None:
        self._wrong.pop(_source(address), None)


def _delay(count: int) -> float:
    return 0.0 if count < FREE else min(LONGEST_S, FIRST_S * 2.0 ** min(count - FREE, 16))


def _source(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
