"""Times as the CA's tables keep them: RFC 3339, UTC, microseconds, so that text order is time order."""

from __future__ import annotations

import datetime as dt

from sekisho.appliance.core import utc


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def text(at: dt.datetime) -> str:
    return utc.text(at)
