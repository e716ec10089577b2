"""The process that keeps the brokers' copy of every box's settings true, until SIGTERM.

Each document is signed and retained at the broker, so a box finds it whenever it connects. What is new goes out within
`POLL_S`; all are published again after every connection, page by page, since a broker may have forgotten. A document
counts as sent when the broker has confirmed it. What the broker holds and the database does not (a contract has
ended) is taken from it.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import paho.mqtt.client as paho
import sqlalchemy as sa

from sekisho.appliance.core import orders, program, utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import NAME
from sekisho.appliance.core.orders import Orders
from sekisho.appliance.core.sealed import load_key
from sekisho.center import mqtt, settings
from sekisho.center.orders import wishes
from sekisho.center.orders.tables import ORDERS
from sekisho.center.sender import Sender
from sekisho.center.settings import CenterSettings
from sekisho.center.settings import Orders as OwnSettings

POLL_S: Final = 0.2
MEND_S: Final = 5.0
PAGE: Final = 50
HELD_CAP: Final = 200_000
_TOPIC: Final = re.compile(rf"sk/1/{NAME}/{NAME}/{orders.LEVEL}")


class OrdersSender(Sender):
    """Publishes what is new, mends what the broker holds."""

    def __init__(self, config: CenterSettings, own: OwnSettings) -> None:
        self._key = load_key(Path(own.orders_cert), Path(own.orders_key))
        super().__init__(config, own, poll_s=POLL_S, listens_to=orders.EVERYWHERE)
        self._mended = 0.0
        self._after: str | None = None
        """While all are published again: the box that came last."""
        self._held: set[str] = set()
        """Topics on which the broker holds something, as far as it has been heard; changed by the client's thread."""
        self.client.on_message = self._on_message

    def _on_message(self, _c: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        if message.payload and _TOPIC.fullmatch(message.topic) and len(self._held) < HELD_CAP:
            self._held.add(message.topic)
        elif not message.payload:
            self._held.discard(message.topic)

    def _take_back(self) -> None:
        """Empty what belongs to no row any more."""
        if not self._held:
            return
        held = set(self._held.copy())
        with self.database.reading() as db:
            known = {_topic(row) for row in db.execute(sa.select(ORDERS.c.tenant, ORDERS.c.box)).all()}
        given = [(topic, self.client.publish(topic, b"", qos=1, retain=True)) for topic in sorted(held - known)[:PAGE]]
        taken = mqtt.wait_for([info for _, info in given])
        self._held.difference_update(topic for (topic, _), there in zip(given, taken, strict=True) if there)

    def turn(self, *, connected: bool, anew: bool) -> None:
        if not connected:
            return
        if time.monotonic() - self._mended >= MEND_S:
            self._mended = time.monotonic()
            wishes.overtake(self.database)
            self._take_back()
        if anew:
            self._after = ""
        self._publish(ORDERS.c.n > ORDERS.c.sent_n)
        if self._after is not None:
            page = self._publish(ORDERS.c.box > self._after)
            self._after = page[-1].box if len(page) == PAGE else None

    def _publish(self, which: sa.ColumnElement[bool]) -> Sequence[sa.Row[Any]]:
        with self.database.reading() as db:
            rows = db.execute(sa.select(ORDERS).where(which).order_by(ORDERS.c.box).limit(PAGE)).all()
        given = [(row, self.client.publish(_topic(row), self._message(row), qos=1, retain=True)) for row in rows]
        taken = mqtt.wait_for([info for _, info in given])
        sent = [row for (row, _), there in zip(given, taken, strict=True) if there]
        self._held.update(map(_topic, sent))
        if fresh := [row for row in sent if row.n > row.sent_n]:
            with self.database.transaction() as db:
                for row in fresh:
                    db.execute(ORDERS.update().where(ORDERS.c.box == row.box).values(sent_n=row.n, sent_at=utc.now()))
        return rows

    def _message(self, row: sa.Row[Any]) -> bytes:
        return orders.seal(Orders(row.n, row.tenant, row.box, msgspec.Raw(row.document)), self._key)


def _topic(row: Any) -> str:
    return f"sk/1/{row.tenant}/{row.box}/{orders.LEVEL}"


def _make(path: Path) -> OrdersSender:
    config = settings.load(path)
    if config.orders is None:
        raise RejectedInput(f"{path}: the section [orders] is missing.")
    return OrdersSender(config, config.orders)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.orders", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
