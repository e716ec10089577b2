"""The inspect daemon: wires gate, engine events, scan workers, recorder. One loop, one thread for packets.

    gate.run -> (engine datagrams, worker results, notes) -> HoldEngine -> commands -> gate, pool, recorder

The loop never touches a disk or waits for anything but the gate; outcomes go to the recorder's thread.
Every 100 ms it writes its heartbeat; appliance bypasses the gate when that stops.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections import Counter, OrderedDict
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from sekisho.appliance.core import latency, marks, muting, sdnotify, utc
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import SekishoError
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Inspection, Settings, load
from sekisho.inspect import counter, eve, gate, hold, pages, retro
from sekisho.inspect.fleet import Published
from sekisho.inspect.janitor import Janitor
from sekisho.inspect.kept import Entry
from sekisho.inspect.ledger import Ledger
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.ranges import Ranges
from sekisho.inspect.recorder import Bad, NewFleet, NewRules, Record, Recorder
from sekisho.inspect.refused import Refused
from sekisho.inspect.scan import Pool
from sekisho.inspect.telling import Telling
from sekisho.inspect.worker import Job, Result
from sekisho.telemetry import events

log = logging.getLogger(__name__)

BEAT_S = 0.1
DEPTH = 1 << 20
"""Bytes of a response stream that Suricata reassembles (appliance.suricata sets the same)."""
CHECK_S = 1.0
TELL_SHED_S = 60.0
BUSY = 32
"""Scans waiting for a worker from which on only what is held is looked at."""
MAX_HEARD = 65536
PAUSE_US = 10_000
"""A response that says nothing for this long has its unfinished content looked at. Shorter looks more often."""
REPLAY_BYTES = 4 << 20
REPLY = b"554 5.7.1 Refused by sekisho: the attachment is malicious and was not delivered.\r\n"
MAILBOXES = ("pop3", "imap")
KINDS = {
    "http": marks.HTTP, "http2": marks.HTTP, "smtp": marks.MAIL, "ftp-data": marks.FTPDATA, "smb": marks.SMB,
}  # fmt: skip


class Inspect:
    """Everything the daemon owns; `step` is one turn of the loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        inspection = settings.inspection
        self.engine = hold.HoldEngine(block=inspection.mode == "block", block_reasons=_block_reasons(inspection))
        self.quarantine = Quarantine(
            settings.quarantine_dir,
            max_bytes=settings.quarantine.max_mb << 20,
            keep_days=settings.quarantine.keep_days,
        )
        journal = settings.journals / "inspect.jsonl"
        told = _told(journal)
        recent = Quarantine(settings.state / "recent", max_bytes=retro.STORE_BYTES, keep_days=retro.KEEP_DAYS)
        ledger = Ledger(settings.state / "inspect" / "ledger.db")
        self.rules = settings.sets / "current" / "yara.compiled"
        refused = Refused(settings.known_files, self._rules_file().parent.name)
        self.engine.known.update((file.sha256, tuple(file.rules)) for file in refused.files())
        self.recorder = Recorder(
            JournalWriter(journal), self.quarantine, recent, ledger, refused, settings.inventory,
            inspection.home_networks,
        )  # fmt: skip
        self.rescan = retro.Rescan(recent)
        self._again: dict[int, Entry] = {}
        self._next_again = 0
        self.fleet = Published(settings.fleet_bad)
        self.pool = Pool(inspection.scan_workers, 512, self._rules_file(), self.fleet.fd)
        self.telling = Telling(settings, self.pool)
        self._muting: tuple[tuple[int, int], ...] = ()
        self._mute()
        self.files = _bind(settings.files_socket, socket.SOCK_DGRAM)
        self.control = _bind(settings.inspect_socket, socket.SOCK_STREAM)
        self.beat = _Beat(settings.gate_beat)
        self.gate: gate.Gate | None = None
        self.ranges = Ranges(inspection.memory_mb << 18, inspection.scan_limit_mb << 20)
        self._fds: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        self._lengths: dict[int, int] = {}
        self._forms: dict[int, str] = {}
        self._housekeeping = 0.0
        self._late = eve.missed(settings.files_log, told, cap_bytes=REPLAY_BYTES)
        self._log = eve.Follower(settings.files_log)
        self._heard: OrderedDict[object, None] = OrderedDict()
        self._unheard: list[eve.File] = []
        self._checked = time.monotonic()
        self._told_shed = -TELL_SHED_S
        self._shed: Counter[str] = Counter()
        self.janitor = Janitor(settings.filestore)
        kept = settings.quarantine
        shown = Quarantine(settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days, writer=False)
        answering = counter.Counter(shown, kept.keep_days, inspection.scan_limit_mb << 20, self.recorder.put)
        self.desk = Desk(settings.quarantine_socket, counter.USERS, answering.answer)
        self.stopping = False

    def _rules_file(self) -> Path:
        """The compiled rules of the set in force, through the link, so that a new set is a new path."""
        return self.rules.resolve()

    def open_gate(self) -> None:
        """Bind the queue; from here on packets wait for us."""
        inspection = self.settings.inspection
        config = gate.Config(
            queue=gate.QUEUE,
            fail_open=inspection.fail_mode == "open",
            max_flows=16384,
            max_held=16384,
            spool_limit=inspection.scan_limit_mb << 20,
            spool_total=inspection.memory_mb << 20,
            depth=DEPTH,
            deadline_ms=int(inspection.scan_timeout_s * 1000),
            pause_us=PAUSE_US,
        )
        self.gate = gate.Gate(config)
        for why, page in pages.pages(self.settings.help_desk).items():
            self.gate.set_page(why, page)
        latency.short_slice(0)

    def step(self) -> None:
        """Move packets for at most a heartbeat and act on what came up."""
        now = time.monotonic()
        if now - self._housekeeping >= BEAT_S:
            self._housekeeping = now
            self._keep_house()
        if self.gate is None:
            if self.pool.ready:
                self.open_gate()
                self._replay()
                sdnotify.notify("READY=1")
                log.info("the gate is open")
            else:
                self._wait_for_workers()
            return
        fds = [self.files.fileno(), self.control.fileno(), *self.pool.fds()]
        ready, notes = self.gate.run(fds, BEAT_S)
        if fds[0] in ready:
            self._hear()
        if fds[1] in ready:
            self._answer()
        for fd in ready:
            self.pool.handle(fd)
        self._collect()
        for note in notes:
            ends = None if note.kind is gate.Kind.GONE else self.gate.ends(note.flow)
            self._do(self.engine.handle(hold.NoteRaised(note, ends), time.monotonic()))

    def _wait_for_workers(self) -> None:
        if not self.pool.fds():
            time.sleep(0.05)
        for fd in self.pool.fds():
            self.pool.handle(fd)
        time.sleep(0.01)

    def _keep_house(self) -> None:
        self.beat.write()
        sdnotify.notify("WATCHDOG=1")
        current = self._rules_file()
        if current != self.pool.rules or self._mute():
            self.pool.rules = current
            self.engine.forget_verdicts()
            self.recorder.put(NewRules(current.with_name("known.bin")))
            self.rescan.begin()
        if self.fleet.refresh():
            self.engine.fleet_changed()
            self.recorder.put(NewFleet(self.settings.fleet_bad))
        if self.pool.idle:
            self._look_again()
        self.pool.tick()
        self.telling.turn()
        self.engine.overloaded = self.pool.waiting > BUSY
        if time.monotonic() - self._checked >= CHECK_S and self.gate is not None:
            self._checked = time.monotonic()
            self._cross_check()
            self._tell_shed()
            self._do(self.engine.due(time.monotonic()))

    def _mute(self) -> bool:
        """Whether other rules are muted than before; the workers hear of it with their next job."""
        stamps = muting.stamps(self.settings)
        if stamps == self._muting:
            return False
        self._muting, before = stamps, self.pool.muted
        self.pool.muted = muting.both(self.settings).yara
        return self.pool.muted != before

    def _look_again(self) -> None:
        """One file that was delivered before the rules changed."""
        again = self.rescan.take()
        if again is None:
            return
        self._next_again -= 1
        self._again[self._next_again] = again.entry
        what: Literal["file", "stream"] = "file" if again.entry.form == "file" else "stream"
        job = self._job(self._next_again, what, again.length, again.entry.file_name[-128:])
        job.app, job.to_server = again.entry.app, again.entry.app == "smtp"
        self.pool.submit(job, again.fd)

    def _tell_shed(self) -> None:
        """Once a minute: what was not looked at, if anything."""
        now = time.monotonic()
        if now - self._told_shed < TELL_SHED_S or self.engine.shed == self._shed:
            return
        fresh = self.engine.shed - self._shed
        self._told_shed, self._shed = now, self.engine.shed.copy()
        detail = " ".join(f"{kind}={count}" for kind, count in sorted(fresh.items()))
        self.recorder.put(events.Health(at=utc.now(), part="inspect", state="shed", detail=detail))

    def _cross_check(self) -> None:
        """A datagram the engine could not deliver (it never waits) is in its log all the same: judge that file late.

        A file that is still in the store a second after its line has not been judged: judging removes it.
        """
        for file in self._unheard:
            if eve.key(file.sha256, file.meta) not in self._heard and self._in_store(file):
                log.warning("a file of %s was not announced; judged late", file.meta.app)
                self._seen(file, 0, 0, late=True)
        self._unheard = [f for f in self._log.files() if eve.key(f.sha256, f.meta) not in self._heard]

    def _in_store(self, file: eve.File) -> bool:
        return bool(file.sha256) and file.stored and self._stored_at(file).exists()

    def _stored_at(self, file: eve.File) -> Path:
        return self.settings.filestore / file.sha256[:2] / file.sha256

    def _hear(self) -> None:
        """Take every datagram that is there: what the engine said before it let the staged packets go."""
        while True:
            try:
                line = self.files.recv(eve.MAX_LINE + 1)
            except BlockingIOError:
                return
            if (name := eve.parse_name(line)) is not None:
                self.engine.name(name.ends, name.name)
            elif (file := eve.parse(line)) is not None:
                self._file(file)

    def _file(self, file: eve.File) -> None:
        if self.gate is None:
            return
        meta = file.meta
        self._heard[eve.key(file.sha256, meta)] = None
        if len(self._heard) > MAX_HEARD:
            self._heard.popitem(last=False)
        try:
            flow, direction = self.gate.find(meta.src, meta.src_port, meta.dst, meta.dst_port, KINDS.get(meta.app, 0))
        except ValueError:
            return
        self._seen(file, flow, direction, late=False)

    def _seen(self, file: eve.File, flow: int, direction: int, *, late: bool) -> None:
        path = ""
        if file.stored and file.sha256:
            path = str(self._stored_at(file))
        seen = hold.FileSeen(flow, direction, file.meta, file.state, file.stored, file.sha256, file.size, path, late)
        token = self.engine.next_token
        if path:
            self._paths[token] = path
        self._do(self.engine.handle(seen, time.monotonic()))

    def _replay(self) -> None:
        """Files that completed while nobody was at the gate: too late to stop, not too late to say so."""
        for file in self._late:
            if self._in_store(file):
                self._seen(file, 0, 0, late=True)
        self._late = []

    def _collect(self) -> None:
        for result in self.pool.results():
            if result.id in self._again:
                entry = self._again.pop(result.id)
                rules = next((seen.rules for seen in result.objects if seen.rules), [])
                if rules:
                    self.recorder.put(Bad(entry.sha256, rules, "rules"))
                continue
            self._do(self.engine.handle(hold.ScanDone(result.id, result), time.monotonic()))

    def _do(self, commands: list[hold.Command]) -> None:
        if self.gate is None:
            return
        for command in commands:
            match command:
                case hold.Release():
                    self.gate.release(command.flow, command.dir, command.upto, command.finished)
                case hold.Assemble():
                    self._assemble(command)
                case hold.Expect():
                    self.gate.expect(command.flow, command.dir, command.end)
                case hold.Pass():
                    self.gate.pass_(command.flow, command.dir, sealed=command.sealed)
                case hold.Gather():
                    self.gate.gather(command.flow)
                case hold.Scan():
                    self._scan(command)
                case hold.Keep():
                    self._keep(command.token)
                case hold.Neutralise():
                    self._neutralise(command)
                case hold.Cut():
                    self._cut(command)
                case hold.Report():
                    self._report(command)
                case hold.Done():
                    self._done(command.token)

    def _scan(self, scan: hold.Scan) -> None:
        if self.gate is None:
            return
        fd, length = -1, scan.length
        if scan.path:
            with contextlib.suppress(OSError):
                fd = os.open(scan.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                length = os.fstat(fd).st_size
            if fd >= 0 and length < scan.length:  # the store was full: half a file proves nothing
                os.close(fd)
                fd = -1
        else:
            spool, there = self.gate.spool(scan.flow, scan.dir)
            length = min(length, there)
            if spool >= 0:
                fd = os.dup(spool)
        if fd < 0:
            error = Result(scan.token, error="not_stored" if scan.path else "")
            self._do(self.engine.handle(hold.ScanDone(scan.token, error), time.monotonic()))
            return
        self._fds[scan.token] = os.dup(fd)
        self._lengths[scan.token] = length
        self._forms[scan.token] = "file" if scan.path else "transfer"
        job = self._job(scan.token, scan.what, length, scan.name)
        job.app, job.to_server = scan.app, scan.dir == gate.TO_SERVER
        job.asked = self._known(scan)
        job.full, job.looked, job.left = scan.full, scan.looked, scan.left
        if scan.app in MAILBOXES and not scan.path:
            self._mailbox_job(job, scan, self.gate.delivered(scan.flow, scan.dir))
        self.pool.submit(job, fd)

    def _job(self, token: int, what: Literal["file", "stream"], length: int, name: str) -> Job:
        inspection = self.settings.inspection
        return Job(
            token, what, length, name=name,
            timeout_s=max(1, int(inspection.scan_timeout_s)), limit=inspection.scan_limit_mb << 20,
            expanded=inspection.container_mb << 20, depth=inspection.container_depth, files=inspection.container_files,
        )  # fmt: skip

    def _mailbox_job(self, job: Job, scan: hold.Scan, delivered: int) -> None:
        """What only a mailbox's stream needs to be looked at."""
        job.mend, job.delivered, job.blank = scan.mend, delivered, scan.blank
        job.stalled = scan.stalled
        job.refuse = sorted(self.engine.block_reasons)
        job.at = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")

    def _neutralise(self, order: hold.Neutralise) -> None:
        """Keep the originals, then put the patches in their place."""
        if self.gate is None:
            return
        spool, length = self.gate.spool(order.flow, order.dir)
        for token, begin, end in order.taken:
            if spool >= 0 and begin < (end := min(end, length)):
                self._fds[token] = _copy(spool, begin, end - begin)
                self._lengths[token], self._forms[token] = end - begin, "transfer"
        done = all(self.gate.rewrite(order.flow, order.dir, p.offset, p.whole()) for p in order.patches)
        self._do(self.engine.handle(hold.Neutralised(order.token, done), time.monotonic()))

    def _assemble(self, assemble: hold.Assemble) -> None:
        """Put a piece to the others of its download, and have all of it looked at."""
        token, piece = assemble.token, assemble.piece
        spool = self._fds.get(token, -1)
        start, _, total = piece.ranged or (0, 0, 0)
        length = max(0, min(self._lengths.get(token, 0) - piece.body_at, piece.content))
        fd, first, last = -1, 0, 0
        if spool >= 0:
            fd, first, last = self.ranges.put((piece.host, piece.url), start, spool, piece.body_at, length, total)
        alone = fd < 0 or not assemble.judge
        whole = first == 0 and last >= total > 0
        self._do(self.engine.handle(hold.Assembled(token, whole, alone, first > 0), time.monotonic()))
        if not alone:
            job = self._job(token, "file", last, piece.name[-128:])
            job.skip = first
            self.pool.submit(job, os.dup(fd))

    def _known(self, scan: hold.Scan) -> bytes:
        """What the splitter should know from elsewhere."""
        if self.gate is None or not scan.flow:
            return b""
        if scan.app == "http":
            return self.gate.asked(scan.flow)
        return msgspec.msgpack.encode(self.engine.memos(scan.flow, scan.dir))

    def _keep(self, token: int) -> None:
        """Make sure the content survives the cut: from here on a descriptor holds it."""
        if token not in self._fds and token in self._paths:
            with contextlib.suppress(OSError):
                fd = os.open(self._paths[token], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                self._fds[token] = fd
                self._lengths[token] = os.fstat(fd).st_size
                self._forms[token] = "file"

    def _cut(self, cut: hold.Cut) -> None:
        if self.gate is None:
            return
        ends = self.gate.ends(cut.flow)
        mail = ends is not None and ends.kind & marks.MAIL and cut.dir == gate.TO_SERVER
        withheld = self.gate.cut(cut.flow, cut.dir, REPLY if mail else b"")
        self._do(self.engine.handle(hold.CutDone(cut.token, withheld), time.monotonic()))

    def _report(self, report: hold.Report) -> None:
        meta = report.meta
        verdict = events.FileVerdict(
            at=utc.now(),
            flow=events.Flow(meta.src, meta.src_port, meta.dst, meta.dst_port, "TCP"),
            outcome=report.outcome,
            reason=report.reason,
            rules=list(report.rules),
            file_name=meta.file_name,
            inner=report.inner,
            sha256=report.sha256,
            size=report.size,
            app=meta.app,
            url=meta.url,
            host=meta.host,
            mail_from=meta.mail_from if report.rules else "",
            mail_to=list(meta.mail_to) if report.rules else [],
            mail_subject=meta.mail_subject if report.rules else "",
            held_ms=round(report.held_ms, 2),
        )
        keep = report.outcome in ("blocked", "delivered_then_found")
        if report.again and (copy := self._copy(report.token, *report.again)) is not None:
            self.recorder.put(Record(verdict, *copy, "transfer", again=True))
            return
        fd = self._fds.pop(report.token, -1) if keep else -1
        length, form = self._lengths.get(report.token, 0), self._forms.get(report.token, "")
        self.recorder.put(Record(verdict, fd, length, form, hearsay=report.hearsay))

    def _copy(self, token: int, start: int, end: int) -> tuple[int, int] | None:
        """(descriptor, length) of a part of what is spooled, which moves on after this."""
        length = min(end, self._lengths.get(token, 0)) - start
        if token not in self._fds or not 0 < length <= retro.MAX_BYTES:
            return None
        fd = os.memfd_create("again", os.MFD_CLOEXEC)
        try:
            return fd, os.sendfile(fd, self._fds[token], start, length)
        except OSError:
            os.close(fd)
            return None

    def _done(self, token: int) -> None:
        fd = self._fds.pop(token, -1)
        if fd >= 0:
            os.close(fd)
        self._lengths.pop(token, None)
        self._forms.pop(token, None)
        path = self._paths.pop(token, "")
        if path and path not in self._paths.values():
            with contextlib.suppress(OSError):
                Path(path).unlink()

    def status(self) -> dict[str, object]:
        """Facts for `sekisho box status` and tests."""
        stats = self.gate.stats() if self.gate else gate.Stats()
        facts: dict[str, object] = {field[0]: getattr(stats, field[0]) for field in gate.Stats._fields_}
        return facts | {
            "open": self.gate is not None,
            "workers": self.pool.pids(),
            "workers_ready": self.pool.ready,
            "workers_lost": self.pool.lost,
            "scans": self.pool.submitted,
            "rules": str(self.pool.rules),
            "open_cases": len(self.engine.cases),
            "not_looked_at": dict(self.engine.shed),
        }

    def _answer(self) -> None:
        try:
            peer, _ = self.control.accept()
        except OSError:
            return
        with peer:
            peer.settimeout(0.05)
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(self.status()).encode() + b"\n")

    def close(self) -> None:
        """Release what is held, write what waits."""
        if self.gate is not None:
            self.gate.close()
        self.janitor.stop()
        self.desk.close()
        self.rescan.close()
        self.ranges.close()
        self.pool.close()
        self.recorder.close()
        self.settings.files_socket.unlink(missing_ok=True)
        self.settings.inspect_socket.unlink(missing_ok=True)


def _copy(fd: int, offset: int, length: int) -> int:
    """A descriptor of its own for a part of a file in memory."""
    copy = os.memfd_create("original", os.MFD_CLOEXEC)
    os.pwrite(copy, os.pread(fd, length, offset), 0)
    return copy


def _block_reasons(inspection: Inspection) -> frozenset[str]:
    """The outcomes that policy does not let pass."""
    reasons = {"unparsable"} if inspection.on_unparsable == "block" else set()
    if inspection.on_encrypted == "block":
        reasons |= {"encrypted"}
    if inspection.on_unscanned == "block":
        reasons |= {"too_large", "timeout", "damaged", "worker_lost", "memory", "not_stored", "depth", "bomb", "range"}
    return frozenset(reasons)


class _Beat:
    """CLOCK_MONOTONIC in ms, 8 bytes little endian, rewritten in place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.write()

    def write(self) -> None:
        os.pwrite(self._fd, struct.pack("<Q", int(time.monotonic() * 1000)), 0)


def _bind(path: Path, kind: int) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # The engine does not wait for a full queue, and ten datagrams (the default) are three busy browsers.
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text("4096")
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: an unheard file is an unscanned one
    sock.bind(str(path))
    path.chmod(0o660)
    if kind == socket.SOCK_STREAM:
        sock.listen(8)
    return sock


def _told(journal: Path) -> set[tuple[str, str, int, str, int]]:
    """What the last part of the journal already says, so that a restart does not say it twice."""
    told = set()
    for path in (journal.with_name(journal.name + ".1"), journal):
        with contextlib.suppress(OSError), path.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            source.seek(max(0, size - REPLAY_BYTES * 2))
            for line in source:
                try:
                    event = events.decode(line)
                except msgspec.MsgspecError:
                    continue
                if isinstance(event, events.FileVerdict):
                    flow = event.flow
                    told.add((event.sha256, flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port))
    return told


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sekisho.inspect.daemon")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        inspect = Inspect(load(options.settings))
    except SekishoError as err:
        log.error("%s", err)
        return 2

    def stop(signum: int, frame: object) -> None:
        inspect.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        while not inspect.stopping:
            inspect.step()
    except SekishoError as err:
        log.error("%s", err)
        return 3
    finally:
        inspect.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
