"""A process of the centre that speaks to boxes: one broker connection, one database, turn after turn until SIGTERM."""

from __future__ import annotations

import abc
import logging
import threading
import time
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core import sdnotify
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import mqtt
from sekisho.center.database import Database
from sekisho.center.settings import CenterSettings

RETRY_S: Final = 1.0
WATCHDOG_S: Final = 2.0

log = logging.getLogger(__name__)


class Own(Protocol):
    """What each shows the broker: its certificate, the certificate's key and name."""

    @property
    def cert(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def client(self) -> str: ...


class Sender(abc.ABC):
    """`turn` says what is done; a database that does not answer delays it and ends nothing."""

    def __init__(self, config: CenterSettings, own: Own, *, poll_s: float, listens_to: str = "") -> None:
        """`poll_s`: between two turns; `listens_to`: topics whose messages `client.on_message` gets.

        Raises:
            RejectedInput: the certificate or its key cannot be used.
            DeviceFault: the database cannot be opened.

        """
        self.database = Database(config.store)
        self._poll_s = poll_s
        self._stop = threading.Event()
        self._link = msgspec.structs.replace(config.broker, cert=own.cert, key=own.key, client=own.client)
        self._listens_to = listens_to
        self._anew = threading.Event()
        self.client = mqtt.make_client(self._link, on_connect=self._connected)

    def run(self) -> None:
        """Work until `stop`."""
        self.client.connect_async(self._link.host, self._link.port, keepalive=30)
        self.client.loop_start()
        sdnotify.notify("READY=1")
        beat = 0.0
        while not self._stop.wait(self._poll_s):
            moment = time.monotonic()
            if moment - beat >= WATCHDOG_S:
                beat = moment
                sdnotify.notify("WATCHDOG=1")
            connected = self.client.is_connected()
            anew = connected and self._anew.is_set()
            if anew:
                self._anew.clear()
            try:
                self.turn(connected=connected, anew=anew)
            except DeviceFault as err:
                if anew:
                    self._anew.set()
                log.error("%s Trying again.", err)
                self._stop.wait(RETRY_S)
        self.client.disconnect()
        self.database.close()

    def stop(self) -> None:
        self._stop.set()

    @abc.abstractmethod
    def turn(self, *, connected: bool, anew: bool) -> None:
        """One look at the database, and what is to be said after it.

        `anew`: the connection is another than at the last whole turn, and the broker may have forgotten what it kept.

        Raises:
            DeviceFault: the database does not answer; the next turn comes a little later.

        """

    def _connected(self) -> None:
        if self._listens_to:
            self.client.subscribe(self._listens_to, 0)
        self._anew.set()
