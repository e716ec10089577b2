"""How long on-site help may be had, and which year its uses are counted in: the terms' own rules. Pure.

Article 4(1)(3): within 30 days after the alert's mail arrived. A mail cannot arrive before the centre knows of the
alert, so until its arrival is known the 30 days are counted from there: never longer than the terms, and a box that was
out of reach for a week takes none of them away. Every alert has its own 30 days: a case has those of its newest one.
Article 4(3): the insurance runs for one year from the first day of the month after the service began, and again.
Article 4(2): the service itself runs to 31 March.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

import msgspec

LENGTH: Final = dt.timedelta(days=30)


class Window(msgspec.Struct, frozen=True):
    """When on-site help may be had."""

    since: dt.datetime
    counted_from: Literal["mail", "received"]
    zone: dt.tzinfo
    """The customer's, in which days are counted."""

    @property
    def until(self) -> dt.datetime:
        return self.since + LENGTH

    @property
    def last_day(self) -> dt.date:
        return self.until.astimezone(self.zone).date()

    def open(self, now: dt.datetime) -> bool:
        return now <= self.until

    def days_left(self, now: dt.datetime) -> int:
        """Days on the calendar until the last one: 0 on it, negative when it is over."""
        if not self.open(now):
            return -1
        return (self.last_day - now.astimezone(self.zone).date()).days


class Year(msgspec.Struct, frozen=True):
    """The year uses are counted in."""

    first: dt.date
    last: dt.date
    rule: Literal["insurance", "contract"]
    """insurance: Article 4(3). contract: the day the service began is not known, so the contract's year stands in."""


def year(today: dt.date, began: dt.date | None) -> Year:
    """The year `today` is in; `began` is the day the service began (利用開始日)."""
    if began is None:
        first = dt.date(today.year - (today.month < 4), 4, 1)
        return Year(first, _next(first) - dt.timedelta(days=1), "contract")
    first = dt.date(began.year + began.month // 12, began.month % 12 + 1, 1)
    while _next(first) <= today:
        first = _next(first)
    return Year(first, _next(first) - dt.timedelta(days=1), "insurance")


def _next(first: dt.date) -> dt.date:
    return first.replace(year=first.year + 1)
