"""By which clock an event's time was told, and how wrong that clock was.

A box without a battery boots in 1970, one with a bad chip in 2099, and the clock jumps when it is set. A *clock*
here is a stretch of one boot in which wall time and monotonic time ran side by side; each jump begins a new one.
Rows remember their clock. Once the true time is known at any instant (`confirm`), monotonic time says how wrong
every clock of this boot was; that is what the centre adds to the rows' times. `Clocks` itself reads no clock.

Of an earlier boot whose clock was wrong nobody can say how long the power was off: it is placed so that its last
sign of life lies where this boot was first looked at, the latest it can have been.
"""

from __future__ import annotations

import datetime as dt
import secrets
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance.core.fsio import write_atomic

JUMP_S: Final = 0.5
"""Wall time that moved this far against monotonic time has jumped, or was slewed so far in all."""
SMALL_S: Final = 1.0
"""A clock that is less wrong than this is called right."""
STRAY_S: Final = 3600.0
"""A time further than this from every clock we know was told by none of them, and is left as it is."""
SEEN_STEP_S: Final = 60.0
"""How stale a clock's last sign of life on disk may be (each would cost the flash a write)."""
FLOOR_STEP_S: Final = 3600.0
PLAUSIBLE_S: Final = 10 * 366 * 86400.0
"""A clock beyond this after the newest time known is not believed without an answer."""
RELEASED: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
"""Before this there was no such product: no clock can be right that says so."""
SLACK_S: Final = 0.05
MAX_CLOCKS: Final = 64
NO_CLOCK: Final = 0

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS clock(
  id INTEGER PRIMARY KEY, boot TEXT NOT NULL, base REAL NOT NULL, began REAL NOT NULL, seen REAL NOT NULL, off REAL);
"""


@dataclass
class Clock:
    """One stretch. Times are unix seconds as this clock told them."""

    id: int
    boot: str
    base: float
    """Wall minus monotonic time."""
    began: float
    seen: float
    """Its last sign of life."""
    off: float | None = None
    """Seconds to add for true time; None while nobody knows."""


class Clocks:
    """All clocks that rows on this box may refer to, the running one last."""

    def __init__(self, boot: str, wall: float, mono: float, kept: list[Clock] | None = None, floor: float = 0) -> None:
        self.floor = max(floor, RELEASED)
        """The newest time that is known to have been reached."""
        self._clocks = kept or []
        self._boot = boot
        self._looked_first = mono
        self._presumed = False
        self._learnt = False
        self._saved_seen = self._clocks[-1].seen if kept else 0.0
        self._saved_floor = self.floor
        if not kept or kept[-1].boot != boot:
            self._begin(wall, wall - mono, wall - mono)
        self.observe(wall, mono)

    def observe(self, wall: float, mono: float) -> None:
        """Note both times, read together; called often, so that a jump is seen when it happens."""
        running, base = self._clocks[-1], wall - mono
        if abs(base - running.base) > JUMP_S:
            since = mono - (running.seen - running.base)
            self._begin(wall, base, wall - max(0.0, since))
            if running.off is not None:
                self._clocks[-1].off = running.off + running.base - base
        self._clocks[-1].seen = wall
        self._span = _text(self._clocks[-1].began), _text(wall)

    def of(self, at: str) -> int:
        """The clock that told an event's time: the newest one that ran then. `NO_CLOCK` where none comes near."""
        if len(at) == _TEXT_LENGTH and self._span[0] <= at <= self._span[1]:
            return self._clocks[-1].id  # the usual case, exact and without a calendar
        try:
            told = dt.datetime.fromisoformat(at).timestamp()
        except (ValueError, OverflowError):
            return NO_CLOCK
        distance, _, found = min((_distance(clock, told), -clock.id, clock.id) for clock in self._clocks)
        return found if distance <= STRAY_S else NO_CLOCK

    def off(self, clock: int) -> float | None:
        """Seconds the centre must add to times of this clock, 0.0 where it was right; None: not known yet."""
        for known in self._clocks:
            if known.id == clock:
                if known.off is not None:
                    return round(known.off, 3) if abs(known.off) >= SMALL_S else 0.0
                return 0.0 if self._presumed and self._plausible(known) else None
        return 0.0

    def true_time(self, mono: float) -> float | None:
        """True unix time, or None while it is not confirmed in this boot."""
        running = self._clocks[-1]
        return None if running.off is None else mono + running.base + running.off

    def best_time(self, mono: float) -> float:
        """The true time where it is confirmed, otherwise the wall clock's if that may be right, or the newest known."""
        true = self.true_time(mono)
        return self.plausible_wall() if true is None else true

    @property
    def right(self) -> bool:
        """Whether the running wall clock is confirmed, and right."""
        off = self._clocks[-1].off
        return off is not None and abs(off) < SMALL_S

    def confirm(self, true: float, mono: float) -> None:
        """Take `true` for the time at this instant of monotonic time."""
        boot_began = true - mono
        for clock in reversed(self._clocks):
            if clock.boot == self._boot:
                self._set(clock, boot_began - clock.base)
        self._place_earlier_boots(boot_began + self._looked_first)
        self.floor = max(self.floor, true)
        self._learnt |= self.floor - self._saved_floor > FLOOR_STEP_S

    def presume(self) -> None:
        """Nobody answers: from now on believe clocks that may be right."""
        self._presumed = True

    def plausible_wall(self) -> float:
        """The running wall clock where it may be right, otherwise the newest time known."""
        running = self._clocks[-1]
        return running.seen if self._plausible(running) else self.floor

    @property
    def learnt(self) -> bool:
        """Whether there is news worth a write of its own: an answer, a jump."""
        return self._learnt

    def save(self, db: sqlite3.Connection) -> None:
        """Write what changed, inside the caller's transaction."""
        if not (self._learnt or abs(self._clocks[-1].seen - self._saved_seen) > SEEN_STEP_S):
            return
        db.executemany("INSERT OR REPLACE INTO clock VALUES (?, ?, ?, ?, ?, ?)", [astuple(c) for c in self._clocks])
        db.execute("DELETE FROM clock WHERE id < ?", (self._clocks[0].id,))
        db.execute("INSERT OR REPLACE INTO meta VALUES ('floor', ?)", (str(self.floor),))
        self._saved_seen, self._saved_floor, self._learnt = self._clocks[-1].seen, self.floor, False

    def _begin(self, wall: float, base: float, began: float) -> None:
        number = self._clocks[-1].id + 1 if self._clocks else 1
        self._clocks = [*self._clocks, Clock(number, self._boot, base, began, wall)][-MAX_CLOCKS:]
        self._learnt = True

    def _set(self, clock: Clock, off: float) -> None:
        self._learnt |= clock.off is None or abs(clock.off - off) > JUMP_S
        clock.off = off

    def _place_earlier_boots(self, ended: float) -> None:
        """Boots before this one, newest first, none later than the beginning of the one after it."""
        boots = {clock.boot: [c for c in self._clocks if c.boot == clock.boot] for clock in self._clocks}
        for boot in reversed([name for name in boots if name != self._boot]):
            last = boots[boot][-1]
            if last.off is None:
                right = self._plausible(last) and last.seen <= ended + SMALL_S
                self._set(last, 0.0 if right else ended - last.seen)
            boot_began = last.base + (last.off or 0.0)
            for clock in boots[boot]:
                if clock.off is None:
                    self._set(clock, boot_began - clock.base)
            ended = min(ended, boots[boot][0].began + (boots[boot][0].off or 0.0))

    def _plausible(self, clock: Clock) -> bool:
        return clock.began >= RELEASED and clock.seen <= self.floor + PLAUSIBLE_S


