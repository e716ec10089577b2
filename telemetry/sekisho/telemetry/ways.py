"""The ways out of an office to the centre's broker, and which is tried when. Pure: no socket, no clock.

An office lets out what its firewall and its proxy let out. Tried in this order: MQTT over TLS on the broker's own
port; the same on the port of HTTPS; MQTT in WebSocket there. With a proxy configured each goes through it first,
then all go directly. What worked is tried first the next time. While a poorer way is in use the better ones are
looked at now and then. Rounds in which nothing worked are put off, longer each time, by a random share of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from sekisho.appliance.core.settings import Telemetry

FIRST_S: Final = 0.5
CAP_S: Final = 30.0
"""Between two rounds at most."""
BETWEEN_S: Final = 0.3
"""Between two ways of one round at most."""
HELD_S: Final = 10.0
"""A connection that ended sooner counts as a failure: who accepts and hangs up is not called in a tight loop."""
BETTER_S: Final = 3600.0
"""How often better ways are looked at while a poorer one works, give or take a fifth."""

Jitter = Callable[[float, float], float]
"""A random number between two."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT."""

    host: str
    port: int
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Way:
    """One way to reach the broker; the lower its rank, the better."""

    host: str
    port: int
    rank: int
    websocket: bool = False
    alpn: str = ""
    proxy: Proxy | None = None

    def __str__(self) -> str:
        through = f", through the proxy {self.proxy!r}" if self.proxy else ""
        return f"{self.host}:{self.port} ({'WebSocket' if self.websocket else 'MQTT'}{through})"


def parse_proxy(url: str) -> Proxy | None:
    """The proxy of a URL the settings have accepted; None for an empty one."""
    if not url:
        return None
    parts = urlsplit(url)
    return Proxy(parts.hostname or "", parts.port or 0, unquote(parts.username or ""), unquote(parts.password or ""))


def plan_ways(link: Telemetry, hosts: Sequence[str]) -> list[Way]:
    """Every way to every one of `hosts`, best first."""
    kinds: list[tuple[int, bool, str]] = [(link.port, False, "")]
    # On the port of HTTPS one front door sorts its guests by what they say they speak.
    if link.fallback_port not in (0, link.port):
        kinds.append((link.fallback_port, False, "mqtt"))
    if link.fallback_port:
        kinds.append((link.fallback_port, True, "http/1.1"))
    proxy = parse_proxy(link.proxy)
    through = [proxy, None] if proxy else [None]
    ranked = [(kind, via) for via in through for kind in kinds]
    return [
        Way(host, port, rank, websocket, alpn, via)
        for rank, ((port, websocket, alpn), via) in enumerate(ranked)
        for host in hosts
    ]


class Chooser:
    """Says which way to try next, and when."""

    def __init__(self, ways: list[Way], jitter: Jitter, favourite: str = "") -> None:
        """`favourite` is the way (as text) that worked last, if it is still one of `ways`."""
        self._ways = ways
        self._jitter = jitter
        self._favourite = next((way for way in ways if str(way) == favourite), ways[0])
        self._round = self._new_round()
        self._failed_rounds = 0
        self.due_at = 0.0
        """When `next` has something again."""
        self._since = 0.0
        self._better_at = 0.0

    def next(self, now: float) -> Way | None:
        """The way to try now; None while it is too early."""
        return self._round.pop(0) if now >= self.due_at else None

    def failed(self, now: float) -> None:
        """The way last returned by `next` did not lead to the broker."""
        if self._round:
            self.due_at = now + self._jitter(0.0, BETWEEN_S)
        else:
            self._next_round(now)

    def connected(self, way: Way, now: float) -> None:
        self._favourite = way
        self._since = now
        self._look_later(now)

    def lost(self, now: float) -> None:
        """The connection `connected` told of has ended."""
        if now - self._since >= HELD_S:
            self._failed_rounds = 0
        self._next_round(now)

    def to_look_at(self, now: float) -> list[Way]:
        """Better ways than the one in use, when it is time to look at them again."""
        if now < self._better_at:
            return []
        self._look_later(now)
        return [way for way in self._ways if way.rank < self._favourite.rank]

    def prefer(self, way: Way) -> None:
        """A way was seen to work: it comes first, and soon, when the connection ends."""
        self._favourite = way
        self._since = -HELD_S

    def _look_later(self, now: float) -> None:
        self._better_at = now + self._jitter(0.8 * BETTER_S, 1.2 * BETTER_S)

    def _next_round(self, now: float) -> None:
        """Full jitter, so that a thousand boxes do not come back in the same instant."""
        ceiling = min(CAP_S, FIRST_S * 2 ** min(self._failed_rounds, 8))
        self._failed_rounds += 1
        self.due_at = now + self._jitter(FIRST_S, max(ceiling, 2 * FIRST_S))
        self._round = self._new_round()

    def _new_round(self) -> list[Way]:
        return [self._favourite, *(way for way in self._ways if way != self._favourite)]
