"""Immunity's process: judges what boxes have found, and keeps the signed words to all boxes at the broker true.

Two words: the list of bad files, and the rules that are switched off (`center.rules`). Both are retained, so a box that
connects finds them; they are published again after every connection, since a broker may have forgotten. Whatever was
decided is in the database before it is said.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Final

from sekisho.appliance.core import fleet, program, sdnotify
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fleet import All, Away
from sekisho.appliance.core.sealed import load_key
from sekisho.center import mqtt, settings
from sekisho.center.database import Database
from sekisho.center.immunity import listing
from sekisho.center.immunity.judge import judge
from sekisho.center.rules.saying import Speaker
from sekisho.center.settings import BrokerLink, CenterSettings, Immunity

POLL_S: Final = 0.2
MOVES_S: Final = 1.0
RETRY_S: Final = 1.0
WATCHDOG_S: Final = 2.0

log = logging.getLogger("sekisho.center.immunity")


class FleetImmunity:
    """One broker connection, one database."""

    def __init__(self, config: CenterSettings, own: Immunity) -> None:
        self._own = own
        self._key = load_key(Path(own.lists_cert), Path(own.lists_key))
        self._database = Database(config.store)
        self._stop = threading.Event()
        self._greet = threading.Event()
        self._seen = -1
        link = config.broker
        self._link = BrokerLink(link.host, link.ca, own.cert, own.key, link.port, own.client)
        self._client = mqtt.make_client(self._link, on_connect=self._connected)
        self._rules = Speaker(self._database, self._client, self._key, own.published)

    def run(self) -> None:
        """Work until `stop`."""
        self._client.connect_async(self._link.host, self._link.port, keepalive=30)
        self._client.loop_start()
        sdnotify.notify("READY=1")
        beat = moved = 0.0
        while not self._stop.wait(POLL_S):
            moment = time.monotonic()
            if moment - beat >= WATCHDOG_S:
                beat = moment
                sdnotify.notify("WATCHDOG=1")
            try:
                judge(self._database, self._own.boxes)
                if not self._client.is_connected():
                    continue
                if self._greet.is_set() or listing.due(self._database, self._seen, time.time()):
                    self._publish(all_of_it=self._greet.is_set())
                if moment - moved >= MOVES_S:
                    moved = moment
                    self._tell_who_is_away(again=self._greet.is_set())
                self._rules.turn(again=self._greet.is_set())
                self._greet.clear()
            except DeviceFault as err:
                log.error("%s Trying again.", err)
                self._stop.wait(RETRY_S)
        self._client.disconnect()
        self._database.close()

    def stop(self) -> None:
        self._stop.set()

    def _connected(self) -> None:
        self._greet.set()

    def _publish(self, *, all_of_it: bool) -> None:
        lists = listing.current(self._database, time.time())
        for made in lists:
            if made.n > self._seen or all_of_it:
                topic = fleet.TOPIC_ALL if isinstance(made, All) else fleet.TOPIC_CHANGE
                self._client.publish(topic, fleet.seal(made, self._key), qos=1, retain=True)
        if len(lists) == 1:
            self._client.publish(fleet.TOPIC_CHANGE, b"", qos=1, retain=True)
        self._seen = max(made.n for made in lists)

    def _tell_who_is_away(self, *, again: bool) -> None:
        away, said = listing.away(self._database), listing.said_away(self._database)
        for box, tenant in away.items():
            if again or box not in said:
                message = fleet.seal(Away(int(time.time()), box), self._key)
                self._client.publish(f"sk/1/{tenant}/{box}/known", message, qos=1, retain=True)
                listing.note_away(self._database, box, tenant, gone=True)
        for box, tenant in said.items():
            if box not in away:
                self._client.publish(f"sk/1/{tenant}/{box}/known", b"", qos=1, retain=True)
                listing.note_away(self._database, box, tenant, gone=False)


def _make(path: Path) -> FleetImmunity:
    config = settings.load(path)
    if config.immunity is None:
        raise RejectedInput(f"{path}: the section [immunity] is missing.")
    return FleetImmunity(config, config.immunity)


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the database cannot be opened."""
    return program.main("sekisho.center.immunity", _make, argv)


if __name__ == "__main__":
    sys.exit(main())
