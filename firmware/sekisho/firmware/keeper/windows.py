"""When a choice is due: now, from an hour on, or in the weekly window in the customer's zone. Needs no network."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Final

from sekisho.firmware.keeper.journal import Attempt, Choice
from sekisho.policy.overlay import Restart

MISSED_S: Final = 3600.0
"""A choice for an hour is over so much later: a box that was off then asks again."""
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S: Final = 86_400.0
FIRST_S: Final = 3 * DAY_S
"""Before the deadline the customer is reminded for the first time."""


def zone_of(name: str) -> dt.tzinfo | None:
    """The zone, the box's own for an empty name; None where it is not known here: then no window is open."""
    if not name:
        return dt.datetime.now().astimezone().tzinfo
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def open_until(weekly: Restart | None, zone: str, wall: float) -> float:
    """End (unix seconds) of the window that is open at `wall`; 0 when none is. Its length is in real hours."""
    return next((end for start, end in _around(weekly, zone, wall) if start <= wall < end), 0.0)


def next_open(weekly: Restart | None, zone: str, wall: float) -> float:
    """When a window opens next, or `wall` while one is open; 0 when none ever does."""
    return next((max(start, wall) for start, end in _around(weekly, zone, wall) if wall < end), 0.0)


def _around(weekly: Restart | None, zone: str, wall: float) -> list[tuple[float, float]]:
    """Windows from yesterday on for eight days, by their local beginnings."""
    found = zone_of(zone)
    if weekly is None or found is None:
        return []
    try:
        today = dt.datetime.fromtimestamp(wall, found).date()
    except (ValueError, OverflowError, OSError):
        return []
    hour, minute = map(int, weekly.start.split(":"))
    opened = []
    for offset in range(-1, 9):
        day = today + dt.timedelta(days=offset)
        if _DAYS[day.weekday()] in weekly.days:
            start = dt.datetime(day.year, day.month, day.day, hour, minute, tzinfo=found).timestamp()
            opened.append((start, start + weekly.hours * 3600.0))
    return opened


def due(choice: Choice, weekly: Restart | None, zone: str, wall: float) -> bool:
    """Whether what was chosen may begin at this second."""
    if wall < choice.at or over(choice, wall):
        return False
    return not choice.window or open_until(weekly, zone, wall) > 0


def over(choice: Choice, wall: float) -> bool:
    """Whether its time passed unused."""
    return bool(choice.until) and wall > choice.until


def reminders(attempt: Attempt, wall: float) -> int:
    """Reminders due by now: three days and one day before the deadline, at it, and each day after."""
    if not attempt.deadline:
        return 0
    passed = wall - attempt.deadline
    if passed >= 0:
        return 3 + int(passed // DAY_S)
    return 2 if passed >= -DAY_S else 1 if passed >= -FIRST_S else 0
