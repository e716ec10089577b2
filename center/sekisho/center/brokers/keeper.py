"""Runs the broker of this machine, and keeps who may connect to it equal to the registry of boxes.

The broker is this process's child: one unit, one user, nobody needs a right over another's process. A box that
was enrolled is let in within `POLL_S`; one that was revoked is taken from the list, and loses its connection with
NATS and RabbitMQ (with Mosquitto it is the CA that closes it). Those two are given no list of revoked certificates:
a box that was revoked and enrolled anew stays out until its revoked certificates have ended. While the database does
not answer, the list stays. When the broker ends, so does this process, and systemd starts both anew.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import sdnotify
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import stamp, write_atomic
from sekisho.center.brokers import mosquitto, nats, rabbitmq
from sekisho.center.brokers.model import Broker, Launch, Member
from sekisho.center.ca import registry, revoking, times
from sekisho.center.ca.tables import BOX_IDENTITY, CERTIFICATE
from sekisho.center.database import Database
from sekisho.center.pki import Credentials
from sekisho.center.settings import CenterSettings, Serve

POLL_S: Final = 1.0
RETRY_S: Final = 5.0
START_S: Final = 60.0
END_S: Final = 20.0

log = logging.getLogger(__name__)


class Keeper:
    """One broker and its list."""

    def __init__(self, config: CenterSettings) -> None:
        """Take up the work.

        Raises:
            RejectedInput: the settings name no broker of this machine, or a name in the registry is none.
            DeviceFault: the configuration cannot be written.

        """
        if config.serve is None:
            raise RejectedInput("The settings have no [serve]: this machine runs no broker of ours.")
        self._serve = config.serve
        self._store, self._services = config.store, config.services
        self._list = Path(config.serve.directory) / "members.json"
        self._crl = Path(config.ca.revoked) / revoking.CRL
        self._stopped = threading.Event()
        self._listens = threading.Event()
        found = self._try_members()
        self._members = _read(self._list) if found is None else found
        self._crl_read = stamp(self._crl)
        self._behind = config.serve.kind == "rabbitmq"  # which keeps its users over a restart: they are compared
        self._launch = self._write(self._members)

    def run(self) -> int:
        """Run the broker until `stop`; the exit code."""
        child = subprocess.Popen(self._launch.argv)
        threading.Thread(target=self._say_ready, name="ready", daemon=True).start()
        again = 0.0
        while not self._stopped.wait(POLL_S):
            if child.poll() is not None:
                log.error("the broker has ended with code %d", child.returncode)
                return 3
            sdnotify.notify("WATCHDOG=1")
            if not self._listens.is_set() or time.monotonic() < again:
                continue
            try:
                self._follow(child)
            except DeviceFault as err:
                log.error("%s The list of boxes is not carried out yet; trying again.", err)
                again = time.monotonic() + RETRY_S
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return 0

    def stop(self) -> None:
        self._stopped.set()

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        """Write the list anew and have it read, when the registry or the revoked have changed; all of it or again."""
        members, crl = self._try_members(), stamp(self._crl)
        if members is None:
            members = self._members
        if members == self._members and crl == self._crl_read and not self._behind:
            return
        self._behind = True
        self._write(members)
        if self._serve.kind == "rabbitmq":
            kept = {member.box for member in members}
            gone = [member.box for member in self._members if member.box not in kept]
            rabbitmq.reload(Path(self._serve.directory), gone)
        else:
            child.send_signal(signal.SIGHUP)
        self._members, self._crl_read, self._behind = members, crl, False
        log.info("%d boxes may connect", len(members))

    def _try_members(self) -> tuple[Member, ...] | None:
        """The boxes that have a certificate and none that is revoked; None while the database does not answer."""
        active = sa.select(BOX_IDENTITY.c.box, BOX_IDENTITY.c.tenant).where(BOX_IDENTITY.c.state == "active")
        if self._serve.kind != "mosquitto":
            still = (CERTIFICATE.c.revoked_at != "", CERTIFICATE.c.not_after > times.text(times.now()))
            active = active.where(BOX_IDENTITY.c.box.not_in(sa.select(CERTIFICATE.c.box).where(*still)))
        try:
            with closing(Database(self._store, read_only=True)) as database, database.reading() as db:
                found = [Member(*row) for row in db.execute(active.order_by(BOX_IDENTITY.c.box))]
        except DeviceFault as err:
            log.debug("%s", err)
            return None
        return tuple(member for member in found if not registry.is_service(member.box, self._services))

    def _write(self, members: tuple[Member, ...]) -> Launch:
        serve, directory = self._serve, Path(self._serve.directory)
        broker = Broker(
            directory,
            Credentials(Path(serve.ca), Path(serve.cert), Path(serve.key)),
            serve.address,
            serve.port,
            serve.websocket_port,
            workers=serve.workers,
            members=members,
            max_connections=serve.connections,
        )
        try:
            launch = _write(serve, broker, self._crl)
            write_atomic(self._list, msgspec.json.encode(members))
        except OSError as err:
            raise DeviceFault(f"Cannot write in {directory}: {err.strerror}.") from err
        return launch

    def _say_ready(self) -> None:
        """Tell systemd when the broker listens, and that it can be told of changes: before, a signal would end it."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and not self._stopped.is_set():
            with suppress(OSError), socket.create_connection((self._serve.address or "localhost", self._serve.port), 1):
                sdnotify.notify("READY=1")
                break
            time.sleep(0.1)
        self._listens.set()


def _write(serve: Serve, broker: Broker, crl: Path) -> Launch:
    match serve.kind:
        case "nats":
            return nats.write_config(broker, serve.node)
        case "rabbitmq":
            return rabbitmq.write_config(broker, serve.erlang)
        case _:
            return mosquitto.write_config(replace(broker, crl=crl if crl.exists() else None))


def _read(path: Path) -> tuple[Member, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Member, ...])
    except (OSError, msgspec.DecodeError):
        return ()
