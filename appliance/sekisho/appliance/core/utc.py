"""The one spelling of a time that every event, list and message has: UTC, RFC 3339, microseconds, Z."""

from __future__ import annotations

import datetime as dt


def text(at: dt.datetime) -> str:
    """A time with a zone."""
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def of_unix(seconds: float) -> str:
    return text(dt.datetime.fromtimestamp(seconds, dt.UTC))


def now() -> str:
    return text(dt.datetime.now(dt.UTC))
