"""Whether the centre hears its broker: intake workers note it every few seconds, whoever judges silence reads it.

Without it a broker that is away would look like boxes that have nothing to say.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Final

import sqlalchemy as sa

from sekisho.appliance.core.errors import DeviceFault
from sekisho.center.database import Database, insert_new, metadata

EVERY_S: Final = 10.0

PULSE = sa.Table(
    "pulse",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Text, nullable=False),
)
"""One row: when some worker was connected to the broker last."""


class Pulse:
    """One worker's note."""

    def __init__(self, database: Database) -> None:
        self._database, self._next = database, 0.0

    def step(self, *, connected: bool) -> None:
        """Write it down when it is time; a database that refuses has others to say so."""
        if not connected or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        try:
            with self._database.transaction() as db:
                db.execute(insert_new(db, PULSE), {"id": 1, "at": now})
                db.execute(PULSE.update().values(at=now))
        except DeviceFault:
            return


def heard(db: sa.Connection) -> str:
    """When the broker was heard last; empty when no worker has ever been connected."""
    return str(db.scalar(sa.select(PULSE.c.at)) or "")
