"""Decides what happens to every file at the gate. Pure: events in, commands out, time as an argument.

    gate says PAUSE or COMPLETE    -> Scan the raw stream -> clean: Release | bad: Keep, Cut
    gate says FRAME                -> a long object is on its way: Scan what is there, learn where it says its end
    gate says EXPIRED, TOO_BIG, SHED, or a scan failed -> policy: released and said so, or cut
    engine refuses a file it knows by its hash -> Cut, without a look
    engine says a file is complete -> remember its names; if the gate has told nothing about it soon, judge it late

Every file gets exactly one outcome (REQUIREMENTS A6). "blocked" is reported only after the gate
confirmed that bytes were withheld.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from sekisho.appliance.core import marks
from sekisho.appliance.core.known import BY_FLEET, MAX_FILES
from sekisho.inspect.gate import TO_CLIENT, TO_SERVER, Ends, Kind, Note
from sekisho.inspect.neutralise import Patch
from sekisho.inspect.worker import Object, Result
from sekisho.telemetry.events import Outcome
from sekisho.telemetry.privacy import mask_url

CACHE_SIZE = 4096
STALL_S = 0.5
"""A mail's sender that says nothing for this long has stopped; for less it may wait for an acknowledgement."""
CLAIM_S = 5.0
"""So long the gate has to tell a file's outcome from the stream before the engine's copy is judged."""
CUT_ENDS_S = 30.0
"""So long the engine may come with a file of a connection that was cut: it ends its view of that one at its leisure."""
MAX_CLAIMS = 4096
KNOWN_FILE = "known_file"
"""Told in the place of the rules of a file that the engine refused and has not named."""
NAME_S = 1.0
"""So long the engine may take to name a file that it has refused."""
KNOWN = "known"
"""The reason of a refusal by hash: nothing was looked at."""
MIXED = ("http2",)
"""Protocols that carry many files at once."""
ENGINE_DEPTH_BYTES = 1 << 20
"""What the engine follows of a stream: it calls a longer file closed there."""
_APPS = (
    (marks.HTTP, "http"), (marks.MAIL, "smtp"), (marks.FTPDATA, "ftp-data"),
    (marks.POP3, "pop3"), (marks.IMAP, "imap"), (marks.SMB, "smb"),
)  # fmt: skip


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
class Neutralised:
    """Whether the receiver will have what was to be put in the place of malice."""

    token: int
    done: bool


@dataclass(frozen=True, slots=True)
class NoteRaised:
    note: Note
    ends: Ends | None


@dataclass(frozen=True, slots=True)
class Assembled:
    """What a piece makes with the others: `whole` when nothing is missing, `gap` when it cannot be judged with them,
    `headless` when what it can be judged with does not reach back to the beginning.
    """

    token: int
    whole: bool
    gap: bool
    headless: bool = False


Event = Assembled | FileSeen | ScanDone | CutDone | Neutralised | NoteRaised


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
    sealed: bool = False
    """Nothing in it can be read."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Files travel mixed on this flow: let nothing through but what is released."""

    flow: int


@dataclass(frozen=True, slots=True)
class Scan:
    token: int
    what: Literal["file", "stream"]
    flow: int
    dir: int
    path: str = ""
    length: int = 0
    app: str = ""
    name: str = ""
    mend: bool = False
    """Plan what replaces what is malicious in a mail."""
    blank: int = -1
    """Spool offset of the mail of which the rest becomes filler."""
    full: int = 0
    looked: int = 0
    left: int = 0
    stalled: bool = False
    """See worker.Job."""


@dataclass(frozen=True, slots=True)
class Neutralise:
    """Put these bytes in the place of those that are held; the adapter answers with Neutralised.

    `taken` are the originals to be kept: (token, from, to) in the stream.
    """

    token: int
    flow: int
    dir: int
    patches: tuple[Patch, ...]
    taken: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Assemble:
    """Judge this piece of a download together with what came before it; the adapter answers with Assembled."""

    token: int
    flow: int
    dir: int
    piece: Object
    judge: bool
    """False: only keep it, its connection broke off."""


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
    inner: str = ""
    again: tuple[int, int] | None = None
    """Where in the spool it lies, if it is to be kept for another look; told before the spool moves on."""
    hearsay: bool = False
    """Not from a look with the rules in force: nothing is to be learned from it."""


@dataclass(frozen=True, slots=True)
class Done:
    """The token's descriptor and extracted file can go."""

    token: int


Command = Neutralise | Assemble | Release | Expect | Pass | Gather | Scan | Keep | Cut | Report | Done


