"""Decides what happens to every file at the gate. Pure: events in, commands out, time as an argument.

    engine says a file is complete -> Hold + Scan -> clean: Resolve | bad: Keep, Cut
    gate says PAUSE or COMPLETE    -> Scan the raw stream -> clean: Release | bad: Keep, Cut
    gate says DEEP                 -> the engine's own view of this stream ended: frame it ourselves
    gate says EXPIRED, TOO_BIG, SHED, or a scan failed -> policy: released and said so, or cut

Every file gets exactly one outcome (REQUIREMENTS A6). "blocked" is reported only after the gate
confirmed that bytes were withheld.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Literal

from sekisho.appliance.core import marks
from sekisho.inspect.gate import TO_CLIENT, Ends, Kind, Note
from sekisho.inspect.worker import Result
from sekisho.telemetry.events import Outcome

CACHE_SIZE = 4096
FTP_DEPTH_BYTES = 1 << 20
"""What the engine follows of an FTP data connection: it calls a longer file closed there, long after the fact."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Who, what and where, for the outcome; `src` sends the file."""

    src: str = ""
    src_port: int = 0
    dst: str = ""
    dst_port: int = 0
    app: str = ""
    file_name: str = ""
    url: str = ""
    host: str = ""
    mail_from: str = ""
    mail_to: tuple[str, ...] = ()
    mail_subject: str = ""


@dataclass(frozen=True, slots=True)
class FileSeen:
    """Suricata completed (or gave up) a file. `flow` 0: its packets are not at the gate (any more)."""

    flow: int
    dir: int
    meta: Meta
    state: str
    stored: bool
    sha256: str
    size: int
    path: str
    deep: bool = False
    """The engine gave this response up part-way; the gate goes on with the raw stream."""
    late: bool = False


@dataclass(frozen=True, slots=True)
class ScanDone:
    token: int
    result: Result


@dataclass(frozen=True, slots=True)
class CutDone:
    token: int
    withheld: int


@dataclass(frozen=True, slots=True)
class NoteRaised:
    note: Note
    ends: Ends | None


Event = FileSeen | ScanDone | CutDone | NoteRaised


@dataclass(frozen=True, slots=True)
class Hold:
    flow: int
    dir: int


@dataclass(frozen=True, slots=True)
class Resolve:
    flow: int
    dir: int


@dataclass(frozen=True, slots=True)
class Release:
    flow: int
    dir: int
    upto: int
    finished: int


@dataclass(frozen=True, slots=True)
class Expect:
    flow: int
    dir: int
    end: int


@dataclass(frozen=True, slots=True)
class Pass:
    flow: int
    dir: int


@dataclass(frozen=True, slots=True)
class Scan:
    token: int
    what: Literal["file", "stream", "frame"]
    flow: int
    dir: int
    path: str = ""
    length: int = 0
    http: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """Take the content of this scan into quarantine before it is gone."""

    token: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Withhold and reset; the adapter answers with CutDone."""

    token: int
    flow: int
    dir: int


@dataclass(frozen=True, slots=True)
class Report:
    token: int
    meta: Meta
    outcome: Outcome
    reason: str
    rules: tuple[str, ...]
    sha256: str
    size: int
    held_ms: float


@dataclass(frozen=True, slots=True)
class Done:
    """The token's descriptor and extracted file can go."""

    token: int


Command = Hold | Resolve | Release | Expect | Pass | Scan | Keep | Cut | Report | Done


@dataclass
class _Case:
    token: int
    what: Literal["file", "stream", "frame"]
    flow: int
    dir: int
    meta: Meta
    began: float
    sha256: str = ""
    size: int = 0
    length: int = 0
    late: bool = False
    expired: bool = False
    holding: bool = False
    ended: bool = False
    rules: tuple[str, ...] = ()
    known: tuple[str, ...] | None = None
    reason: str = ""


