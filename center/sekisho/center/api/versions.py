"""How long a version of the API lives: until a year after its successor came.

From the successor's first day every answer of the older version says so (`Deprecation`, RFC 9745) and until when it
answers at all (`Sunset`, RFC 8594). After that day it answers 410.
"""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime
from typing import Final

import msgspec


class Version(msgspec.Struct, frozen=True):
    """One version; `succeeded_on` is the day on which its successor came."""

    name: str
    succeeded_on: dt.date | None = None

    @property
    def deprecated_at(self) -> dt.datetime | None:
        day = self.succeeded_on
        return dt.datetime.combine(day, dt.time(), dt.UTC) if day else None

    @property
    def sunset_at(self) -> dt.datetime | None:
        """A year after it; 29 February ends on 1 March."""
        if (day := self.succeeded_on) is None:
            return None
        leap = (day.month, day.day) == (2, 29)
        return dt.datetime(day.year + 1, 3 if leap else day.month, 1 if leap else day.day, tzinfo=dt.UTC)

    def over(self, now: dt.datetime) -> bool:
        return self.sunset_at is not None and now >= self.sunset_at

    def headers(self, now: dt.datetime) -> list[tuple[bytes, bytes]]:
        """What its answers say about its end."""
        since, until = self.deprecated_at, self.sunset_at
        if since is None or until is None or now < since:
            return []
        return [
            (b"deprecation", f"@{int(since.timestamp())}".encode()),
            (b"sunset", format_datetime(until, usegmt=True).encode()),
        ]


VERSIONS: Final = (Version("v1"),)
"""Oldest first."""