@dataclass
class _Case:
    token: int
    what: Literal["file", "stream"]
    flow: int
    dir: int
    meta: Meta
    began: float
    sha256: str = ""
    size: int = 0
    length: int = 0
    base: int = 0
    outdated: bool = False
    """Looked at by a worker that still has the rules before those in force."""
    late: bool = False
    why_late: str = "restart"
    on_its_way: bool = False
    """Nothing waits for this look."""
    moved: bool = False
    """The spool began elsewhere before this look ended: what it saw may be two objects in one place."""
    silent: bool = False
    """The stream has been judged already: this second opinion is told only if it differs."""
    expired: bool = False
    ended: bool = False
    rules: tuple[str, ...] = ()
    reason: str = ""
    inner: str = ""
    path: str = ""
    result: Result | None = None
    """The stream's own verdict, while a piece of it is judged with the others."""
    piece: Object | None = None
    placed: set[int] = field(default_factory=set)
    """Where the pieces begin that have been judged with the others."""
    whole: bool = False
    headless: bool = False
    mended: list[_Case] | None = None
    """Mails of this look of which something was replaced: told when that is certain."""


@dataclass
class _Flow:
    """What is known of one flow beyond its packets."""

    app: dict[int, str] = field(default_factory=dict)
    memo: dict[int, bytes] = field(default_factory=dict)
    """By direction: what its next look, or the other's, must know of what has left the spool."""
    name: str = ""
    """Of the one file it carries, as another connection told it."""
    claims: list[_Case] = field(default_factory=list)
    """Files the engine announced and the gate has not told about."""
    told: set[tuple[int, int, str]] = field(default_factory=set)
    """(direction, place in the stream, sha256) of what still lies in the spool and has been told."""
    late: dict[int, int] = field(default_factory=dict)
    """By direction: before this place in the stream something went on before it was looked at."""
    blank: int = -1
    """Where in the stream to the client the mail begins of which the rest becomes filler."""
    full: int = 0
    """As far into the stream to the client an unfinished mail has been looked at whole."""
    looked: int = 0
    """As much of that stream there was at the last look."""
    left: int = 0
    """How much of the unfinished mail was still to come then; 0 = not known."""
    since: float = 0.0
    """When the newest of it came."""


_NO_FLOW = _Flow()


class Handed(msgspec.Struct):
    """What is left to the process that goes on with the same gate. Looks under way are not: the gate asks again."""

    next_token: int
    cases: list[_Case]
    waiting: list[int]
    """Tokens of cases, as in the next two."""
    undecided: dict[int, list[int]]
    unnamed: dict[int, int]
    flows: dict[int, _Flow]
    cut: set[int]
    on_its_way: list[tuple[int, int]]
    """(flow, direction) of looks that nothing waited for: nobody would ask for them again."""
    cache: dict[str, tuple[str, ...]]
    known: dict[str, tuple[str, ...]]
    told: dict[tuple[str, int, str, int], tuple[float, Outcome]]
    names: dict[frozenset[tuple[str, int]], str]

    def without_flows(self) -> Handed:
        """For a gate that begins anew: no handle means anything to it."""
        cases = [replace(case, flow=0) for case in self.cases if case.token in self.waiting]
        return msgspec.structs.replace(self, cases=cases, undecided={}, unnamed={}, flows={}, cut=set(), on_its_way=[])