def load(db: sqlite3.Connection, boot: str, wall: float, mono: float) -> Clocks:
    """The clocks kept in the spool's database, and the one that runs now."""
    kept = [Clock(*row) for row in db.execute("SELECT id, boot, base, began, seen, off FROM clock ORDER BY id")]
    floor = db.execute("SELECT value FROM meta WHERE key = 'floor'").fetchone()
    return Clocks(boot, wall, mono, kept, float(floor[0]) if floor else 0.0)


def _text(unix_s: float) -> str:
    """As `events` write times; of one length, so that later is greater."""
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(seconds=min(max(0.0, unix_s), _LAST))  # noqa: DTZ001 - no zone is written
    return f"{moment.isoformat(timespec='microseconds')}Z"


_LAST: Final = dt.datetime(9999, 12, 31, tzinfo=dt.UTC).timestamp()
_TEXT_LENGTH: Final = len("1970-01-01T00:00:00.000000Z")


def _distance(clock: Clock, told: float) -> float:
    distance = max(clock.began - told, told - clock.seen)
    return distance if distance > SLACK_S else 0.0


def may_expire(now: float, made: Iterable[float]) -> bool:
    """Whether things made at these times (unix seconds) may be judged by their age at `now`.

    Not by a clock that is years ahead of all of them: a box that boots in 2099 would throw away what it keeps.
    """
    oldest = min((at for at in made if at >= RELEASED), default=now)
    return now - oldest <= PLAUSIBLE_S


def read() -> tuple[float, float]:
    """Wall and monotonic time of one instant, as near as the scheduler lets us."""
    for _ in range(8):
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < SLACK_S:
            break
    return wall, (before + after) / 2


def boot_mark(run: Path) -> str:
    """A name for this boot: kept in a directory that a boot empties. One that cannot be kept is a new boot."""
    path, made = run / ".boot", secrets.token_hex(8)
    with suppress(OSError, UnicodeDecodeError):
        if path.exists():
            return path.read_text()[:64]
        write_atomic(path, made.encode())
    return made