@dataclass
class HoldEngine:
    """The state: open cases, what is known of deep streams, recent verdicts."""

    block: bool = True
    block_unscanned: bool = False
    cases: dict[int, _Case] = field(default_factory=dict)
    cut: set[int] = field(default_factory=set)
    undecided: dict[int, list[_Case]] = field(default_factory=dict)
    """Files of cut flows of which it is not known yet whether anything was withheld."""
    deep: dict[int, Meta] = field(default_factory=dict)
    cache: OrderedDict[str, tuple[str, ...]] = field(default_factory=OrderedDict)
    told: OrderedDict[tuple[str, int, str, int], None] = field(default_factory=OrderedDict)
    """Ends of long FTP files whose outcome was told from the stream: the engine's shorter view is no file."""
    next_token: int = 1

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about one event; `now` is monotonic seconds."""
        match event:
            case FileSeen():
                return self._file(event, now)
            case ScanDone():
                return self._scanned(event, now)
            case CutDone():
                return self._cut_done(event, now)
            case NoteRaised():
                return self._note(event, now)

    def forget_verdicts(self) -> None:
        """The rules changed: what was clean may not be any more."""
        self.cache.clear()

    def _open(
        self, what: Literal["file", "stream", "frame"], flow: int, direction: int, meta: Meta, now: float
    ) -> _Case:
        case = _Case(self.next_token, what, flow, direction, meta, now)
        self.next_token += 1
        self.cases[case.token] = case
        return case

    def _file(self, seen: FileSeen, now: float) -> list[Command]:
        if seen.flow in self.cut and seen.flow:
            case = self._open("file", 0, 0, seen.meta, now)  # its outcome was told when the flow was cut
            return self._close(case)
        if is_long_ftp(seen.meta, seen.size) and ends_of(seen.meta) in self.told:
            del self.told[ends_of(seen.meta)]
            return self._close(self._open("file", 0, 0, seen.meta, now))
        if seen.deep:
            self.deep[seen.flow] = seen.meta
            return self._close(self._open("file", 0, 0, seen.meta, now))
        case = self._open("file", seen.flow, seen.dir, seen.meta, now)
        case.sha256, case.size, case.late = seen.sha256, seen.size, seen.late
        commands: list[Command] = []
        if seen.flow:
            case.holding = True
            commands.append(Hold(seen.flow, seen.dir))
        known = self.cache.get(seen.sha256) if seen.state == "CLOSED" else None
        if known is not None and not seen.flow:
            return commands + self._judge(case, known, now)
        if known is not None:
            # The completing packet is still on its way from the engine: an answer now would miss it. The
            # shortest job there is takes about as long as the packet.
            case.known = known
            return [*commands, Scan(case.token, "frame", seen.flow, seen.dir, seen.path, seen.size)]
        if not seen.stored:
            return commands + self._unscanned(case, "not_stored", now)
        name = seen.meta.file_name[-128:]
        commands.append(Scan(case.token, "file", seen.flow, seen.dir, seen.path, seen.size, name=name))
        return commands

    def _note(self, event: NoteRaised, now: float) -> list[Command]:
        note, ends = event.note, event.ends
        if note.kind is Kind.GONE:
            self.cut.discard(note.flow)
            self.deep.pop(note.flow, None)
            told = self._cut_told(note.flow, "delivered_then_found", now)
            for case in self.cases.values():
                if case.flow == note.flow:  # no note will follow: what is found now is found too late
                    case.flow, case.holding = 0, False
            return told
        if note.kind is Kind.WITHHELD:
            return self._cut_told(note.flow, "blocked", now)
        if ends is None:
            return []
        http = bool(ends.kind & marks.HTTP)
        if note.kind is Kind.EXPIRED:
            return [] if note.flow in self.cut else self._expired(note, now)
        case = self._open("stream", note.flow, note.dir, self._meta(note.flow, note.dir, ends), now)
        case.length = note.length
        case.ended = note.kind is Kind.COMPLETE
        if note.kind is Kind.DEEP:
            case.what = "frame"
            return [Scan(case.token, "frame", note.flow, note.dir, length=note.length, http=http)]
        if note.kind in (Kind.PAUSE, Kind.COMPLETE):
            return [Scan(case.token, "stream", note.flow, note.dir, length=note.length, http=http)]
        reason = "too_large" if note.kind is Kind.TOO_BIG else "memory"
        case.size = note.length
        if note.kind is Kind.SHED:
            return [self._report(case, "released_by_policy", reason, now), *self._close(case)]
        return self._unscanned(case, reason, now)

    def _meta(self, flow: int, direction: int, ends: Ends) -> Meta:
        src, src_port, dst, dst_port = ends.sender(direction)
        app = "http" if ends.kind & marks.HTTP else "ftp-data" if ends.kind & marks.FTPDATA else "smtp"
        known = self.deep.get(flow)
        if known is not None and direction == TO_CLIENT:
            return known
        return Meta(src, src_port, dst, dst_port, app)

    def _expired(self, note: Note, now: float) -> list[Command]:
        commands: list[Command] = []
        for case in [c for c in self.cases.values() if (c.flow, c.dir) == (note.flow, note.dir) and not c.expired]:
            case.expired = True
            if self.block and self.block_unscanned:
                case.reason = "timeout"
                commands.append(Cut(case.token, case.flow, case.dir))
            elif case.holding:
                case.holding = False
                commands.append(Resolve(case.flow, case.dir))
            else:
                commands.append(Release(case.flow, case.dir, case.length, 0))
        return commands or [Release(note.flow, note.dir, note.length, 0)]

    def _scanned(self, event: ScanDone, now: float) -> list[Command]:
        case, result = self.cases.get(event.token), event.result
        if case is None:
            return []
        if case in self.undecided.get(case.flow, ()):  # cut at its deadline: only a note can tell how that ended
            if not result.rules:
                return []
            case.rules, case.reason = tuple(result.rules), ""
            return [Keep(case.token)]
        if case.known is not None:
            return self._judge(case, case.known, now)
        if case.what == "frame":
            return [Expect(case.flow, case.dir, result.end), *self._close(case)]
        if case.what == "stream":
            return self._stream(case, result, now)
        if result.error:
            return self._unscanned(case, result.error, now)
        if case.sha256:
            self.cache[case.sha256] = tuple(result.rules)
            if len(self.cache) > CACHE_SIZE:
                self.cache.popitem(last=False)
        return self._judge(case, tuple(result.rules), now)

    def _stream(self, case: _Case, result: Result, now: float) -> list[Command]:
        if case.flow in self.cut:
            return self._close(case)
        case.sha256, case.size = result.sha256, result.size
        if result.rules:
            return self._judge(case, tuple(result.rules), now)
        if result.error:
            return self._unscanned(case, result.error, now)
        commands: list[Command] = [] if case.expired else [Release(case.flow, case.dir, case.length, result.finished)]
        long_ftp = case.ended and is_long_ftp(case.meta, case.length) and ends_of(case.meta) not in self.told
        if case.flow in self.deep or case.expired or long_ftp:
            if result.finished:
                self.deep[case.flow] = Meta(*ends_of(case.meta), app=case.meta.app)
            for seen in result.objects:
                if not seen.complete and not case.ended:
                    continue
                done = replace(case, sha256=seen.sha256, size=seen.size)
                reason = "timeout" if case.expired else ""
                outcome: Outcome = "released_by_policy" if case.expired else "clean"
                commands.append(self._report(done, outcome, reason, now))
        return commands + self._close(case)

    def _judge(self, case: _Case, rules: tuple[str, ...], now: float) -> list[Command]:
        case.rules = rules
        if not rules:
            reason = "restart" if case.late else "timeout" if case.expired else ""
            outcome: Outcome = "released_by_policy" if case.expired else "clean"
            return [*self._let_go(case), self._report(case, outcome, reason, now), *self._close(case)]
        if not self.block:
            return [
                *self._let_go(case),
                self._report(case, "released_by_policy", "detect_only", now),
                *self._close(case),
            ]
        if not case.flow:
            reason = "restart" if case.late else ""
            return [Keep(case.token), self._report(case, "delivered_then_found", reason, now), *self._close(case)]
        return [Keep(case.token), *self._stop(case, now)]

    def _stop(self, case: _Case, now: float) -> list[Command]:
        """Cut the flow; on one that was cut for another file this one shares that one's fate."""
        if case.flow not in self.cut:
            return [Cut(case.token, case.flow, case.dir)]
        if case.flow in self.undecided:
            self.undecided[case.flow].append(case)
            return []
        return [self._report(case, "blocked", case.reason, now), *self._close(case)]

    def _unscanned(self, case: _Case, reason: str, now: float) -> list[Command]:
        case.reason = reason
        if self.block and self.block_unscanned and case.flow:
            return self._stop(case, now)
        commands = self._let_go(case)
        if reason == "too_large":
            commands = [Pass(case.flow, case.dir)]
        return [*commands, self._report(case, "released_by_policy", reason, now), *self._close(case)]

    def _let_go(self, case: _Case) -> list[Command]:
        if not case.flow or case.expired:
            return []
        if case.what == "stream":
            return [Release(case.flow, case.dir, case.length, 0)]
        if not case.holding:
            return []
        case.holding = False
        return [Resolve(case.flow, case.dir)]

    def _cut_done(self, event: CutDone, now: float) -> list[Command]:
        case = self.cases.get(event.token)
        if case is None:
            return []
        self.cut.add(case.flow)
        if event.withheld > 0:
            return [self._report(case, "blocked", case.reason, now), *self._close(case)]
        # The packet is still on its way, or it is too late: a note will tell.
        self.undecided.setdefault(case.flow, []).append(case)
        return []

    def _cut_told(self, flow: int, outcome: Outcome, now: float) -> list[Command]:
        commands: list[Command] = []
        for case in self.undecided.pop(flow, []):
            truth: Outcome = outcome if outcome == "blocked" or case.rules else "released_by_policy"
            commands += [self._report(case, truth, case.reason, now), *self._close(case)]
        return commands

    def _report(self, case: _Case, outcome: Outcome, reason: str, now: float) -> Report:
        if is_long_ftp(case.meta, case.size) and case.what == "stream":
            self.told[ends_of(case.meta)] = None
            if len(self.told) > CACHE_SIZE:
                self.told.popitem(last=False)
        held = 0.0 if case.late else (now - case.began) * 1000
        return Report(case.token, case.meta, outcome, reason, case.rules, case.sha256, case.size, held)

    def _close(self, case: _Case) -> list[Command]:
        self.cases.pop(case.token, None)
        return [Done(case.token)]


def ends_of(meta: Meta) -> tuple[str, int, str, int]:
    """The next object on this flow has the same ends, and a name nobody told us."""
    return meta.src, meta.src_port, meta.dst, meta.dst_port


def is_long_ftp(meta: Meta, size: int) -> bool:
    """A file on an FTP data connection of which the engine does not see the end."""
    return meta.app == "ftp-data" and size >= FTP_DEPTH_BYTES
