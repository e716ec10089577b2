"""The CA's daemon at work: answers the web service, cuts off what was revoked.

One question at a time on a Unix socket: a grant is a transaction of a few milliseconds. Sessions are closed on a
thread of their own, so that a broker that hangs delays no box.
"""

from __future__ import annotations

import datetime as dt
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core import sdnotify
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.center import pki
from sekisho.center.ca import revoking, times
from sekisho.center.ca.cutting import Stand
from sekisho.center.ca.granting import Granting, Refused
from sekisho.center.ca.wire import LINE_CAP_BYTES, TURN_S, Answer, Question
from sekisho.center.database import Database
from sekisho.center.settings import CenterSettings
from sekisho.telemetry.enrolment.wire import BrokerAddress, Grant

LOOK_S: Final = 0.25
RETRY_S: Final = 5.0
AGAIN_S: Final = 5.0
"""Before a box that came back is cut off again."""
BEAT_S: Final = 2.0

log = logging.getLogger(__name__)


class Signer:
    """Owns the socket, the CA's key and the list of the revoked."""

    def __init__(self, config: CenterSettings) -> None:
        """Take up the work.

        Raises:
            RejectedInput: there is no CA, or it cannot be used.
            DeviceFault: the database or the socket cannot be opened, the list not be written.

        """
        self._config, self._ca = config, pki.load_ca(Path(config.ca.directory))
        life = dt.timedelta(days=config.ca.certificate_days)
        self._granting = Granting(self._ca, life, dt.timedelta(days=config.ca.grace_days))
        self._brokers = addresses(config)
        self._database = Database(config.store)
        self._publish()
        self._socket = _listen(Path(config.ca.socket))
        self._stopped = threading.Event()
        self._stands: dict[str, Stand] = {}
        self._cut_at: dict[str, float] = {}

    def run(self) -> None:
        """Answer until `stop`."""
        cutter = threading.Thread(target=self._cut_what_is_due, name="cutter", daemon=True)
        cutter.start()
        sdnotify.notify("READY=1")
        beat = 0.0
        while not self._stopped.is_set():
            if time.monotonic() >= beat:
                beat = time.monotonic() + BEAT_S
                sdnotify.notify("WATCHDOG=1")
            try:
                peer, _ = self._socket.accept()
            except TimeoutError:
                continue
            with peer:
                self._serve(peer)
        self._socket.close()
        cutter.join(TURN_S)
        self._database.close()

    def stop(self) -> None:
        self._stopped.set()

    def _serve(self, peer: socket.socket) -> None:
        peer.settimeout(TURN_S)
        try:
            with peer.makefile("rwb") as line:
                question = msgspec.json.decode(line.readline(LINE_CAP_BYTES), type=Question)
                line.write(msgspec.json.encode(self._answer(question)) + b"\n")
        except (OSError, msgspec.DecodeError) as err:
            log.warning("a question was not understood or its asker left: %s", err)
        except Exception:  # one request, whatever is in it, must not be the end of the CA's daemon
            log.exception("a question could not be answered")

    def _answer(self, question: Question) -> Answer:
        refused: Refused | None = None
        try:
            with self._database.transaction() as db:
                try:
                    row = self._granting.grant(db, question.ask, question.source, times.now())
                except Refused as err:
                    refused = err
        except DeviceFault as err:
            log.error("%s", err)
            return Answer(status=503, error="The centre cannot answer now. Please try again in a minute.")
        if refused:
            log.warning("%s: refused: %s %s", question.source, refused.outcome, refused.box)
            return Answer(status=refused.status, error=str(refused))
        log.info("%s: %s has certificate %s", question.source, row.box, row.serial)
        return Answer(Grant(row.box, row.tenant, row.pem, self._brokers))

    def _publish(self) -> None:
        now, directory = times.now(), Path(self._config.ca.revoked)
        with self._database.transaction() as db:
            kept = revoking.adopt(db, directory, self._ca, now)
            entries = revoking.revoked(db, now) + kept
        try:
            revoking.publish(directory, self._ca, entries, now)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._config.ca.revoked}: {err.strerror}.") from err

    def _cut_what_is_due(self) -> None:
        wait = LOOK_S
        while not self._stopped.wait(wait):
            try:
                self._cut()
                wait = LOOK_S
            except (DeviceFault, PeerError) as err:
                log.error("%s Trying again.", err)
                wait = RETRY_S
            except Exception:  # a revocation is never given up
                log.exception("cutting off failed; trying again")
                wait = RETRY_S

    def _cut(self) -> None:
        with self._database.reading() as db:
            due = revoking.due(db)
        boxes = {row.box for row in due}
        self._cut_at = {box: at for box, at in self._cut_at.items() if box in boxes and time.monotonic() < at + AGAIN_S}
        for box in sorted(boxes - set(self._cut_at)):
            self._publish()
            now = times.now()
            self._stand(box, now).take_session(self._config.broker)
            with self._database.transaction() as db:
                revoking.cut(db, [row.serial for row in due if row.box == box], now)
            self._cut_at[box] = time.monotonic()
            log.warning("%s is cut off: its certificates are revoked", box)

    def _stand(self, box: str, now: dt.datetime) -> Stand:
        self._stands = {name: stand for name, stand in self._stands.items() if stand.lasts(now)}
        if box not in self._stands:
            made = Stand(self._ca, box)
            with self._database.transaction() as db:
                made.record(db, now)
            self._stands[box] = made
        return self._stands[box]


def addresses(config: CenterSettings) -> tuple[BrokerAddress, ...]:
    """What boxes are told to connect to.

    Raises:
        RejectedInput: an entry is neither "host" nor "host:port".

    """
    if not config.ca.brokers:
        return (BrokerAddress(config.broker.host, config.broker.port),)
    return tuple(_address(text) for text in config.ca.brokers)


def _address(text: str) -> BrokerAddress:
    host, _, port = text.rpartition(":") if not text.endswith("]") and text.count(":") else (text, "", "8883")
    return msgspec.convert({"host": host.strip("[]"), "port": int(port)}, BrokerAddress)


def _listen(path: Path) -> socket.socket:
    try:
        path.unlink(missing_ok=True)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(str(path))
        path.chmod(0o660)
        made.listen(64)
    except OSError as err:
        raise DeviceFault(f"Cannot listen on {path}: {err.strerror}.") from err
    made.settimeout(LOOK_S)
    return made
