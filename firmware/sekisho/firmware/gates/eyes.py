"""Looks at what works: the ports' links and counters, what the inspectors say of themselves, telemetry's numbers.

Nothing is sent and nothing is changed. Traffic passes when frames that came in at one port leave at the other; where
much arrives and next to nothing leaves, it does not. Broadcasts alone, as every office has, are enough to tell. What
the box itself sends and gets (it tells the centre of itself all the time) passes the same ports and is no such sign:
the bridge's own counters say at most how much it was.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import desk, standing
from sekisho.appliance.core.errors import SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.keeper.journal import Flowing, Seen
from sekisho.telemetry.counter import LinkAsk, LinkTold

OVER_S: Final = 10.0
"""Over which frames are counted."""
ENOUGH: Final = 20 * 64
"""Bytes that arrive in that time for others than the box, of which some would have left again."""
OWN: Final = 1.2
"""The box's own may be so much more at a port than at the bridge: large packets are cut there, each with a head."""
ASK_S: Final = 5.0
"""Telemetry is asked this often."""
LOST_S: Final = 30.0
"""What telemetry said holds so long: it is away for a moment when it is renewed."""

_NET: Final = Path("/sys/class/net")
_Counts = tuple[int, int, int, int, int, int]
"""Bytes received and sent: the office's port, the internet's, the bridge itself."""


class Eyes:
    """One box's. Not for several threads at once."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic, net: Path = _NET) -> None:
        self._settings, self._clock, self._net = settings, clock, net
        self._counted: deque[tuple[float, _Counts]] = deque(maxlen=60)
        self._told: tuple[float, LinkTold] | None = None
        self._asked = -ASK_S

    def watch(self, sleep: Callable[[float], None] = time.sleep) -> Seen:
        """What works, after counting frames for long enough."""
        seen = self.look()
        for _ in range(int(OVER_S) + 1):
            sleep(1.0)
            seen = self.look()
        return seen

    def look(self) -> Seen:
        """What works at this moment; counters are compared with those of `OVER_S` ago."""
        now, settings = self._clock(), self._settings
        engine, scanner = (standing.try_read(settings, who, now) for who in ("engine", "scanner"))
        out, back = self._flows(now)
        told = self._telemetry(now)
        return Seen(
            lan=self._link(settings.bridge.lan),
            wan=self._link(settings.bridge.wan),
            out=out,
            back=back,
            rules=engine.rules if engine is not None else 0,
            engine_canary=engine is not None and engine.canary == "caught",
            scanner_canary=scanner is not None and scanner.canary == "caught",
            quarantine=scanner is not None and scanner.keeps,
            spool=told.next if told is not None else 0,
            epoch=told.epoch if told is not None else "",
            centre=told is not None and told.connected,
        )

    def _link(self, port: str) -> bool:
        return _text(self._net / port / "carrier") == "1"

    def _flows(self, now: float) -> tuple[Flowing, Flowing]:
        """From the office out, and back in."""
        bridge = self._settings.bridge
        counted = (*self._bytes(bridge.lan), *self._bytes(bridge.wan), *self._bytes(bridge.name))
        if self._counted and any(new < old for new, old in zip(counted, self._counted[-1][1], strict=True)):
            self._counted.clear()  # a port that was made anew counts from nothing
        self._counted.append((now, counted))
        while len(self._counted) > 1 and now - self._counted[1][0] >= OVER_S:
            self._counted.popleft()
        since = self._counted[0]
        if now - since[0] < OVER_S:
            return "idle", "idle"
        moved = [new - old for new, old in zip(counted, since[1], strict=True)]
        lan_in, lan_out, wan_in, wan_out, own_in, own_out = moved
        return _flowing(lan_in, wan_out, own_in, own_out), _flowing(wan_in, lan_out, own_in, own_out)

    def _bytes(self, port: str) -> tuple[int, int]:
        """Received and sent."""
        rx, tx = (_text(self._net / port / "statistics" / f"{way}_bytes") for way in ("rx", "tx"))
        return int(rx) if rx.isdecimal() else 0, int(tx) if tx.isdecimal() else 0

    def _telemetry(self, now: float) -> LinkTold | None:
        if now - self._asked >= ASK_S:
            self._asked = now
            try:
                for frame in desk.ask(self._settings.sent_socket, msgspec.json.encode(LinkAsk())):
                    self._told = (now, msgspec.json.decode(frame, type=LinkTold))
            except (SekishoError, msgspec.MsgspecError):
                pass
        if self._told is None or now - self._told[0] > LOST_S:
            return None
        return self._told[1]


def _flowing(arrived: int, left: int, own_in: int, own_out: int) -> Flowing:
    """Bytes at the two ports, and what of all ports was the box's own."""
    if arrived > 0 and left > OWN * own_out:
        return "yes"
    others = arrived - OWN * own_in
    return "no" if others >= ENOUGH and 2 * left < others else "idle"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
