"""A calendar month in a customer's zone."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo
from typing import Final

import msgspec

from sekisho.appliance.core.errors import RejectedInput

_NAME: Final = re.compile(r"(20\d\d)-(0[1-9]|1[0-2])")


class Month(msgspec.Struct, frozen=True):
    """One month; `zone` is where it begins and ends."""

    year: int
    number: int
    zone: str

    def __str__(self) -> str:
        return f"{self.year:04}-{self.number:02}"

    @property
    def first(self) -> dt.datetime:
        return self._begin(self.year, self.number)

    @property
    def until(self) -> dt.datetime:
        """The first instant that is no more of it."""
        return self._begin(self.year + self.number // 12, self.number % 12 + 1)

    @property
    def days(self) -> list[dt.date]:
        length = (self.until.date() - self.first.date()).days
        return [self.first.date() + dt.timedelta(days=day) for day in range(length)]

    def before(self) -> Month:
        return Month(self.year - (self.number == 1), (self.number - 2) % 12 + 1, self.zone)

    def after(self) -> Month:
        return Month(self.year + self.number // 12, self.number % 12 + 1, self.zone)

    def over(self, now: dt.datetime) -> bool:
        return now >= self.until

    def _begin(self, year: int, number: int) -> dt.datetime:
        return dt.datetime(year, number, 1, tzinfo=zoneinfo.ZoneInfo(self.zone))


def read(name: str, zone: str, now: dt.datetime) -> Month:
    """The month YYYY-MM; the one `now` is in where there is no name.

    Raises:
        RejectedInput: it is no month, or it has not begun.

    """
    local = now.astimezone(zoneinfo.ZoneInfo(zone))
    match = _NAME.fullmatch(name or f"{local:%Y-%m}")
    month = Month(int(match[1]), int(match[2]), zone) if match else None
    if month is None or month.first > now:
        raise RejectedInput("A month is written like 2026-04, and must have begun.")
    return month
