"""What is switched off goes to the broker: one signed, retained message, again after every connection."""

from __future__ import annotations

import paho.mqtt.client as mqtt

from sekisho.appliance.core import switched
from sekisho.appliance.core.sealed import Key
from sekisho.center.database import Database
from sekisho.center.rules import switching


class Speaker:
    """Keeps the broker's copy what the database says. One thread calls `turn`; it never waits for the broker."""

    def __init__(self, database: Database, client: mqtt.Client, key: Key) -> None:
        self._database = database
        self._client = client
        self._key = key
        self._said = 0
        self._under_way: tuple[int, mqtt.MQTTMessageInfo] | None = None

    def turn(self, *, again: bool) -> None:
        """Say what is new, or all of it `again`; the client is connected.

        Raises:
            DeviceFault: the database refused; call again.

        """
        if self._under_way is not None and _is_there(self._under_way[1]):
            with self._database.transaction() as db:
                switching.note_sent(db, self._under_way[0])
            self._under_way = None
        with self._database.reading() as db:
            number = switching.newest_number(db)
        if number and number == self._said and not again:
            return
        with self._database.transaction() as db:
            message = switching.current(db)
        sent = self._client.publish(switched.TOPIC, switched.seal(message, self._key), qos=1, retain=True)
        self._said, self._under_way = message.n, (message.n, sent)


def _is_there(sent: mqtt.MQTTMessageInfo) -> bool:
    try:
        return sent.is_published()
    except (ValueError, RuntimeError):  # the connection was gone by then; the next one says it again
        return False
