"""The box's side of the connection: which way is tried, what is published, what became of it.

One `Connection` at a time. Each uses the certificate files as they are then, so a renewed certificate counts from
the next connection on, and announces a birth of its own, so that a last will that comes late says nothing about
the connection after it. What a broken connection had not confirmed is `forsaken` to the caller, who repeats it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry import tls
from sekisho.telemetry.connection import (
    AckArrived,
    BrokerHas,
    Connected,
    Connection,
    Disconnected,
    Fact,
    FleetTold,
    JobArrived,
    OrdersArrived,
    RulesTold,
)
from sekisho.telemetry.identity import client_id
from sekisho.telemetry.link import Link
from sekisho.telemetry.look import Look
from sekisho.telemetry.ways import Chooser, Way, plan_ways

ANSWER_S: Final = 10.0
"""From the first packet to the broker's word, by one way."""

log = logging.getLogger(__name__)


class State(msgspec.Struct, omit_defaults=True):
    """The retained birth ("on") and last will ("lost")."""

    st: str
    bd: int
    epoch: str = ""
    next: int = 0
    n: str = ""


class Sender:
    """One box's connection to its broker, by whatever way there is."""

    def __init__(
        self,
        settings: Settings,
        inbox: SimpleQueue[Fact],
        next_birth: Callable[[], int],
        sense: tls.TimeSense,
        note: Callable[[str, bytes], None],
    ) -> None:
        """Prepare to connect; `note` is told of every message that is no batch when the broker is given it.

        Raises:
            RejectedInput: the certificate, key or CA cannot be used; the message says which.

        """
        link = settings.telemetry
        self._settings = link
        self._box = settings.box
        self._topic = f"sk/1/{settings.tenant}/{settings.box}"
        self._inbox = inbox
        self._next_birth = next_birth
        self._sense = sense
        self._note = note
        self._will = b""
        self._tls = self._context()
        self._link = Link(settings.link_status)
        hosts = [link.host, *link.hosts]
        random.shuffle(hosts)  # a fleet spreads over the nodes of a cluster
        self._chooser = Chooser(plan_ways(link, hosts), random.uniform, self._link.worked)
        self._connection: Connection | None = None
        self._look: Look | None = None
        self._up = False
        self._birth = 0
        self._serial = 0
        self._deadline = 0.0
        self._unconfirmed: set[int] = set()

    def turn(self, now: float) -> None:
        """Begin, give up or better the connection, as is due.

        Raises:
            RejectedInput: the certificate files cannot be used any more.

        """
        if self._connection is None:
            if way := self._chooser.next(now):
                self._begin(way, now)
        elif not self._up and now >= self._deadline:
            self._connection.abort("no answer in time")
        elif self._up:
            self._look_for_better(now, self._connection)

    def heed(self, fact: Fact, now: float) -> bool:
        """Take note of a fact; returns whether it is about the present connection."""
        match fact:
            case Connected(serial) if self._connection and serial == self._connection.serial:
                self._up = True
                self._note("will", self._will)
                self._chooser.connected(self._connection.way, now)
                self._link.up(self._connection.way, utc.now())
                log.info("connected to the monitoring centre's broker: %s", self._connection.way)
            case Disconnected(serial, reason) if self._connection and serial == self._connection.serial:
                self._note_end(self._connection.way, reason, now)
            case BrokerHas(mid):
                self._unconfirmed.discard(mid)
            case AckArrived() | FleetTold() | OrdersArrived() | RulesTold() | JobArrived():
                pass
            case _:
                return False
        return True

    def forsaken(self) -> list[int]:
        """Messages that went with the last connection unconfirmed: no library repeats them."""
        gone = sorted(self._unconfirmed)
        self._unconfirmed.clear()
        return gone

    def announce(self, epoch: str, next_seq: int, nonce: str) -> None:
        """Publish the birth: the centre learns the epoch and how far the numbers go, and answers with the time."""
        state = State("on", self._birth, epoch, next_seq, nonce)
        if self._connection:
            payload = msgspec.json.encode(state)
            self._connection.publish("state", payload, retain=True)
            self._note("state", payload)

    def publish(self, lane: int, payload: bytes) -> int:
        """Hand a batch to the client library; returns its message id, 0 when there is no connection."""
        if self._connection is None:
            return 0
        mid = self._connection.publish(f"ev/{lane}", payload)
        self._unconfirmed.add(mid)
        return mid

    def answered(self) -> None:
        """Note that the centre has answered what was asked over this connection."""
        self._link.answered(utc.now())

    def peer_valid_at(self, unix_s: float) -> bool:
        """Whether the broker's certificate is valid then: an answer that came with another time is not believed."""
        return self._tls.valid_at(unix_s)

    def anew(self) -> int:
        """Let go of the connection, and begin another with the certificate files as they are now; the serial of the
        last one that used them as they were.
        """
        if self._connection:
            self._chooser.prefer(self._connection.way)  # soon: nothing is wrong with the way
            self._connection.close()
        return self._serial

    def stop(self) -> None:
        """Say goodbye without the last will; what is unacknowledged stays in the spool."""
        if self._connection:
            self._connection.close()
        self._link.down(utc.now())

    def _begin(self, way: Way, now: float) -> None:
        self._tls = self._context()
        self._serial += 1
        self._birth = self._next_birth()
        name = client_id(self._box, Path(self._settings.key))
        self._connection = Connection(
            self._serial, way, name, self._tls, self._topic, self._inbox.put, immunity=self._settings.immunity
        )
        self._deadline = now + ANSWER_S
        self._will = msgspec.json.encode(State("lost", self._birth))
        self._connection.open(self._will)

    def _note_end(self, way: Way, reason: str, now: float) -> None:
        if self._up:
            self._link.down(utc.now())
            self._chooser.lost(now)
            log.warning("not connected to the monitoring centre: %s: %s", way, reason)
        else:
            self._chooser.failed(now)
            if self._link.failed(way, reason, utc.now()):
                log.warning("the monitoring centre could not be reached: %s: %s", way, reason)
        self._connection, self._up, self._look = None, False, None

    def _look_for_better(self, now: float, connection: Connection) -> None:
        if self._look is None:
            if ways := self._chooser.to_look_at(now):
                self._look = Look(ways, self._context)
        elif self._look.over:
            if self._look.found:
                self._chooser.prefer(self._look.found)
                connection.close()
            self._look = None

    def _context(self) -> tls.Context:
        return tls.context(self._settings.ca, self._settings.cert, self._settings.key, self._sense)
