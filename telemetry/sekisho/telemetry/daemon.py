"""Telemetry's process: sources -> events -> spool -> broker, in one thread beside the MQTT client's own.

Calls everything else in this room. A bad line is counted and passed over; a full disk stops reading
(the sources wait in their files) and is retried; a broker or certificate that does not work leaves
the events in the spool. Nothing here touches traffic.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import signal
import sys
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from sekisho.appliance.core import sdnotify, settings
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry.decode import LINE_CAP, Inventory, decode_eve, decode_journal
from sekisho.telemetry.delivery import Delivery, parse_ack
from sekisho.telemetry.events import Event, Health
from sekisho.telemetry.reader import Chunk, Tail
from sekisho.telemetry.sender import AckArrived, BrokerHas, Connected, Disconnected, Fact, Sender
from sekisho.telemetry.spool import Spool, SpoolDamaged

POLL_S: Final = 0.02
RETRY_S: Final = 1.0
CERTIFICATE_RETRY_S: Final = 30.0
WATCHDOG_S: Final = 2.0
MAX_JOURNALS: Final = 32
LOOK_FOR_JOURNALS_S: Final = 0.25

log = logging.getLogger(__name__)


class Telemetry:
    """The loop's state; `turn` does whatever is due and returns."""

    def __init__(self, config: Settings) -> None:
        self._settings = config
        self._inbox: SimpleQueue[Fact] = SimpleQueue()
        self._inventory = Inventory(config.inventory)
        self._tails: dict[Path, Tail] = {}
        self._sender: Sender | None = None
        self._sender_retry_at = 0.0
        self._read_again_at = 0.0
        self._look_again_at = 0.0
        self._sender_trouble = ""
        self._refused = 0
        self._stopped = False
        self._open_spool()

    def run(self) -> None:
        """Work until `stop`; then close the connection and the spool."""
        sdnotify.notify("READY=1")
        beat = 0.0
        while not self._stopped:
            now = time.monotonic()
            if now >= beat:
                beat = now + WATCHDOG_S
                sdnotify.notify("WATCHDOG=1")
            try:
                self.turn(now)
            except SpoolDamaged:
                log.exception("the spool is damaged; it is set aside and a new one begins")
                self._reopen_spool()
            except DeviceFault as err:
                log.error("%s Nothing is lost; trying again.", err)
                self._read_again_at = now + RETRY_S
        self._close()

    def stop(self) -> None:
        self._stopped = True

    def turn(self, now: float) -> None:
        """Take what arrived (waiting one poll at most), read the sources, publish what may go."""
        self._connect(now)
        self._take_facts(POLL_S)
        if now >= self._read_again_at:
            self._inventory.refresh()
            self._find_sources(now)
            for tail in self._tails.values():
                self._drain(tail)
        self._publish()

    def _open_spool(self) -> None:
        cap = self._settings.telemetry.spool_mb << 20
        self._spool = Spool.open(self._settings.spool, cap, _utc_now())
        self._delivery = Delivery(self._spool.epoch)
        self._spool.set_link(up=False)

    def _reopen_spool(self) -> None:
        self._spool.close()
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        self._look_again_at = 0.0
        online = self._delivery.connected
        self._open_spool()
        if online and self._sender:
            self._sender.announce(self._spool.epoch, self._spool.next_seq())
            self._delivery.online(time.monotonic())

    def _find_sources(self, now: float) -> None:
        """EVE, and every journal there is by now (rooms may be started later)."""
        if now < self._look_again_at:
            return
        self._look_again_at = now + LOOK_FOR_JOURNALS_S
        paths = [self._settings.eve]
        try:
            paths += sorted(self._settings.journals.glob("*.jsonl"))[:MAX_JOURNALS]
        except OSError:
            log.warning("the journal directory cannot be read")
        for path in paths:
            if path not in self._tails:
                self._tails[path] = Tail(path, self._spool.position(path.name), LINE_CAP)

    def _drain(self, tail: Tail) -> None:
        """One chunk of one source: as much as a transaction should hold."""
        chunk = tail.read()
        if chunk is None:
            return
        self._spool.add(self._events(chunk), chunk)
        try:
            tail.settle(chunk)
        except OSError as err:
            raise DeviceFault(f"Cannot remove the rolled file of {chunk.source}: {err.strerror}.") from err

    def _events(self, chunk: Chunk) -> list[Event]:
        is_eve = chunk.source == self._settings.eve.name
        made: list[Event] = []
        refused = chunk.too_long
        for line in chunk.lines:
            try:
                event = decode_eve(line, self._inventory) if is_eve else decode_journal(line, self._inventory)
            except RejectedInput:
                refused += 1
                continue
            if event:
                made.append(event)
        if refused:
            self._refused += refused
            log.warning("%s: %d lines refused, %d in all", chunk.source, refused, self._refused)
        return made

    def _connect(self, now: float) -> None:
        if self._sender or not self._settings.telemetry.host or now < self._sender_retry_at:
            return
        try:
            self._sender = Sender(self._settings, self._inbox, self._spool.next_birth(int(time.time())))
            self._sender.start()
        except RejectedInput as err:
            self._sender_retry_at = now + CERTIFICATE_RETRY_S
            if str(err) == self._sender_trouble:
                return
            self._sender_trouble = str(err)
            log.error("%s", err)
            health = Health(at=_utc_now(), part="telemetry", state="certificate_refused", detail=str(err))
            self._spool.add([health])

    def _take_facts(self, timeout: float) -> None:
        try:
            fact = self._inbox.get(timeout=timeout)
            while True:
                self._handle(fact)
                fact = self._inbox.get_nowait()
        except Empty:
            return

    def _handle(self, fact: Fact) -> None:
        match fact:
            case Connected():
                log.info("connected to the monitoring centre's broker")
                self._spool.set_link(up=True)
                if self._sender:
                    self._sender.announce(self._spool.epoch, self._spool.next_seq())
                self._delivery.online(time.monotonic())
            case Disconnected(reason):
                log.warning("not connected to the monitoring centre: %s", reason)
                if self._delivery.connected:
                    self._spool.set_link(up=False)
                self._delivery.offline()
            case BrokerHas(mid):
                self._delivery.pubacked(mid)
            case AckArrived(payload):
                self._acknowledged(payload)

    def _acknowledged(self, payload: bytes) -> None:
        try:
            self._delivery.acknowledged(parse_ack(payload), self._spool)
        except RejectedInput as err:
            log.warning("%s", err)

    def _publish(self) -> None:
        while self._sender and (publish := self._delivery.next(time.monotonic(), self._spool)):
            self._delivery.sent(publish, self._sender.publish(publish.batch.lane, publish.payload))

    def _close(self) -> None:
        if self._sender:
            self._sender.stop()
        for tail in self._tails.values():
            tail.close()
        self._spool.close()


def _utc_now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the spool cannot be opened."""
    parser = argparse.ArgumentParser(prog="sekisho.telemetry.daemon")
    parser.add_argument("--settings", type=Path, required=True)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        telemetry = Telemetry(settings.load(args.settings))
    except RejectedInput as err:
        log.error("%s", err)
        return 2
    except DeviceFault as err:
        log.error("%s", err)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: telemetry.stop())
    signal.signal(signal.SIGINT, lambda *_: telemetry.stop())
    telemetry.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
