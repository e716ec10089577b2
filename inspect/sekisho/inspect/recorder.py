"""Writes outcomes, keeps quarantine and ledger, on a thread of its own: disks are slow, packets are not.

Order per file: content into quarantine, then its outcome into the journal. When the disk refuses, the
outcome waits (bounded) and is tried again; the newest clean outcomes go first when the bound is hit,
and how many were lost is itself recorded. One process writes at a time: a successor's outcomes wait until
its predecessor has written its last and ended (a lock on a file, which the kernel takes off).
"""

from __future__ import annotations

import fcntl
import ipaddress
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import SekishoError
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.known import BY_FLEET
from sekisho.inspect.kept import Entry
from sekisho.inspect.ledger import Ledger, Why
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.refused import Refused
from sekisho.telemetry import events

log = logging.getLogger(__name__)

MAX_WAITING = 20_000
MAX_INVENTORY = 1 << 20
TRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Bad:
    """A file that was delivered is known to be malicious now."""

    sha256: str
    rules: list[str]
    why: Why


@dataclass(frozen=True, slots=True)
class NewRules:
    """Another set is in force; `known` lists its hashes of malicious files."""

    known: Path

    @property
    def set_id(self) -> str:
        return self.known.parent.name


@dataclass(slots=True)
class Record:
    """One outcome, with the content to keep (`fd` is the recorder's to close) or -1."""

    verdict: events.FileVerdict
    fd: int = -1
    length: int = 0
    form: str = "file"
    again: bool = False
    """The content is kept to be looked at again, not because it was stopped."""
    hearsay: bool = False
    """The verdict is not of the rules in force."""


@dataclass(frozen=True)
class NewFleet:
    """The fleet's list of bad files has changed."""

    bad: Path


@dataclass(frozen=True, slots=True)
class Stores:
    """What one process writes at a time."""

    journal: JournalWriter
    quarantine: Quarantine
    recent: Quarantine
    ledger: Ledger
    refused: Refused

    def close(self) -> None:
        self.refused.flush(now=True)
        self.ledger.close()
        self.journal.close()


