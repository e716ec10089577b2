"""What a box's wrong clock wrote, in true time. The box says by how much it was wrong (`off` of a batch's header)."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.telemetry.events import Event

OFF_CAP_S: Final = 200 * 366 * 86400.0
"""No clock is further off than from one end of a certificate's calendar to the other."""
_TIMES: Final = frozenset({"at", "until", "first_seen", "last_seen", "hour", "checked"})
"""Fields that hold a time, in events and in what events hold."""


def corrected(event: Event, off_s: float) -> Event:
    """The event with `off_s` seconds added to every time that the wrong clock told.

    `at` always is such a time. Another field (when a device was first seen, when a file was delivered) may be
    older and right: it is moved only if it lies nearer to the uncorrected `at` than to the corrected one.

    Raises:
        ValueError: a time that is none, or that leaves the calendar.

    """
    if not off_s:
        return event
    try:
        told = dt.datetime.fromisoformat(event.at)
        if told.tzinfo is None:
            raise ValueError("a time without zone")
        moved: Event = _moved(event, told, dt.timedelta(seconds=off_s))
        return moved
    except (OverflowError, TypeError) as err:
        raise ValueError("a time out of range") from err


def _moved(struct: Any, told: dt.datetime, off: dt.timedelta) -> Any:
    changed: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if name in _TIMES and value:
            changed[name] = _right(value, told, off)
        elif isinstance(value, list) and value and isinstance(value[0], msgspec.Struct):
            changed[name] = [_moved(item, told, off) for item in value]
    return msgspec.structs.replace(struct, **changed) if changed else struct


def _right(text: str, told: dt.datetime, off: dt.timedelta) -> str:
    time = dt.datetime.fromisoformat(text)
    if abs(time - told) > abs(time - (told + off)):
        return text
    return utc.text(time + off)
