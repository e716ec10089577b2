"""Carries out what the hold decides: at the gate, with the scan workers, for the recorder.

    HoldEngine -> commands -> Effects -> gate, pool, recorder -> events -> HoldEngine

Owns what is open for each case (its token): the descriptor of its content, its path in the engine's store.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from sekisho.appliance.core import marks, utc
from sekisho.appliance.core.settings import Inspection
from sekisho.inspect import gate, hold, retro
from sekisho.inspect.ranges import Piece, Ranges
from sekisho.inspect.recorder import Record
from sekisho.inspect.scan import Pool
from sekisho.inspect.worker import Job, Result
from sekisho.telemetry import events

REPLY: Final = b"554 5.7.1 Refused by sekisho: the attachment is malicious and was not delivered.\r\n"
MAILBOXES: Final = ("pop3", "imap")


class Belongings(NamedTuple):
    """What is open, as it is handed to another process beside the descriptors."""

    pieces: list[Piece]
    kept: list[int]
    """Tokens of cases whose content is there."""
    lengths: dict[int, int]
    forms: dict[int, str]
    paths: dict[int, str]


class Effects:
    """The hands of one process; without a gate, only what is not about packets is done."""

    def __init__(
        self, inspection: Inspection, engine: hold.HoldEngine, pool: Pool, record: Callable[[Record], None]
    ) -> None:
        self.gate: gate.Gate | None = None
        self.engine = engine
        self._inspection = inspection
        self._pool = pool
        self._record = record
        self._ranges = Ranges(inspection.memory_mb << 18, inspection.scan_limit_mb << 20)
        self._fds: dict[int, int] = {}
        self._paths: dict[int, str] = {}
        self._lengths: dict[int, int] = {}
        self._forms: dict[int, str] = {}

    def handle(self, event: hold.Event) -> None:
        """Have the hold decide about what happened, and do that."""
        self.do(self.engine.handle(event, time.monotonic()))

    def seen(self, file: hold.FileSeen) -> None:
        """The engine told of a file; it leaves the engine's store once it has been judged."""
        if file.path:
            self._paths[self.engine.next_token] = file.path
        self.handle(file)

    def do(self, commands: list[hold.Command]) -> None:
        """Carry them out in their order; what is about packets, where there is a gate."""
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
                case _ if self.gate is not None:
                    self._at(self.gate, command)

    def _at(self, at: gate.Gate, command: hold.Command) -> None:
        match command:
            case hold.Release():
                at.release(command.flow, command.dir, command.upto, command.finished)
            case hold.Expect():
                at.expect(command.flow, command.dir, command.end)
            case hold.Pass():
                at.pass_(command.flow, command.dir, sealed=command.sealed)
            case hold.Gather():
                at.gather(command.flow)
            case hold.Scan():
                self._scan(at, command)
            case hold.Neutralise():
                self._neutralise(at, command)
            case hold.Cut():
                self._cut(at, command)

    def _scan(self, at: gate.Gate, scan: hold.Scan) -> None:
        fd, length = -1, scan.length
        if scan.path:
            with contextlib.suppress(OSError):
                fd = os.open(scan.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                length = os.fstat(fd).st_size
            if fd >= 0 and length < scan.length:  # the store was full: half a file proves nothing
                os.close(fd)
                fd = -1
        else:
            spool, there = at.spool(scan.flow, scan.dir)
            length = min(length, there)
            if spool >= 0:
                fd = os.dup(spool)
        if fd < 0:
            error = Result(scan.token, error="not_stored" if scan.path else "")
            self.handle(hold.ScanDone(scan.token, error))
            return
        self._fds[scan.token] = os.dup(fd)
        self._lengths[scan.token] = length
        self._forms[scan.token] = "file" if scan.path else "transfer"
        job = self.job(scan.token, scan.what, length, scan.name)
        job.app, job.to_server = scan.app, scan.dir == gate.TO_SERVER
        job.asked = self._known(at, scan)
        job.full, job.looked, job.left = scan.full, scan.looked, scan.left
        if scan.app in MAILBOXES and not scan.path:
            self._mailbox_job(job, scan, at.delivered(scan.flow, scan.dir))
        self._pool.submit(job, fd)

    def job(self, token: int, what: Literal["file", "stream"], length: int, name: str) -> Job:
        """A look at something, with the box's limits."""
        inspection = self._inspection
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

    def _neutralise(self, at: gate.Gate, order: hold.Neutralise) -> None:
        """Keep the originals, then put the patches in their place."""
        spool, length = at.spool(order.flow, order.dir)
        for token, begin, end in order.taken:
            if spool >= 0 and begin < (end := min(end, length)):
                self._fds[token] = _copy(spool, begin, end - begin)
                self._lengths[token], self._forms[token] = end - begin, "transfer"
        done = all(at.rewrite(order.flow, order.dir, p.offset, p.whole()) for p in order.patches)
        self.handle(hold.Neutralised(order.token, done))

    def _assemble(self, assemble: hold.Assemble) -> None:
        """Put a piece to the others of its download, and have all of it looked at."""
        token, piece = assemble.token, assemble.piece
        spool = self._fds.get(token, -1)
        start, _, total = piece.ranged or (0, 0, 0)
        length = max(0, min(self._lengths.get(token, 0) - piece.body_at, piece.content))
        fd, first, last = -1, 0, 0
        if spool >= 0:
            fd, first, last = self._ranges.put((piece.host, piece.url), start, spool, piece.body_at, length, total)
        alone = fd < 0 or not assemble.judge
        whole = first == 0 and last >= total > 0
        self.handle(hold.Assembled(token, whole, alone, first > 0))
        if not alone:
            job = self.job(token, "file", last, piece.name[-128:])
            job.skip = first
            self._pool.submit(job, os.dup(fd))

    def _known(self, at: gate.Gate, scan: hold.Scan) -> bytes:
        """What the splitter should know from elsewhere."""
        if not scan.flow:
            return b""
        if scan.app == "http":
            return at.asked(scan.flow)
        return msgspec.msgpack.encode(self.engine.memos(scan.token))

    def _keep(self, token: int) -> None:
        """Make sure the content survives the cut: from here on a descriptor holds it."""
        if token not in self._fds and token in self._paths:
            with contextlib.suppress(OSError):
                fd = os.open(self._paths[token], os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                self._fds[token] = fd
                self._lengths[token] = os.fstat(fd).st_size
                self._forms[token] = "file"

    def _cut(self, at: gate.Gate, cut: hold.Cut) -> None:
        ends = at.ends(cut.flow)
        mail = ends is not None and ends.kind & marks.MAIL and cut.dir == gate.TO_SERVER
        withheld = at.cut(cut.flow, cut.dir, REPLY if mail else b"")
        self.handle(hold.CutDone(cut.token, withheld))

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
            self._record(Record(verdict, *copy, "transfer", again=True))
            return
        fd = self._fds.pop(report.token, -1) if keep else -1
        length, form = self._lengths.get(report.token, 0), self._forms.get(report.token, "")
        self._record(Record(verdict, fd, length, form, hearsay=report.hearsay))

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

    def hand_over(self, tokens: set[int]) -> tuple[Belongings, list[int]]:
        """What is open for these cases and of downloads in pieces; the descriptors, those of the pieces first."""
        pieces, piece_fds = self._ranges.hand_over()
        kept = [token for token in tokens if token in self._fds]
        held = Belongings(
            pieces,
            kept,
            {token: self._lengths[token] for token in tokens & self._lengths.keys()},
            {token: self._forms[token] for token in tokens & self._forms.keys()},
            {token: self._paths[token] for token in tokens & self._paths.keys()},
        )
        return held, [*piece_fds, *(self._fds[token] for token in kept)]

    def take_over(self, held: Belongings, fds: Iterable[int]) -> None:
        """Go on with what `hand_over` gave; the descriptors are ours."""
        given = iter(fds)
        self._ranges.take_over(held.pieces, list(itertools.islice(given, len(held.pieces))))
        self._fds = dict(zip(held.kept, given, strict=True))
        self._lengths, self._forms, self._paths = held.lengths, held.forms, held.paths

    def close(self) -> None:
        self._ranges.close()


def _copy(fd: int, offset: int, length: int) -> int:
    """A descriptor of its own for a part of a file in memory."""
    copy = os.memfd_create("original", os.MFD_CLOEXEC)
    os.pwrite(copy, os.pread(fd, length, offset), 0)
    return copy
