"""Telemetry's process: sources -> events -> spool -> broker, in one thread beside the MQTT client's own.

Calls everything else in this room. A bad line is counted and passed over; a full disk stops reading
(the sources wait in their files) and is retried; a broker or certificate that does not work leaves
the events in the spool. Nothing here touches traffic.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Final

from sekisho.appliance.core import program, sdnotify, settings, told_time, utc
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry import authority, counter, rotation
from sekisho.telemetry.changed import Changed
from sekisho.telemetry.clocks import RELEASED, boot_mark
from sekisho.telemetry.connection import (
    AckArrived,
    BrokerHas,
    Connected,
    Disconnected,
    Fact,
    Facts,
    FleetTold,
    JobArrived,
    OrdersArrived,
    RulesTold,
)
from sekisho.telemetry.delivery import Delivery, parse_ack
from sekisho.telemetry.enrolment.keeper import Keeper
from sekisho.telemetry.events import Health
from sekisho.telemetry.fleet import FleetList, forget
from sekisho.telemetry.intake import Intake
from sekisho.telemetry.jobs import Inbox
from sekisho.telemetry.orders import OrdersFile
from sekisho.telemetry.question import Question
from sekisho.telemetry.rotation import Rotation
from sekisho.telemetry.sender import Sender
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_file import SpoolDamaged
from sekisho.telemetry.switched import SwitchedOff

POLL_S: Final = 0.02
RETRY_S: Final = 1.0
CERTIFICATE_RETRY_S: Final = 30.0
WATCHDOG_S: Final = 2.0
FLEET_S: Final = 60.0
FACTS_A_TURN: Final = 500
"""However fast a broker speaks, everything else has its turn."""

log = logging.getLogger(__name__)


class Telemetry:
    """The loop's state; `turn` does whatever is due and returns."""

    def __init__(self, config: Settings, path: Path) -> None:
        self._settings = config
        self._changed = Changed(path, config)
        enrolled = Path(config.telemetry.cert) if config.telemetry.centre else None
        self._keeper = Keeper(path, enrolled, time.monotonic())
        self._rotation = Rotation(config.state / "telemetry" / "rotation.json", enrolled)
        self._old_serial = 0
        """Of the last connection that was begun before the certificate was put on trial."""
        self._inbox = Facts()
        self._sender: Sender | None = None
        self._sender_retry_at = 0.0
        self._read_again_at = 0.0
        self._sender_trouble = ""
        self._said, self._say_again_at = "", 0.0
        self._stopped = False
        self._question = Question()
        self._tell_time_at = 0.0
        self._fleet: FleetList | None = None
        self._fleet_at = 0.0
        self._orders: OrdersFile | None = None
        self._switched: SwitchedOff | None = None
        self._rules_wait = b""
        """Of what the centre switched off, what could not be put in force yet."""
        self._rules_at = 0.0
        self._jobs = Inbox(config.jobs_inbox)
        self._open_spool()
        self._intake = Intake(config, self._spool)
        self._desk = self._open_desk(config.sent_socket, counter.USERS, counter.Counter(config).answer)
        self._keys = self._open_desk(rotation.socket_of(config), rotation.USERS, self._rotation.answer)

    def _open_desk(self, path: Path, users: Collection[str], answer: Callable[[bytes], Iterator[bytes]]) -> Desk | None:
        try:
            return Desk(path, users, answer)
        except OSError as err:  # the events matter more than the sight of them
            log.error("%s cannot be opened, and nobody asks there: %s", path, err)
            return None

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
                self._say_once_a_minute(f"{err} Nothing is lost; trying again.", now)
                self._read_again_at = now + RETRY_S
        self._close()

    def _say_once_a_minute(self, text: str, now: float) -> None:
        if text != self._said or now >= self._say_again_at:
            self._said, self._say_again_at = text, now + 60
            log.error("%s", text)

    def stop(self) -> None:
        self._stopped = True

    def turn(self, now: float) -> None:
        """Take what arrived (waiting one poll at most), read the sources, publish what may go."""
        if self._changed.turn(now):
            log.info("The settings have changed: beginning anew with them.")
            self.stop()
        self._spool.keep_time()
        self._fleet_due(now)
        self._rules_due(now)
        self._connect(now)
        self._keep_certificate(now)
        self._take_facts(POLL_S)
        self._ask(now)
        if now >= self._read_again_at:
            self._intake.turn(now)
        self._delivery.settle(now, self._spool)
        self._publish()
        self._spool.note_reached(self._delivery.reached, now)
        self._spool.tidy(self._delivery.reached, now)

    def _open_spool(self) -> None:
        link = self._settings.telemetry
        boot = boot_mark(self._settings.eve.parent)
        self._spool = Spool.open(self._settings.spool, self._cap(), utc.now(), boot, link.keep_hours)
        self._delivery = Delivery(self._spool.epoch)
        self._spool.set_link(up=False)

    def _cap(self) -> int:
        """What the settings allow, and half of its partition at most: the box has other things to write."""
        allowed = self._settings.telemetry.spool_mb << 20
        try:
            return min(allowed, shutil.disk_usage(self._settings.state).total // 2)
        except OSError:
            return allowed

    def _reopen_spool(self) -> None:
        self._spool.close()
        online = self._delivery.connected
        self._open_spool()
        self._intake.spool = self._spool
        if online:
            self._online()

    def _connect(self, now: float) -> None:
        if not self._settings.telemetry.host or now < self._sender_retry_at:
            return
        try:
            self._sender = self._sender or Sender(
                self._settings, self._inbox, self._next_birth, self._spool.clocks, self._note
            )
            self._sender.turn(now)
            self._sender_trouble = ""
        except RejectedInput as err:
            self._sender_retry_at = now + CERTIFICATE_RETRY_S
            if str(err) == self._sender_trouble:
                return
            self._sender_trouble = str(err)
            log.error("%s", err)
            health = Health(at=utc.now(), part="telemetry", state="certificate_refused", detail=str(err))
            self._intake.tell(health)

    def _keep_certificate(self, now: float) -> None:
        clocks = self._spool.clocks
        best = clocks.best_time(now)
        if self._keeper.free(now) and (way := self._rotation.begin()):
            self._keeper.ask(way.job, way.was, now)
        outcome = self._keeper.turn(now, best, connected=self._delivery.connected)
        if self._rotation.turn(now):
            log.error("The new certificate did not connect in time; the one before is in force again.")
            self._begin_anew(now)
        match outcome:
            case "renewed":
                self._sender_retry_at = now  # one that has a connection shows the new certificate at its next one
            case "rotated":
                if self._rotation.renewed():
                    self._begin_anew(now)
            case "not_due" | "denied":
                self._rotation.refused(outcome)
            case "fault":
                self._rotation.refused("")
            case "refused":
                why = "The centre does not renew it: a new enrolment code is needed."
                log.error("The certificate: %s", why)
                self._intake.tell(Health(at=utc.now(), part="telemetry", state="certificate_refused", detail=why))

    def _begin_anew(self, now: float) -> None:
        """With the certificate that is in force now."""
        self._sender_retry_at = now
        self._old_serial = self._sender.anew() if self._sender else 0

    def _next_birth(self) -> int:
        """Grows even when the clock is set back, and never into a future from which no clock comes back."""
        return self._spool.next_birth(int(self._spool.clocks.plausible_wall()))

    def _note(self, topic: str, payload: bytes) -> None:
        try:
            self._spool.note_said(topic, payload)
        except DeviceFault as err:
            log.warning("A message to the centre is not kept for `sekisho telemetry sent`: %s", err)

    def _online(self) -> None:
        now = time.monotonic()
        self._question.connected(now)
        self._delivery.online(now)
        self._ask(now)

    def _ask(self, now: float) -> None:
        """Tell the centre where we are and let it tell the time, at each connection and now and then."""
        if self._sender and self._delivery.connected:
            if self._question.due(now) or self._delivery.wants_answer(now):
                nonce = self._question.ask(now)
                self._delivery.asked(nonce, now)
                self._sender.announce(self._spool.epoch, self._spool.next_seq(), nonce)
            if self._question.out_of_patience(now):
                self._spool.clocks.presume()

    def _take_facts(self, timeout: float) -> None:
        try:
            self._handle(self._inbox.get(timeout=timeout))
            for _ in range(FACTS_A_TURN):
                self._handle(self._inbox.get_nowait())
        except Empty:
            return

    def _handle(self, fact: Fact) -> None:
        if self._sender and not self._sender.heed(fact, time.monotonic()):
            return
        match fact:
            case Connected(serial):
                self._spool.set_link(up=True)
                if serial > self._old_serial:
                    self._rotation.connected()
                self._online()
            case Disconnected():
                if self._delivery.connected:
                    self._spool.set_link(up=False)
                self._delivery.offline()
                for mid in self._sender.forsaken() if self._sender else ():
                    self._delivery.pubacked(mid)
            case BrokerHas(mid):
                self._delivery.pubacked(mid)
            case AckArrived(payload):
                self._acknowledged(payload)
            case FleetTold(payload, own):
                self._fleet_told(payload, own=own)
            case OrdersArrived(payload):
                self._orders_told(payload)
            case RulesTold(payload):
                self._rules_told(payload)
            case JobArrived(name, payload):
                self._job_told(name, payload)

    def _job_told(self, name: str, payload: bytes) -> None:
        """Keep it for the jobs daemon; what a full disk refuses comes again."""
        try:
            self._jobs.take(name, payload)
        except DeviceFault as err:
            self._say_once_a_minute(str(err), time.monotonic())

    def _acknowledged(self, payload: bytes) -> None:
        now = time.monotonic()
        try:
            ack = parse_ack(payload)
        except RejectedInput as err:
            log.warning("%s", err)
            return
        self._delivery.acknowledged(ack, now)
        true = self._question.answer(ack.n, ack.t, now)
        if true is None or self._sender is None:
            return
        self._sender.answered()
        if true < RELEASED or not self._sender.peer_valid_at(true):
            log.warning(
                "The centre says it is %s, which cannot be: its clock or its certificate is wrong.", utc.of_unix(true)
            )
            return
        self._spool.clocks.confirm(true, now)
        if now >= self._tell_time_at:
            self._tell_time_at = now + told_time.EVERY_S
            with suppress(OSError):  # a full tmpfs: whoever reads it goes by what is known otherwise
                told_time.write(self._settings, true, now)

    def _fleet_told(self, payload: bytes, *, own: bool) -> None:
        now = self._spool.clocks.plausible_wall()
        if self._fleet and payload:
            self._fleet.take(payload, now)
        elif self._fleet and own:
            self._fleet.back(now)

    def _orders_told(self, payload: bytes) -> None:
        """Keep it for the appliance; an empty message (the contract has ended) leaves in force what is."""
        config = self._settings
        if not payload:
            return
        try:
            self._orders = self._orders or OrdersFile(
                config.orders, Path(config.telemetry.ca), config.tenant, config.box
            )
        except RejectedInput as err:
            self._say_once_a_minute(str(err), time.monotonic())
            return
        self._orders.take(payload, self._spool.clocks.plausible_wall())

    def _fleet_due(self, now: float) -> None:
        """Let go of a list that is over, or of all of it where the owner takes no part; show whom the box believes."""
        if now < self._fleet_at:
            return
        self._fleet_at = now + FLEET_S
        wall, link = self._spool.clocks.plausible_wall(), self._settings.telemetry
        if link.ca:
            try:
                authority.show(Path(link.ca), self._settings.authority)
            except DeviceFault as err:
                self._say_once_a_minute(str(err), now)
        if not link.immunity:
            forget(self._settings.fleet)
        elif self._fleet:
            self._fleet.publish(wall)
        elif link.ca:
            try:
                self._fleet = FleetList(self._settings.fleet, Path(link.ca), self._settings.box, wall)
            except RejectedInput as err:
                self._say_once_a_minute(str(err), now)

    def _rules_told(self, payload: bytes) -> None:
        """Put in force what the centre switched off; what a full disk refuses is tried again until it is."""
        try:
            self._switched = self._switched or SwitchedOff(self._settings)
            self._switched.take(payload, self._spool.clocks.plausible_wall())
            self._rules_wait = b""
        except RejectedInput as err:
            self._say_once_a_minute(str(err), time.monotonic())
        except DeviceFault as err:
            self._rules_wait, self._rules_at = payload, time.monotonic() + RETRY_S
            self._say_once_a_minute(str(err), time.monotonic())

    def _rules_due(self, now: float) -> None:
        """What is off is off from the start on, whether or not the centre is reached."""
        if now < self._rules_at:
            return
        self._rules_at = now + FLEET_S
        if self._rules_wait:
            self._rules_told(self._rules_wait)
        elif self._switched is None and self._settings.telemetry.ca:
            try:
                self._switched = SwitchedOff(self._settings)
            except RejectedInput as err:
                self._say_once_a_minute(str(err), now)

    def _publish(self) -> None:
        while self._sender and (publish := self._delivery.next(time.monotonic(), self._spool)):
            self._delivery.sent(publish, self._sender.publish(publish.batch.lane, publish.payload))

    def _close(self) -> None:
        for desk in (self._desk, self._keys):
            if desk:
                desk.close()
        self._keeper.close()
        if self._sender:
            self._sender.stop()
        try:
            self._intake.close()
            self._delivery.settle(float("inf"), self._spool)
        except DeviceFault as err:
            log.error("%s What was not stored will be read again.", err)
        self._spool.close()


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM; 2 when the settings are refused, 3 when the spool cannot be opened."""
    return program.main("sekisho.telemetry.daemon", lambda path: Telemetry(settings.load(path), path), argv)


if __name__ == "__main__":
    sys.exit(main())
