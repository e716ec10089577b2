"""Times of the week: is it one of them now, and when does that change?

Wall-clock times of one zone. Across a change to or from summer time the wall clock decides, as people expect.
Pure; the caller brings the time.
"""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN: Final = 24 * 60
WEEK_MIN: Final = 7 * DAY_MIN
_RANGE = re.compile(r"(\S+) +(\d{1,2}):(\d\d) *- *(\d{1,2}):(\d\d)")

Span = tuple[int, int]
"""Minutes since Monday 00:00: from (inclusive), to (exclusive), within one week."""


def parse_times(times: tuple[str, ...]) -> tuple[Span, ...]:
    """Spans of the week; "22:00-06:00" goes into the next day.

    Raises:
        ValueError: not days and times.

    """
    spans: list[Span] = []
    for text in times:
        found = _RANGE.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError(f'{text!r} is not like "mon-fri 09:00-18:00"')
        start, end = (int(found[i]) * 60 + int(found[i + 1]) for i in (2, 4))
        if int(found[3]) > 59 or int(found[5]) > 59 or start >= DAY_MIN or end > DAY_MIN or start == end:
            raise ValueError(f"{text!r}: times go from 00:00 to 24:00")
        length = (end - start) % DAY_MIN or DAY_MIN
        for day in _days(found[1]):
            first = day * DAY_MIN + start
            last = first + length
            spans.append((first, min(last, WEEK_MIN)))
            if last > WEEK_MIN:
                spans.append((0, last - WEEK_MIN))
    return tuple(sorted(spans))


def is_within(spans: tuple[Span, ...], now: dt.datetime) -> bool:
    """Whether local time `now` lies in one of the spans."""
    minute = now.weekday() * DAY_MIN + now.hour * 60 + now.minute
    return any(start <= minute < end for start, end in spans)


def next_edge(spans: tuple[Span, ...], now: dt.datetime) -> dt.datetime | None:
    """The next moment (local) at which a span begins or ends; None for no span."""
    monday = (now - dt.timedelta(days=now.weekday())).replace(hour=0, minute=0, second=0, microsecond=0)
    edges = [_at(monday, week * WEEK_MIN + minute) for week in (0, 1) for span in spans for minute in span]
    return min((edge for edge in edges if edge > now), default=None)


def _at(monday: dt.datetime, minute: int) -> dt.datetime:
    day = monday.date() + dt.timedelta(days=minute // DAY_MIN)
    return dt.datetime.combine(day, dt.time(minute % DAY_MIN // 60, minute % 60), monday.tzinfo)


def _days(text: str) -> list[int]:
    if text in ("daily", "every"):
        return list(range(7))
    days: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last and last not in DAYS):
            raise ValueError(f"{part!r} is not a day; {', '.join(DAYS)} and daily are")
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if last else 0
        days += [(start + step) % 7 for step in range(length + 1)]
    return days
