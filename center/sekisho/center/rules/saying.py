"""What is switched off goes to the broker: one signed, retained message, again after every connection.

With it goes the number of the newest published set, as the repository's `published.json` says it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import paho.mqtt.client as mqtt

from sekisho.appliance.core import fsio, switched
from sekisho.appliance.core.sealed import Key
from sekisho.appliance.core.switched import Newest
from sekisho.center.database import Database
from sekisho.center.rules import switching

_HINT_CAP: Final = 4096


class Speaker:
    """Keeps the broker's copy what the database says. One thread calls `turn`; it never waits for the broker."""

    def __init__(self, database: Database, client: mqtt.Client, key: Key, published: str = "") -> None:
        """`published`: the repository's hint; empty: there is none."""
        self._database = database
        self._client = client
        self._key = key
        self._published = Path(published) if published else None
        self._stamp = (0, 0)
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
        self._look_for_a_set()
        with self._database.reading() as db:
            number = switching.newest_number(db)
        if number and number == self._said and not again:
            return
        with self._database.transaction() as db:
            message = switching.current(db)
        sent = self._client.publish(switched.TOPIC, switched.seal(message, self._key), qos=1, retain=True)
        self._said, self._under_way = message.n, (message.n, sent)

    def _look_for_a_set(self) -> None:
        stamp = fsio.stamp(self._published) if self._published else self._stamp
        if self._published is None or stamp == self._stamp:
            return
        number = _number(self._published)
        if number:
            with self._database.transaction() as db:
                if switching.current(db).newest != number:
                    switching.announce(db, number)
        self._stamp = stamp


def _number(hint: Path) -> int:
    """Of the newest set; 0 where the file does not say."""
    try:
        with hint.open("rb") as source:
            return msgspec.json.decode(source.read(_HINT_CAP), type=Newest).number
    except (OSError, msgspec.MsgspecError):
        return 0


def _is_there(sent: mqtt.MQTTMessageInfo) -> bool:
    try:
        return sent.is_published()
    except (ValueError, RuntimeError):  # the connection was gone by then; the next one says it again
        return False
