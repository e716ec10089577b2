"""What a view is: tables, and how new events and the end of their time change them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from sekisho.center.settings import Days
from sekisho.telemetry.events import Event


class Row(NamedTuple):
    """One new event, decoded."""

    tenant: str
    box: str
    epoch: str
    seq: int
    at: str
    received_at: str
    type: str
    event: Event
    again: bool
    """It came once more after the centre was restored: people know it."""
    id: int
    """Of the stored event."""


def _keep(_db: sa.Connection, _tenant: str, _days: Days, _today: dt.date, _limit: int) -> int:
    return 0


class Slice(NamedTuple):
    """One view: what it keeps, and how new events change it."""

    name: str
    tables: tuple[sa.Table, ...]
    take: Callable[[sa.Connection, Sequence[Row]], None]
    forget: Callable[[sa.Connection, str, Days, dt.date, int], int] = _keep
    """Drop about so many rows of a customer that are past their days; 0 when none is left. Called until it says 0."""
