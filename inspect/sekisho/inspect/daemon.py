"""The inspect daemon: wires gate, engine events, scan workers, recorder. One loop, one thread for packets.

    gate.run -> (engine datagrams, worker results, notes) -> HoldEngine -> commands -> gate, pool, recorder

The loop never touches a disk or waits for anything but the gate; outcomes go to the recorder's thread.
Every 100 ms it writes its heartbeat; appliance bypasses the gate when that stops. On SIGHUP it has a successor started,
hands it the queue with everything known, finishes what is its own and ends (`succession`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import select
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

from sekisho.appliance.core import known, latency, marks, muting, sdnotify, utc
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.journal import JournalWriter, newest_lines
from sekisho.appliance.core.settings import Inspection, Settings, load
from sekisho.inspect import counter, eve, gate, hold, pages, retro
from sekisho.inspect.fleet import Published
from sekisho.inspect.janitor import Janitor
from sekisho.inspect.kept import Entry
from sekisho.inspect.ledger import Ledger
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.ranges import Ranges
from sekisho.inspect.recorder import Bad, NewFleet, NewRules, Record, Recorder, Stores
from sekisho.inspect.refused import Refused
from sekisho.inspect.scan import Pool
from sekisho.inspect.succession import Estate, Heir, Hello, Succession
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
HEARD_HANDED = 4096
"""Of those, what a successor is told: the log behind them is read once a second."""
FINISH_S = 10.0
"""So long a process that was succeeded takes for what it still looks at."""
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

    def __init__(self, settings: Settings, settings_file: Path, heir: Heir | None = None) -> None:
        """`heir`: prepare everything and touch nothing of the box's before the predecessor has handed it over."""
        self.settings = settings
        inspection = settings.inspection
        self.engine = hold.HoldEngine(block=inspection.mode == "block", block_reasons=_block_reasons(inspection))
        self.rules = settings.sets / "current" / "yara.compiled"
        self._again: dict[int, Entry] = {}
        self._next_again = 0
        self.fleet = Published(settings.fleet_bad)
        self.pool = Pool(inspection.scan_workers, 512, self._rules_file(), self.fleet.fd)
        self._muting: tuple[tuple[int, int], ...] = ()
        self._mute()
        self._pages = pages.pages(settings.help_desk)
        self.gate: gate.Gate | None = None
        self.ranges = Ranges(inspection.memory_mb << 18, inspection.scan_limit_mb << 20)
        self._fds: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        self._lengths: dict[int, int] = {}
        self._forms: dict[int, str] = {}
        self._housekeeping = 0.0
        self._late: list[eve.File] = []
        self._heard: OrderedDict[tuple[str, str, int, str, int], None] = OrderedDict()
        self._unheard: list[eve.File] = []
        self._checked = time.monotonic()
        self._told_shed = -TELL_SHED_S
        self._shed: Counter[str] = Counter()
        self.succession = Succession(settings, settings_file)
        self.stopping = False
        self.succeed = False
        """A successor is asked for."""
        self.succeeded = False
        """It has the queue."""
        self._heir = self._unannounced = heir
        if heir is None:
            self._enter(
                _bind(settings.files_socket, socket.SOCK_DGRAM), _bind(settings.inspect_socket, socket.SOCK_STREAM)
            )
            self.engine.known.update(_refused_before(settings, self._rules_file().parent.name))
            self._late = eve.missed(
                settings.files_log, _told(settings.journals / "inspect.jsonl"), cap_bytes=REPLAY_BYTES
            )

    def _enter(self, files: socket.socket, control: socket.socket, log_at: tuple[int, bytes] | None = None) -> None:
        """Take the places that one process has at a time."""
        settings, inspection, kept = self.settings, self.settings.inspection, self.settings.quarantine
        self.files, self.control = files, control
        self.beat = _Beat(settings.gate_beat)
        self._log = eve.Follower(settings.files_log, log_at)
        for folder in (settings.quarantine_dir, settings.state / "recent"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = settings.run / "inspect" / "recording.lock"
        self.recorder = Recorder(self._stores, lock, settings.inventory, inspection.home_networks)
        self.rescan = retro.Rescan(_recent(settings, writer=False))
        self.telling = Telling(settings, self.pool)
        self.janitor = Janitor(settings.filestore)
        shown = Quarantine(settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days, writer=False)
        answering = counter.Counter(shown, kept.keep_days, inspection.scan_limit_mb << 20, self.recorder.put)
        self.desk = Desk(settings.quarantine_socket, counter.USERS, answering.answer)

    def _stores(self) -> Stores:
        """Opened by the recorder, when no other process has them."""
        settings, kept = self.settings, self.settings.quarantine
        return Stores(
            JournalWriter(settings.journals / "inspect.jsonl"),
            Quarantine(settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days),
            _recent(settings, writer=True),
            Ledger(settings.state / "inspect" / "ledger.db"),
            Refused(settings.known_files, self._rules_file().parent.name),
        )

    def _rules_file(self) -> Path:
        """The compiled rules of the set in force, through the link, so that a new set is a new path."""
        return self.rules.resolve()

    def _config(self) -> gate.Config:
        inspection = self.settings.inspection
        return gate.Config(
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

    def open_gate(self, *, dry: bool = False) -> gate.Gate:
        """Bind the queue; from here on packets wait for us. `dry`: it comes later, from a predecessor."""
        opened = gate.Gate(self._config(), dry=dry)
        for why, page in self._pages.items():
            opened.set_page(why, page)
        latency.short_slice(0)
        return opened

    def step(self) -> None:
        """Move packets for at most a heartbeat and act on what came up."""
        if self._heir is not None:
            self._prepare(self._heir)
            return
        now = time.monotonic()
        if now - self._housekeeping >= BEAT_S:
            self._housekeeping = now
            self._keep_house()
        if self.gate is None:
            if self.pool.ready:
                self.gate = self.open_gate()
                self._replay()
                sdnotify.notify("READY=1")
                log.info("the gate is open")
            else:
                self._wait_for_workers()
            return
        successor = self.succession.fds()
        fds = [self.files.fileno(), self.control.fileno(), *successor, *self.pool.fds()]
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
        if successor and successor[0] in ready and (hello := self.succession.hello()) is not None:
            self._hand_over(hello)

    def _prepare(self, heir: Heir) -> None:
        """Become ready while the predecessor works, then go on in its place.

        Raises:
            PeerError: it goes on itself, or it ended: then nothing is done here.

        """
        now = time.monotonic()
        if now - self._housekeeping >= BEAT_S:
            self._housekeeping = now
            self._mute()
            self.fleet.refresh()
            self.pool.rules = self._rules_file()
            self.pool.tick()
        if heir.gone():
            raise PeerError("The process that was to be succeeded went on, or has ended.")
        if not self.pool.proven:
            self._wait_for_workers()
            return
        hello = Hello(os.getpid(), gate.layout(), self.settings.inspection.fail_mode == "open")
        fresh = self.open_gate(dry=True)
        self._take_over(fresh, heir, *heir.receive(hello))
        log.info("the gate was taken over")

    def _take_over(self, fresh: gate.Gate, heir: Heir, estate: Estate, fds: list[int]) -> None:
        given = iter(fds)
        queue, image = next(given), next(given) if estate.image else -1
        files, control = (socket.socket(fileno=next(given)) for _ in range(2))
        log_at = (next(given) if estate.log else -1, estate.rest)
        try:
            fresh.adopt(gate.Former(queue, image, tuple(itertools.islice(given, estate.spools))))
            heir.taken()
        except SekishoError:
            fresh.leave()
            raise
        self.gate, self._heir = fresh, None
        self._enter(files, control, log_at)
        self.ranges.take_over(estate.pieces, list(itertools.islice(given, len(estate.pieces))))
        self._fds = dict(zip(estate.kept, given, strict=True))
        self._lengths, self._forms, self._paths = estate.lengths, estate.forms, estate.paths
        self._heard, self._unheard = OrderedDict.fromkeys(estate.heard), estate.unheard
        self.engine.take_over(estate.engine)
        for flow, direction in estate.engine.on_its_way:
            self.gate.again(flow, direction, gate.Kind.FRAME)
        if image >= 0:
            os.close(image)
        if estate.rescan:
            self.rescan.begin()
        if estate.rules != str(self.pool.rules):
            self._other_rules()

    def _hand_over(self, hello: Hello) -> None:
        """The successor is ready: it has the queue from here on, or everything goes on as it was."""
        if self.gate is None:
            return
        if hello.fail_open != (self.settings.inspection.fail_mode == "open"):
            self.succession.end("The queue was opened with another fail mode.", state="impossible")
            return
        began = time.monotonic()
        whole = hello.layout == gate.layout()
        self.beat.write()
        self._hear()  # what the engine said about packets that are about to be judged
        try:
            former = self.gate.freeze()
            self.beat.write()  # alive: on a slow machine writing it all down is the longest part of the stroke
        except DeviceFault as err:
            self.succession.end(str(err), state="impossible")
            return
        try:
            self.succession.give(*self._estate(former, whole=whole))
            self.succession.go()
        except PeerError as err:
            self.succession.end(str(err))
            return
        finally:
            os.close(former.image)
        sdnotify.notify(f"MAINPID={hello.pid}")
        self.succession.main()
        log.info("handed over in %.0f ms", (time.monotonic() - began) * 1000)
        commands = self.engine.leave(time.monotonic(), whole=whole)
        self.gate.leave(drop=not whole)
        self.gate, self.succeeded = None, True
        self._do(commands)

    def _estate(self, former: gate.Former, *, whole: bool) -> tuple[Estate, list[int]]:
        """What the successor gets: words, and descriptors in their order."""
        handed = self.engine.hand_over()
        tokens = {case.token for case in handed.cases}
        pieces, piece_fds = self.ranges.hand_over()
        log_fd, rest = self._log.hand_over()
        kept = [token for token in tokens if token in self._fds]
        open_files = [eve.key(c.sha256, c.meta) for c in self.engine.cases.values() if c.what == "file"]
        spools = former.spools if whole else ()
        estate = Estate(
            image=whole,
            log=log_fd >= 0,
            spools=len(spools),
            pieces=pieces,
            kept=kept,
            lengths={token: self._lengths[token] for token in tokens & self._lengths.keys()},
            forms={token: self._forms[token] for token in tokens & self._forms.keys()},
            paths={token: self._paths[token] for token in tokens & self._paths.keys()},
            engine=handed if whole else handed.without_flows(),
            heard=[*list(self._heard)[-HEARD_HANDED:], *open_files],
            unheard=self._unheard,
            rest=rest,
            rules=str(self.pool.rules),
            rescan=self.rescan.going or bool(self._again),
        )
        sockets = [former.queue, *([former.image] if whole else []), self.files.fileno(), self.control.fileno()]
        log_fds = [log_fd] if log_fd >= 0 else []
        return estate, [*sockets, *log_fds, *spools, *piece_fds, *(self._fds[token] for token in kept)]

    def finish(self) -> None:
        """After a successor has taken over: what was being looked at without holding anything up is told by us."""
        deadline = time.monotonic() + FINISH_S
        while self.engine.cases and not self.stopping and time.monotonic() < deadline:
            ready, _, _ = select.select(self.pool.fds(), (), (), BEAT_S)
            for fd in ready:
                self.pool.handle(fd)
            self.pool.tick()
            self._collect()

    def _wait_for_workers(self) -> None:
        if not self.pool.fds():
            time.sleep(0.05)
        for fd in self.pool.fds():
            self.pool.handle(fd)
        time.sleep(0.01)

    def _keep_house(self) -> None:
        self.beat.write()
        if self._unannounced is not None and self._unannounced.is_main():
            self._unannounced = None
            sdnotify.notify("READY=1")
        sdnotify.notify("WATCHDOG=1")
        if self.succeed and self.gate is not None:
            self.succeed = False
            self.succession.begin(self.pool.pids())
        self.succession.turn()
        current = self._rules_file()
        if current != self.pool.rules or self._mute():
            self.pool.rules = current
            self._other_rules()
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

    def _other_rules(self) -> None:
        self.engine.forget_verdicts()
        self.recorder.put(NewRules(self.pool.rules.with_name("known.bin")))
        self.rescan.begin()

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
            self._tell(commands)
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

    def _tell(self, commands: list[hold.Command]) -> None:
        """What is left to do of these without a gate."""
        for command in commands:
            match command:
                case hold.Assemble():
                    self._assemble(command)
                case hold.Keep():
                    self._keep(command.token)
                case hold.Report():
                    self._report(command)
                case hold.Done():
                    self._done(command.token)
                case _:
                    pass  # about packets

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
            "succession": msgspec.to_builtins(self.succession.said),
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
        """Release what is held, write what waits; what a successor has taken over is left alone."""
        if self.succeeded:
            self.succession.close()
        else:
            self.succession.end("It was ended with the one that it was to succeed.")
        if self.gate is not None:
            self.gate.close()
        if self._heir is not None:  # nothing was ours
            self.pool.close()
            return
        if not self.succeeded:  # at once: what comes later may be of a process that was started since
            self.settings.files_socket.unlink(missing_ok=True)
            self.settings.inspect_socket.unlink(missing_ok=True)
        self.janitor.stop()
        self.desk.close(succeeded=self.succeeded)
        self.rescan.close()
        self.ranges.close()
        self.pool.close()
        self.recorder.close()


def _copy(fd: int, offset: int, length: int) -> int:
    """A descriptor of its own for a part of a file in memory."""
    copy = os.memfd_create("original", os.MFD_CLOEXEC)
    os.pwrite(copy, os.pread(fd, length, offset), 0)
    return copy


def _recent(settings: Settings, *, writer: bool) -> Quarantine:
    """What was delivered lately, to be looked at again."""
    folder = settings.state / "recent"
    return Quarantine(folder, max_bytes=retro.STORE_BYTES, keep_days=retro.KEEP_DAYS, writer=writer)


def _refused_before(settings: Settings, set_id: str) -> list[tuple[str, tuple[str, ...]]]:
    """Files found malicious under this set before, and what by."""
    with contextlib.suppress(RejectedInput):  # `Refused` says so, and begins anew
        return [(file.sha256, tuple(file.rules)) for file in known.read(settings.known_files, set_id)]
    return []


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
    for line in newest_lines(journal, REPLAY_BYTES * 2):
        with contextlib.suppress(msgspec.MsgspecError):
            event = events.decode(line)
            if isinstance(event, events.FileVerdict):
                flow = event.flow
                told.add((event.sha256, flow.src_ip, flow.src_port, flow.dst_ip, flow.dst_port))
    return told


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sekisho.inspect.daemon")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    parser.add_argument("--predecessor", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        heir = Heir(options.predecessor) if options.predecessor >= 0 else None
        inspect = Inspect(load(options.settings), options.settings, heir)
    except SekishoError as err:
        log.error("%s", err)
        return 2

    def stop(signum: int, frame: object) -> None:
        inspect.stopping = True

    def hang_up(signum: int, frame: object) -> None:
        inspect.succeed = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, hang_up)
    try:
        while not (inspect.stopping or inspect.succeeded):
            inspect.step()
        if inspect.succeeded:
            inspect.finish()
    except SekishoError as err:
        log.error("%s", err)
        return 3
    finally:
        inspect.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