@dataclass
class HoldEngine:
    """The state: open cases, what is known of flows, recent verdicts."""

    block: bool = True
    block_reasons: frozenset[str] = frozenset()
    """Outcomes that do not pass: unparsable, encrypted, too_large, timeout, damaged, ..."""
    cases: dict[int, _Case] = field(default_factory=dict)
    cut: set[int] = field(default_factory=set)
    undecided: dict[int, list[_Case]] = field(default_factory=dict)
    """Files of cut flows of which it is not known yet whether anything was withheld."""
    flows: dict[int, _Flow] = field(default_factory=dict)
    cache: OrderedDict[str, tuple[str, ...]] = field(default_factory=OrderedDict)
    known: OrderedDict[str, tuple[str, ...]] = field(default_factory=OrderedDict)
    """Malicious files under the rules in force, by hash: what names a file that the engine refuses."""
    waiting: OrderedDict[int, _Case] = field(default_factory=OrderedDict)
    """Claims in the order of their coming."""
    told: OrderedDict[tuple[str, int, str, int], tuple[float, Outcome]] = field(default_factory=OrderedDict)
    """Ends of which the gate has told an outcome: when, and which."""
    names: OrderedDict[frozenset[tuple[str, int]], str] = field(default_factory=OrderedDict)
    """What connections between two ends will carry, where another connection says so (FTP), until it is asked for."""
    unnamed: dict[int, _Case] = field(default_factory=dict)
    """By flow: what the engine has refused and the gate withheld, told when the engine has named it."""
    next_token: int = 1
    overloaded: bool = False
    """Scans wait too long. What nothing waits for is not looked at then: first looks at long objects on their way,
    then second opinions; what is held is the last to go, and only at its deadline or when memory ends."""
    shed: Counter[str] = field(default_factory=Counter)
    """What was not looked at for want of time or memory: on_its_way, second_opinion, too_large, memory, timeout."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """What to do about one event; `now` is monotonic seconds."""
        match event:
            case FileSeen():
                return self._file(event, now)
            case ScanDone():
                return self._scanned(event, now)
            case CutDone():
                return self._cut_done(event, now)
            case Assembled():
                return self._assembled(event, now)
            case Neutralised():
                return self._neutralised(event, now)
            case NoteRaised():
                return self._note(event, now)

    def due(self, now: float) -> list[Command]:
        """Judge the files of which the gate has told nothing in time. Call about once a second."""
        commands: list[Command] = []
        for case in [case for case in self.unnamed.values() if now - case.began >= NAME_S]:
            commands += self._tell_unnamed(case, now)
        while self.waiting:
            case = next(iter(self.waiting.values()))
            if self.overloaded and len(self.waiting) <= MAX_CLAIMS:
                break
            if now - case.began < CLAIM_S and len(self.waiting) <= MAX_CLAIMS:
                break
            if self._looking(case.flow):
                self.waiting.move_to_end(case.token)  # the stream is being looked at this moment
                case.began = now
                break
            del self.waiting[case.token]
            flow = self.flows.get(case.flow)
            if flow is not None and case in flow.claims:
                flow.claims.remove(case)
            at, outcome = self.told.get(ends_of(case.meta), (-1.0, "clean"))
            case.silent = at >= case.began - CLAIM_S
            # Told already: the same content, all of a connection that was cut, or the beginning of something longer.
            known = case.ended or case.sha256 in self.cache or outcome == "blocked" or case.size >= ENGINE_DEPTH_BYTES
            if (case.silent and known) or (outcome == "blocked" and case.began - at < CUT_ENDS_S):
                commands += self._close(case)
            elif case.silent and self.overloaded:
                self.shed["second_opinion"] += 1
                commands += self._close(case)
            else:
                case.late, case.why_late = True, "late"
                commands.append(
                    Scan(case.token, "file", 0, case.dir, case.path, case.size, name=case.meta.file_name[-128:])
                )
        return commands

    def _looking(self, flow: int) -> bool:
        """A look at the stream is under way; one that was cut and only waits to hear how that ended is none."""
        over = self.undecided.get(flow, [])
        return any(case.flow == flow and case.what == "stream" and case not in over for case in self.cases.values())

    def name(self, ends: frozenset[tuple[str, int]], name: str) -> None:
        """What the connection between these ends is about to carry is called so."""
        self.names[ends] = name
        self.names.move_to_end(ends)
        if len(self.names) > CACHE_SIZE:
            self.names.popitem(last=False)

    def hand_over(self) -> Handed:
        """What the successor is to know; nothing changes by this."""
        told_later = [case for cases in self.undecided.values() for case in cases] + list(self.unnamed.values())
        return Handed(
            next_token=self.next_token,
            cases=[*self.waiting.values(), *told_later],
            waiting=list(self.waiting),
            undecided={flow: [case.token for case in cases] for flow, cases in self.undecided.items()},
            unnamed={flow: case.token for flow, case in self.unnamed.items()},
            flows=self.flows,
            cut=self.cut,
            on_its_way=[(case.flow, case.dir) for case in self.cases.values() if case.on_its_way and case.flow],
            cache=self.cache, known=self.known, told=self.told, names=self.names,
        )  # fmt: skip

    def take_over(self, handed: Handed) -> None:
        """Go on with what another process knew of the same gate."""
        cases = {case.token: case for case in handed.cases}
        self.next_token, self.cases, self.cut = handed.next_token, cases, handed.cut
        self.waiting = OrderedDict((token, cases[token]) for token in handed.waiting)
        self.undecided = {flow: [cases[token] for token in tokens] for flow, tokens in handed.undecided.items()}
        self.unnamed = {flow: cases[token] for flow, token in handed.unnamed.items()}
        self.flows = handed.flows
        for flow in self.flows.values():  # one thing again, not two alike
            flow.claims = [cases.get(claim.token, claim) for claim in flow.claims]
        self.cache, self.known = OrderedDict(handed.cache), OrderedDict(handed.known)
        self.told, self.names = OrderedDict(handed.told), OrderedDict(handed.names)

    def leave(self, now: float, *, whole: bool) -> list[Command]:
        """Another process goes on: keep what it was not told of, and finish that. `whole`: it has the flows too.

        Where it has not, nobody will say any more how cut flows ended.
        """
        commands: list[Command] = []
        if not whole:
            for flow in list(self.undecided):
                commands += self._cut_told(flow, "delivered_then_found", now)
            for case in list(self.unnamed.values()):
                commands += self._tell_unnamed(case, now)
        handed = {case.token for case in self.hand_over().cases}
        ours = [c for c in self.cases.values() if c.token not in handed and not (c.what == "stream" and c.flow)]
        for case in ours:
            case.flow = 0
        self.cases = {case.token: case for case in ours}
        for left in (self.waiting, self.undecided, self.unnamed, self.flows, self.cut):
            left.clear()
        return commands

    def fleet_changed(self) -> None:
        """Other boxes' bad files are others now: what was clean may not be any more, and the other way round."""
        self.cache.clear()

    def forget_verdicts(self) -> None:
        """The rules changed: what was clean may not be any more."""
        self.cache.clear()
        self.known.clear()

    def _open(self, what: Literal["file", "stream"], flow: int, direction: int, meta: Meta, now: float) -> _Case:
        case = _Case(self.next_token, what, flow, direction, meta, now)
        self.next_token += 1
        self.cases[case.token] = case
        return case

    def _file(self, seen: FileSeen, now: float) -> list[Command]:
        case = self._open("file", seen.flow, seen.dir, seen.meta, now)
        case.sha256, case.size, case.late = seen.sha256, seen.size, seen.late
        unnamed = self.unnamed.get(seen.flow)
        if unnamed is not None and unnamed.dir == seen.dir and seen.sha256 in self.known:
            self._name(unnamed, case)
            return [*self._tell_unnamed(unnamed, now), *self._close(case)]
        if seen.flow and seen.flow in self.cut:
            return self._close(case)  # its outcome was told when the flow was cut
        if seen.flow:
            self._flow(seen.flow).claims.append(case)
            if len(self._flow(seen.flow).claims) > 16:
                self._flow(seen.flow).claims.pop(0)
        if seen.flow and not seen.late:
            if seen.state != "CLOSED" or not seen.stored:
                return self._close(case)  # its names are of use, its content is not whole
            case.path = seen.path
            self.waiting[case.token] = case
            return []
        known = self.cache.get(seen.sha256) if seen.state == "CLOSED" else None
        if known is not None:
            return self._judge(case, known, now)
        if not seen.stored:
            return self._unscanned(case, "not_stored", now)
        return [Scan(case.token, "file", seen.flow, seen.dir, seen.path, seen.size, name=seen.meta.file_name[-128:])]

    def _flow(self, flow: int) -> _Flow:
        return self.flows.setdefault(flow, _Flow()) if flow else _Flow()  # of one that is gone nothing is kept

    def _note(self, event: NoteRaised, now: float) -> list[Command]:
        note, ends = event.note, event.ends
        if note.kind is Kind.GONE:
            self.cut.discard(note.flow)
            self.flows.pop(note.flow, None)
            told = self._cut_told(note.flow, "delivered_then_found", now)
            if note.flow in self.unnamed:
                told += self._tell_unnamed(self.unnamed[note.flow], now)
            for case in self.cases.values():
                if case.flow == note.flow:  # no note will follow: what is found now is found too late
                    case.flow = 0
            return told
        if note.kind is Kind.WITHHELD:
            return self._cut_told(note.flow, "blocked", now)
        if ends is None:
            return []
        if note.kind is Kind.EXPIRED:
            return [] if note.flow in self.cut else self._expired(note, ends, now)
        if note.kind is Kind.FRAME and ends.kind & (marks.POP3 | marks.IMAP):
            return []  # a mail is looked at each time it has doubled, when it pauses
        if note.kind is Kind.FRAME and self.overloaded:
            self.shed["on_its_way"] += 1
            return []
        if note.kind is Kind.KNOWN:
            return self._known(note, ends, now)
        case, app = self._begin(note, ends, now)
        if note.kind is Kind.FRAME:
            case.on_its_way = True
        if note.kind in (Kind.FRAME, Kind.PAUSE, Kind.COMPLETE):
            return [self._look_at(case, app, now)]
        reason = "too_large" if note.kind is Kind.TOO_BIG else "memory"
        self.shed[reason] += 1
        case.size, case.meta = note.length, self._named(case, None)
        if note.kind is Kind.SHED:
            return [self._report(case, "released_by_policy", reason, now), *self._close(case)]
        if self._blank(case) >= 0:
            return self._stop(case, now)
        return self._unscanned(case, reason, now)

    def _begin(self, note: Note, ends: Ends, now: float) -> tuple[_Case, str]:
        """(the case of what this note is about, the splitter's name)."""
        meta, app = self._ends(note.flow, note.dir, ends)
        case = self._open("stream", note.flow, note.dir, self._called(note.flow, meta), now)
        case.length, case.base, case.ended = note.length, note.base, note.ended
        return case, "" if note.joined else app  # no splitter reads from the middle: all of it is one thing to look at

    def _known(self, note: Note, ends: Ends, now: float) -> list[Command]:
        """The engine has refused a file by its hash: told as the engine named it, where it has done so by now."""
        if note.flow in self.cut:
            return []
        case = self._open("stream", note.flow, note.dir, self._ends(note.flow, note.dir, ends)[0], now)
        case.rules, case.reason = (KNOWN_FILE,), KNOWN
        claims = self._flow(note.flow).claims
        claim = next((c for c in reversed(claims) if c.dir == note.dir and c.sha256 in self.known), None)
        if claim is None:
            return self._stop(case, now)
        claims.remove(claim)
        self.waiting.pop(claim.token, None)
        self._name(case, claim)
        return [*self._stop(case, now), *self._close(claim)]

    def _name(self, case: _Case, claim: _Case) -> None:
        case.meta, case.sha256, case.size, case.rules = claim.meta, claim.sha256, claim.size, self.known[claim.sha256]

    def _tell_unnamed(self, case: _Case, now: float) -> list[Command]:
        del self.unnamed[case.flow]
        case.began = now  # it was cut at once: what took time was its name
        return [self._report(case, "blocked", case.reason, now), *self._close(case)]

    def _look_at(self, case: _Case, app: str, now: float) -> Scan:
        blank, flow = self._blank(case), self.flows.get(case.flow, _Flow())
        known = case.dir == TO_CLIENT and blank < 0 and flow.full > case.base
        mend = self.block and not case.on_its_way and app in ("pop3", "imap")
        return Scan(
            case.token, "stream", case.flow, case.dir, length=case.length, app=app, mend=mend,
            name=case.meta.file_name[-128:],
            blank=blank - case.base if blank >= 0 else -1,
            full=flow.full - case.base if known else 0, looked=flow.looked - case.base if known else 0,
            left=flow.left if known else 0, stalled=known and now - flow.since > STALL_S,
        )  # fmt: skip

    def _blank(self, case: _Case) -> int:
        flow = self.flows.get(case.flow)
        return flow.blank if flow is not None and case.dir == TO_CLIENT else -1

    def _called(self, flow: int, meta: Meta) -> Meta:
        """With the name that another connection told."""
        name = self.names.pop(frozenset({(meta.src, meta.src_port), (meta.dst, meta.dst_port)}), "")
        if name:
            self._flow(flow).name = name
        known = self.flows.get(flow, _NO_FLOW).name
        return replace(meta, file_name=known) if known else meta

    def _ends(self, flow: int, direction: int, ends: Ends) -> tuple[Meta, str]:
        """(who sends to whom, the splitter's name)."""
        app = next((name for bit, name in _APPS if ends.kind & bit), "")
        known = self.flows.get(flow)
        app = known.app.get(direction, app) if known else app
        return Meta(*ends.sender(direction), app), app

    def _named(self, case: _Case, seen: Object | None) -> Meta:
        """The names of what was found: as the engine told them of the same content, or as the stream tells them."""
        flow = self.flows.get(case.flow)
        claims = [c for c in flow.claims if c.dir == case.dir] if flow else []
        same = next((c for c in claims if seen is not None and c.sha256 == seen.sha256), None)
        if same is not None and flow is not None and seen is not None:
            flow.claims.remove(same)
            same.ended = True
            meta = same.meta
            return replace(meta, file_name=meta.file_name or seen.name, host=meta.host or seen.host[:256])
        if seen is not None and (seen.name or seen.url or seen.mail_from):
            return replace(
                case.meta, file_name=seen.name, url=mask_url(seen.url), host=seen.host[:256],
                mail_from=seen.mail_from, mail_to=tuple(seen.mail_to), mail_subject=seen.mail_subject,
            )  # fmt: skip
        # A name that was told before is surer than one of a file whose content is another.
        return claims[-1].meta if claims and not case.meta.file_name else case.meta

    def _expired(self, note: Note, ends: Ends, now: float) -> list[Command]:
        """What waited too long is cut or let go by policy; let go, it is looked at all the same and told at its end."""
        looks = [c for c in self.cases.values() if (c.flow, c.dir, c.what) == (note.flow, note.dir, "stream")]
        looks = [case for case in looks if not case.on_its_way]
        begun = None if looks else self._begin(note, ends, now)
        fresh = [begun[0]] if begun else [case for case in looks if not case.expired]
        self.shed["timeout"] += len(fresh)
        if self._blocks("timeout"):
            for case in fresh:
                case.expired, case.reason = True, "timeout"
            return [Cut(case.token, case.flow, case.dir) for case in fresh]
        late = self._flow(note.flow).late
        late[note.dir] = max(late.get(note.dir, 0), note.base + note.length)
        commands: list[Command] = [Release(note.flow, note.dir, note.length, 0)]
        for case in fresh:
            case.expired = True
        return [*commands, self._look_at(*begun, now)] if begun else commands

    def _blocks(self, reason: str) -> bool:
        return self.block and reason in self.block_reasons

    def _scanned(self, event: ScanDone, now: float) -> list[Command]:
        case, result = self.cases.get(event.token), event.result
        if case is None:
            return []
        case.outdated |= result.outdated
        if case in self.undecided.get(case.flow, ()):  # cut at its deadline: only a note can tell how that ended
            found = next((seen for seen in result.objects if seen.rules), None)
            if found is None:
                return []
            case.rules, case.reason = tuple(found.rules), ""
            return [Keep(case.token)]
        if case.result is not None and case.piece is not None:
            seen = result.objects[0] if result.objects else Object("", 0, reason=result.error)
            return self._judged_whole(case, case.piece, seen, now)
        if case.what == "stream":
            return self._stream(case, result, now)
        if result.error:
            return self._unscanned(case, result.error, now)
        seen = result.objects[0] if result.objects else Object("", 0)
        rules, case.inner = tuple(seen.rules), seen.inner
        if not rules and seen.reason:
            return self._unscanned(case, seen.reason, now)
        if not rules:
            self._remember(case, case.sha256, rules)
        return self._judge(case, rules, now)

    def _remember(self, case: _Case, sha256: str, rules: tuple[str, ...]) -> None:
        if not sha256 or case.outdated:
            return
        if rules and rules != (BY_FLEET,):
            self.known[sha256] = rules
            if len(self.known) > MAX_FILES:
                self.known.popitem(last=False)
        self.cache[sha256] = rules
        if len(self.cache) > CACHE_SIZE:
            self.cache.popitem(last=False)

    def memos(self, token: int) -> tuple[bytes, bytes, int]:
        """(memo of its direction, of the other, the spool's place in the stream): what a look must know beyond it."""
        case = self.cases[token]
        known = self.flows.get(case.flow, _NO_FLOW).memo
        return known.get(case.dir, b""), known.get(TO_CLIENT + TO_SERVER - case.dir, b""), case.base

    def _learn(self, case: _Case, result: Result) -> list[Command]:
        if not case.flow:
            return []
        if result.memo:
            self._flow(case.flow).memo[case.dir] = result.memo
        if not result.app:
            return []
        self._flow(case.flow).app = dict.fromkeys((TO_CLIENT, TO_SERVER), result.app)
        return [Gather(case.flow)] if result.app in MIXED else []

    def _grown(self, case: _Case, result: Result) -> None:
        """How far a stream of many files to the client has been looked at."""
        flow, last = self._flow(case.flow), result.objects[-1] if result.objects else None
        flow.looked = case.base + case.length
        flow.full = flow.looked if last is not None and not last.complete else 0

    def _stream(self, case: _Case, result: Result, now: float) -> list[Command]:
        if case.flow in self.cut or case.moved:
            return self._close(case)
        if result.error:
            return self._close(case) if case.on_its_way else self._unscanned(case, result.error, now)
        mixed = self._learn(case, result)
        if result.passes:
            flow, fresh = self._flow(case.flow), case.base + case.length - self._flow(case.flow).looked
            if fresh > 0:
                flow.left, flow.looked, flow.since = max(0, flow.left - fresh), flow.looked + fresh, now
            expected = [Expect(case.flow, case.dir, case.base + result.end)] if result.end else []
            return [*expected, Release(case.flow, case.dir, result.passes, 0), *self._close(case)]
        if case.mended is None and not case.on_its_way and any(seen.mail for seen in result.objects):
            return self._mails(case, result, now)
        for number, seen in enumerate(result.objects):
            if not (seen.complete or case.ended) and seen.reason not in ("unparsable", "encrypted"):
                seen.reason = ""  # half an archive is damaged, and no more can be said of it
                seen.reasons = [reason for reason in seen.reasons if reason == "encrypted"]
            seen.reason = next(filter(self._blocks, seen.reasons), seen.reason)
            if not seen.mail and self.block and (seen.rules or (seen.reason and self._blocks(seen.reason))):
                before = [] if case.on_its_way else self._news(case, result.objects[:number], now)
                case.sha256, case.size, case.inner = seen.sha256, seen.size, seen.inner
                case.meta, case.reason = self._named(case, seen), "" if seen.rules else seen.reason
                return [*before, *self._bad(case, tuple(seen.rules), now)]
        pieces = [seen for seen in result.objects if seen.body_at and (seen.ranged or (case.ended and seen.broken))]
        piece = next((seen for seen in pieces if seen.start not in case.placed), None)
        if piece is not None and not case.on_its_way:
            case.result, case.piece = result, piece
            case.placed.add(piece.start)
            return [Assemble(case.token, case.flow, case.dir, piece, bool(piece.ranged))]
        if case.on_its_way:
            expected = [Expect(case.flow, case.dir, case.base + result.end)] if result.end else []
            return [*mixed, *expected, *self._close(case)]
        commands = mixed
        if case.meta.app in MIXED and case.dir == TO_CLIENT:
            self._grown(case, result)
        news = self._news(case, result.objects, now)
        commands += [report for report in news if report.again]
        if result.end and result.end > case.length:  # before the release, which may ask for the next look at once
            commands.append(Expect(case.flow, case.dir, case.base + result.end))
        if not case.expired:
            commands.append(Release(case.flow, case.dir, case.length, result.finished))
        if any(seen.ranged for seen in result.objects):
            self._tell(case.meta, "clean", now)
        commands += [report for report in news if not report.again]
        if result.finished:
            for other in self.cases.values():
                other.moved |= other.on_its_way and (other.flow, other.dir) == (case.flow, case.dir)
        if case.flow in self.flows and result.finished:
            flow = self.flows[case.flow]
            flow.told = {t for t in flow.told if t[0] != case.dir or t[1] >= case.base + result.finished}
        if result.opaque:
            commands += [Pass(case.flow, way, sealed=True) for way in (case.dir, TO_CLIENT + TO_SERVER - case.dir)]
        return commands + self._close(case)

    def _unwanted(self, seen: Object) -> bool:
        """A mail of which something has been or is being replaced, or is let through because policy only looks."""
        return seen.mail and (seen.blanked or bool(seen.rules) or self._blocks(seen.reason))

    def _mails(self, case: _Case, result: Result, now: float) -> list[Command]:
        """Replace what is malicious in mails before anything else is decided about this look."""
        case.result, case.mended = result, []
        self._looked_at(case, result, now)
        patches: list[Patch] = []
        taken: list[tuple[int, int, int]] = []
        for seen in result.objects:
            if not self._unwanted(seen):
                continue
            patches += seen.patches
            if seen.blanked or not self._is_news(case, seen):
                continue
            one = self._open("stream", case.flow, case.dir, case.meta, now)
            one.began, one.sha256, one.size, one.inner = case.began, seen.sha256, seen.size, seen.inner
            one.meta, one.rules, one.reason = self._named(case, seen), tuple(seen.rules), seen.reason
            one.outdated = case.outdated
            one.whole = bool(case.flow and (seen.patches or seen.more))
            case.mended.append(one)
            if self.block:
                taken.append((one.token, *seen.taken))
        begun = next((seen.start for seen in result.objects if seen.more), -1)
        if self.block and case.flow:
            self._flow(case.flow).blank = case.base + begun if begun >= 0 else -1
        if not case.flow or (not patches and not taken):
            return self._neutralised(Neutralised(case.token, done=True), now)
        return [Neutralise(case.token, case.flow, case.dir, tuple(patches), tuple(taken))]

    def _looked_at(self, case: _Case, result: Result, now: float) -> None:
        if not case.flow:
            return
        flow, last = self._flow(case.flow), result.objects[-1]
        there = case.base + case.length
        flow.full = there if last.mail and not last.complete else 0
        flow.looked, flow.left, flow.since = there, last.left, now

    def _neutralised(self, event: Neutralised, now: float) -> list[Command]:
        case = self.cases.get(event.token)
        if case is None or case.result is None or case.mended is None:
            return []
        commands: list[Command] = []
        if not event.done and self.block and case.flow:  # its receiver may have it otherwise
            case.reason = "" if case.mended else "neutralised"
            for one in case.mended[:1]:
                case.rules, case.sha256, case.size, case.inner, case.meta = (
                    one.rules, one.sha256, one.size, one.inner, one.meta,
                )  # fmt: skip
            for one in case.mended:
                commands += self._close(one)
            return [*commands, *self._stop(case, now)]
        for one in case.mended:
            replaced = one.whole and event.done and case.flow
            outcome: Outcome = "blocked" if replaced else "delivered_then_found"
            reason = one.reason or "neutralised" if replaced else one.reason
            if not self.block:
                outcome, reason = "released_by_policy", "detect_only"
            commands += [self._report(one, outcome, reason, now), *self._close(one)]
        return [*commands, *self._stream(case, case.result, now)]

    def _assembled(self, event: Assembled, now: float) -> list[Command]:
        case = self.cases.get(event.token)
        if case is None or case.result is None or case.piece is None:
            return []
        case.whole, case.headless = event.whole, event.headless
        if not event.gap:
            return []  # a scan of all of it is under way
        reason = "range" if case.piece.ranged else ""
        return self._judged_whole(case, case.piece, Object("", 0, reason=reason), now)

    def _judged_whole(self, case: _Case, piece: Object, whole: Object, now: float) -> list[Command]:
        """What the piece is in its place among the others decides about it."""
        if case.result is None:
            return []
        told = replace_object(piece, whole)
        if case.headless and not told.rules:
            told.reason = told.reason or "range"
        if piece.ranged and not (case.whole or told.rules or told.reason):
            told.size = 0  # a part of a file is no file: its outcome is told with the last one
        objects = [told if seen is piece else seen for seen in case.result.objects]
        return self._stream(case, msgspec.structs.replace(case.result, objects=objects), now)

    def _news(self, case: _Case, objects: list[Object], now: float) -> list[Report]:
        """The outcomes of those that are whole and pass (of the bad, where nothing is stopped), each told once."""
        reports: list[Report] = []
        for seen in objects:
            # What cannot be read has no end to wait for.
            whole = seen.complete or (case.ended and seen is objects[-1]) or seen.rules or seen.reason == "unparsable"
            if not whole or self._unwanted(seen) or not self._is_news(case, seen):
                continue
            done = replace(case, sha256=seen.sha256, size=seen.size, inner=seen.inner, rules=tuple(seen.rules))
            done.meta = self._named(case, seen)
            late = case.expired or self._flow(case.flow).late.get(case.dir, 0) > case.base + seen.start
            reason = "detect_only" if seen.rules else seen.reason or ("timeout" if late else "")
            report = self._report(done, "released_by_policy" if reason else "clean", reason, now)
            download = case.dir == TO_CLIENT or case.meta.app == "smtp"
            if seen.again and download and seen.sha256 not in self.cache and seen is not case.piece:
                report = replace(report, again=(seen.start, seen.end or case.length))
            reports.append(report)
            if not reason:
                self._remember(case, seen.sha256, ())
        return reports

    def _is_news(self, case: _Case, seen: Object) -> bool:
        unread = seen.reason == "unparsable"
        place = (case.dir, case.base + seen.start, "" if seen.rules else seen.reason if unread else seen.sha256)
        told = self._flow(case.flow).told if case.flow else set()
        if place in told:
            return False
        told.add(place)
        return bool(seen.size)

    def _bad(self, case: _Case, rules: tuple[str, ...], now: float) -> list[Command]:
        """Malicious, or (without rules) of a kind that policy does not let pass."""
        case.rules = rules
        if rules:
            self._remember(case, case.sha256, rules)
        if not self.block:
            return [
                *self._let_go(case),
                self._report(case, "released_by_policy", "detect_only", now),
                *self._close(case),
            ]
        if not case.flow:
            reason = case.why_late if case.late and not case.silent else case.reason
            return [Keep(case.token), self._report(case, "delivered_then_found", reason, now), *self._close(case)]
        return [Keep(case.token), *self._stop(case, now)]

    def _judge(self, case: _Case, rules: tuple[str, ...], now: float) -> list[Command]:
        if rules:
            return self._bad(case, rules, now)
        if case.silent:
            return self._close(case)
        return [self._report(case, "clean", case.why_late if case.late else "", now), *self._close(case)]

    def _stop(self, case: _Case, now: float) -> list[Command]:
        """Cut the flow; on one that was cut for another file this one shares that one's fate."""
        if case.flow not in self.cut:
            return [Cut(case.token, case.flow, case.dir)]
        if case.flow in self.undecided:
            self.undecided[case.flow].append(case)
            return []
        return [self._report(case, "blocked", case.reason, now), *self._close(case)]

    def _unscanned(self, case: _Case, reason: str, now: float) -> list[Command]:
        if case.silent:
            return self._close(case)
        case.reason = reason
        if self._blocks(reason) and case.flow:
            return self._stop(case, now)
        commands = self._let_go(case)
        if reason == "too_large":
            commands = [Pass(case.flow, case.dir)]
        return [*commands, self._report(case, "released_by_policy", reason, now), *self._close(case)]

    def _let_go(self, case: _Case) -> list[Command]:
        if not case.flow or case.expired or case.what != "stream" or case.on_its_way:
            return []
        return [Release(case.flow, case.dir, case.length, 0)]

    def _cut_done(self, event: CutDone, now: float) -> list[Command]:
        case = self.cases.get(event.token)
        if case is None:
            return []
        self.cut.add(case.flow)
        if event.withheld > 0 and case.reason == KNOWN and not case.sha256:
            case.began, self.unnamed[case.flow] = now, case
            return []
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
        self._tell(case.meta, outcome, now)
        held = 0.0 if case.late else (now - case.began) * 1000
        return Report(
            case.token, case.meta, outcome, reason, case.rules, case.sha256, case.size, held, inner=case.inner,
            hearsay=case.outdated or reason == KNOWN,
        )  # fmt: skip

    def _tell(self, meta: Meta, outcome: Outcome, now: float) -> None:
        self.told[ends_of(meta)] = (now, outcome)
        self.told.move_to_end(ends_of(meta))
        if len(self.told) > CACHE_SIZE:
            self.told.popitem(last=False)

    def _close(self, case: _Case) -> list[Command]:
        self.cases.pop(case.token, None)
        return [Done(case.token)]


def ends_of(meta: Meta) -> tuple[str, int, str, int]:
    """Who sends to whom, without names."""
    return meta.src, meta.src_port, meta.dst, meta.dst_port


def replace_object(piece: Object, whole: Object) -> Object:
    """The piece's names with the verdict (and, where there is one, the content's identity) of the whole."""
    told = msgspec.structs.replace(piece, rules=whole.rules, inner=whole.inner, reason=whole.reason, broken=False)
    if whole.sha256:
        told.sha256, told.size = whole.sha256, whole.size
    return told
