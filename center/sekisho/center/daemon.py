"""The centre's process: broker -> judge -> store -> acknowledge, group-committed.

A message is acknowledged to the broker, and its rows to the box, only after the transaction that
stores them. Both sides may repeat anything at any time. While the database is slow or refuses, nothing is
acknowledged and the broker's window (64 messages of at most 256 KiB) ends what comes; a broker that keeps to no
window is stopped by our queue, which is bounded: the MQTT client's thread waits, and TCP holds the broker.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from typing import Final

import paho.mqtt.client as paho

from sekisho.appliance.core import program, sdnotify, utc
from sekisho.appliance.core.errors import DeviceFault
from sekisho.center import ingest, intake, mqtt, settings
from sekisho.center.intake import Answer, Message
from sekisho.center.pulse import Pulse
from sekisho.center.retention import Sweeper
from sekisho.center.settings import CenterSettings
from sekisho.center.store import Store

IDLE_S: Final = 0.5
GROUP_MESSAGES: Final = 64
INBOX_MESSAGES: Final = 4 * GROUP_MESSAGES
PACE_S: Final = 0.01
"""Between two commits while messages keep coming: what a commit costs is shared by all that came meanwhile."""
WATCHDOG_S: Final = 2.0
RETRY_S: Final = 1.0

log = logging.getLogger(__name__)


class Center:
    """Takes messages in groups; one store, one connection."""

    def __init__(self, config: CenterSettings) -> None:
        self._config = config
        self._store = Store(config.store)
        self._inbox: Queue[paho.MQTTMessage | None] = Queue(INBOX_MESSAGES)
        self._sweeper = Sweeper(self._store, config.retention)
        self._pulse = Pulse(self._store.database)
        self._session = ""
        self._next_commit = 0.0
        self._stopped = False
        self._waiting = False
        self._greeted = True
        self._client = self._make_client()

    def run(self) -> None:
        """Work until `stop`."""
        link = self._config.broker
        self._client.connect_async(link.host, link.port, keepalive=30)
        self._client.loop_start()
        sdnotify.notify("READY=1")
        beat = 0.0
        sweeping = False
        while not self._stopped:
            if time.monotonic() >= beat:
                beat = time.monotonic() + WATCHDOG_S
                sdnotify.notify("WATCHDOG=1")
            self._take_until_stored(self._group(0.0 if sweeping else IDLE_S))
            self._pulse.step(connected=self._client.is_connected())
            sweeping = self._sweeper.step(dt.datetime.now(dt.UTC))
        self._client.disconnect()
        self._store.close()

    def stop(self) -> None:
        self._stopped = True

    def _make_client(self) -> paho.Client:
        client = mqtt.make_client(self._config.broker, self._on_connect, keep_session=True)
        client.on_message = lambda _c, _u, message: self._inbox.put(message)
        return client

    def _on_connect(self) -> None:
        self._client.subscribe([("sk/1/+/+/ev/+", 1), ("sk/1/+/+/state", 1)])
        self._inbox.put(None)

    def _group(self, idle_s: float) -> list[paho.MQTTMessage]:
        """The first message and all behind it; after a quiet time at once, else when `PACE_S` has passed."""
        group: list[paho.MQTTMessage] = []
        try:
            while len(group) < GROUP_MESSAGES:
                wait_s = max(0.0, self._next_commit - time.monotonic()) if group else idle_s
                message = self._inbox.get(timeout=wait_s)
                if message is None:
                    self._greeted = False
                else:
                    group.append(message)
        except Empty:
            pass
        return group

    def _greet(self) -> None:
        """After each connection tell every box where we are: what was under way may be gone with the broker."""
        self._session = secrets.token_hex(4)
        newest = {stream.box: stream for stream in self._store.streams()}
        for stream in newest.values():
            self._acknowledge(
                Answer((stream.tenant, stream.box, stream.epoch), stream.upto, [], "", self._store.generation)
            )
        self._greeted = True

    def _take_until_stored(self, group: list[paho.MQTTMessage]) -> None:
        """Store a group and acknowledge it, however long the database refuses; the service manager is told."""
        while not self._stopped:
            try:
                if not self._greeted:
                    self._greet()
                if group:
                    self._take(group)
                return
            except DeviceFault as err:
                log.error("%s Nothing was acknowledged; trying again.", err)
                sdnotify.notify(f"WATCHDOG=1\nSTATUS=Nothing is acknowledged: {err}")
                self._waiting = True
                time.sleep(RETRY_S)

    def _take(self, group: list[paho.MQTTMessage]) -> None:
        """Store a group, then acknowledge it to boxes and broker."""
        self._next_commit = time.monotonic() + PACE_S
        messages = [Message(_topic(message), bytes(message.payload)) for message in group]
        answers = intake.take(self._store, messages, utc.now(), lambda: sdnotify.notify("WATCHDOG=1"))
        if self._waiting:
            self._waiting = False
            sdnotify.notify("STATUS=Events are stored again.")
        for answer in answers:
            self._acknowledge(answer)
        for message in group:
            self._client.ack(message.mid, message.qos)

    def _acknowledge(self, answer: Answer) -> None:
        tenant, box, epoch = answer.key
        now_ms = time.time_ns() // 1_000_000
        payload = ingest.make_ack(
            epoch, answer.upto, answer.runs, self._session, answer.nonce, now_ms, answer.generation
        )
        self._client.publish(f"sk/1/{tenant}/{box}/ack", payload, qos=1, retain=True)


def _topic(message: paho.MQTTMessage) -> str:
    try:
        return str(message.topic)
    except UnicodeDecodeError:
        return ""  # none of ours


def _make(path: Path) -> program.Daemon:
    config = settings.load(path)
    if config.jetstream is None:
        return Center(config)
    from sekisho.center import jetstream  # an embedded centre has no need of its client library

    return jetstream.Worker(config, config.jetstream)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the store cannot be opened."""
    return program.main("sekisho.center.daemon", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