class Recorder:
    """A queue and its thread. `put` never blocks."""

    def __init__(
        self,
        open_stores: Callable[[], Stores],
        lock: Path,
        inventory: Path,
        home: Iterable[str] = (),
    ) -> None:
        """`lock` is held while the stores are open; `home`: the office's networks, by which a file's device is told
        from its server.
        """
        self._open_stores = open_stores
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inventory = inventory
        self._home = [ipaddress.ip_network(network) for network in home]
        self._macs: dict[str, str] = {}
        self._macs_at = 0.0
        self._queue: queue.Queue[Record | events.Health | Bad | NewRules | NewFleet | None] = queue.Queue(MAX_WAITING)
        self._lost = 0
        self._kept: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def put(self, record: Record | events.Health | Bad | NewRules | NewFleet) -> None:
        """Record soon; overflow drops this record and counts it."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost += 1
            if isinstance(record, Record) and record.fd >= 0:
                os.close(record.fd)

    def close(self) -> None:
        """Write what waits, then stop."""
        self._queue.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        self._stores = self._opened()
        try:
            self._work()
        finally:
            self._stores.close()
            os.close(self._lock)

    def _opened(self) -> Stores:
        """The stores, as soon as they are free and can be opened."""
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                stores = self._open_stores()
                self._kept = {entry.sha256: entry.id for entry in stores.quarantine.entries()}
                return stores
            except BlockingIOError:
                time.sleep(TRY_S)
            except (OSError, SekishoError, sqlite3.Error) as err:
                log.error("outcomes cannot be written yet: %s", err)
                time.sleep(1)

    def _work(self) -> None:
        while True:
            try:
                record = self._queue.get(timeout=1)
            except queue.Empty:
                self._flush()
                continue
            if record is None:
                return
            if self._lost:
                lost, self._lost = self._lost, 0
                self._write(events.Health(at=utc.now(), part="inspect", state="lost_outcomes", detail=str(lost)))
            match record:
                case events.Health():
                    self._write(record)
                case Bad():
                    self._found_bad(record)
                case NewRules():
                    self._stores.refused.begin(record.set_id)
                    for sha256 in self._stores.ledger.among(record.known):
                        self._found_bad(Bad(sha256, ["known_file"], "hash_list"))
                case NewFleet():
                    for sha256 in self._stores.ledger.among(record.bad):
                        self._found_bad(Bad(sha256, [BY_FLEET], "seen_bad"))
                case Record():
                    self._record(record)
            self._flush()

    def _flush(self) -> None:
        self._stores.ledger.flush()
        self._stores.refused.flush()

    def _found_bad(self, bad: Bad) -> None:
        retro = self._stores.ledger.found_bad(bad.sha256, bad.rules, bad.why, utc.now())
        if retro is not None:
            # A device is often known by its address a moment after its first file.
            named = [d if d.mac else msgspec.structs.replace(d, mac=self._mac(d.ip, d.ip)) for d in retro.deliveries]
            self._write(msgspec.structs.replace(retro, deliveries=named))

    def _record(self, record: Record) -> None:
        verdict = record.verdict
        flow = msgspec.structs.replace(verdict.flow, mac=self._mac(verdict.flow.src_ip, verdict.flow.dst_ip))
        verdict = msgspec.structs.replace(verdict, flow=flow)
        if record.again:
            self._keep_to_look_again(record, verdict)
        elif record.fd >= 0:
            try:
                entry = self._stores.quarantine.put(record.fd, record.length, _entry(verdict, record.form))
                verdict = msgspec.structs.replace(verdict, quarantine=entry.id)
                self._kept[verdict.sha256] = entry.id
            except SekishoError as err:
                log.error("not quarantined: %s", err)
                self._write(events.Health(at=utc.now(), part="quarantine", state="failed", detail=str(err)[:200]))
            finally:
                os.close(record.fd)
        elif verdict.outcome == "blocked":
            verdict = msgspec.structs.replace(verdict, quarantine=self._kept_before(verdict.sha256))
        self._write(verdict)
        if verdict.rules and verdict.sha256:
            if not record.hearsay and verdict.rules != [BY_FLEET]:
                self._stores.refused.add(verdict.sha256, verdict.size, verdict.rules)
            self._found_bad(Bad(verdict.sha256, verdict.rules, "seen_bad"))
        elif verdict.sha256 and verdict.outcome != "blocked":
            self._stores.ledger.deliver(verdict, self._device(verdict.flow))

    def _kept_before(self, sha256: str) -> str:
        """The quarantine's copy of a file that was stopped without being taken again; empty when there is none."""
        ident = self._kept.get(sha256, "") if sha256 else ""
        if ident:
            try:
                self._stores.quarantine.show(ident)
            except SekishoError:
                del self._kept[sha256]
                return ""
        return ident

    def _device(self, flow: events.Flow) -> str:
        """The office's end of a flow; its receiver where both or none are."""
        src, dst = (
            any(ipaddress.ip_address(end) in network for network in self._home) for end in (flow.src_ip, flow.dst_ip)
        )
        return flow.src_ip if src and not dst else flow.dst_ip

    def _keep_to_look_again(self, record: Record, verdict: events.FileVerdict) -> None:
        try:
            self._stores.recent.put(record.fd, record.length, _entry(verdict, record.form))
        except SekishoError as err:
            log.warning("not kept to be looked at again: %s", err)
        finally:
            os.close(record.fd)

    def _write(self, event: events.Event) -> None:
        line = events.encode(event)
        while True:
            try:
                self._stores.journal.append(line, durable=events.lane_of(event) < 2)
                return
            except SekishoError as err:
                log.error("%s", err)
                time.sleep(1)

    def _mac(self, src: str, dst: str) -> str:
        try:
            changed = self._inventory.stat().st_mtime
            if changed != self._macs_at:
                with self._inventory.open("rb") as source:
                    self._macs = msgspec.json.decode(source.read(MAX_INVENTORY), type=dict[str, str])
                self._macs_at = changed
        except (OSError, msgspec.MsgspecError):
            return self._macs.get(src) or self._macs.get(dst) or ""
        return self._macs.get(src) or self._macs.get(dst) or ""


def _entry(verdict: events.FileVerdict, form: str) -> Entry:
    return Entry(
        id="",
        at=verdict.at,
        sha256=verdict.sha256,
        size=verdict.size,
        file_name=verdict.file_name,
        rules=verdict.rules,
        app=verdict.app,
        url=verdict.url,
        src=verdict.flow.src_ip,
        dst=verdict.flow.dst_ip,
        form=form,
    )
