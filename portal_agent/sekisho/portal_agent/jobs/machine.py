r"""Decides what happens to jobs: pure, one event in, commands out; no clock, file or thread.

    RECEIVED -> ACCEPTED -> [WAITING turn|clock|not_before|...] -> RUNNING <-> WAITING customer|window|network|budget
        \___________\____________\_ EXPIRED, CANCELED, REJECTED        \__ SUCCEEDED, FAILED, REVERTED, TIMED_OUT, ...

Whoever calls saves `book` after each event, tells what is not told, and only then carries out the commands; then all
of them may be repeated after a power cut. An end is for ever. Of the kinds that change the box one is under way at a
time, also while it waits for the customer. What is under way is taken up again by `Started`; taken up
`ENTRIES_CAP` times without getting further it is given up.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sekisho.appliance.core.jobs import LIFE_S, MUTATING, TERMINAL, State, span_s, working_s
from sekisho.portal_agent.jobs import facts
from sekisho.portal_agent.jobs.book import KEPT, OPEN_CAP, SPARE, Book, Entry, pruned
from sekisho.portal_agent.jobs.facts import Command, Now, Progress

ENTRIES_CAP: Final = 20
LOOK_S: Final = 2.0
RETRY_S: Final = 10.0
AGAIN_S: Final = 600.0
"""What the centre sends again is answered again this often at most."""
WITHDRAW_S: Final = 120.0
"""Taking back is given up after this; the job ends all the same."""
CLOCK_S: Final = 7 * 86_400.0
"""Seconds of this daemon's life without the time: whether a job is over cannot be known meanwhile."""
CLOCKLESS: Final = frozenset({"job.cancel", "fw.cancel", "support.close"})
"""What only takes back may begin though the time is not known."""
AHEAD_S: Final = 5 * 366 * 86_400.0
"""A job sets no time further than this after the newest one the channel was signed at."""
CHOICES: Final = frozenset({"customer", "window"})
NEWER: Final[dict[str, str]] = {"fw.stage": "fw", "fw.activate": "fw", "sig.update": "sig"}
"""Of these families a greater counter takes the place of a smaller one that has not begun or waits for a choice."""
DETAIL: Final = 250
PCT_STEP: Final = 10
MANY_REPORTS: Final = 500
"""Beyond it only ends are told."""


class Machine:
    """The daemon's mind."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._since: dict[str, float] = {}
        self._turned: dict[str, float] = {}
        self._next: dict[str, float] = {}
        self._answered: dict[str, float] = {}
        self._taking: dict[str, float] = {}

    def handle(self, event: facts.Event, now: Now) -> list[Command]:
        """What follows from `event`."""
        match event:
            case facts.Started():
                return self._started(now)
            case facts.Came():
                return self._came(event, now)
            case facts.Turned():
                self.book = pruned(self.book, max(self.book.floor, now.floor))
                return [one for entry in self.book.entries if not entry.over for one in self._turn(entry.job.id, now)]
            case facts.Prepared(ident, mark):
                return self._prepared(ident, mark, now)
            case facts.Unready(ident, progress):
                return self._unready(ident, progress, now)
            case facts.Looked(ident, progress):
                self._looked(ident, progress, now)
            case facts.Withdrawn(ident, too_late):
                self._withdrawn(ident, too_late, now)
        return []

    def spoken(self, ident: str, ver: int) -> None:
        """The report of this `ver` is where telemetry reads."""
        entry = self.book.find(ident)
        if entry is not None and entry.told < ver:
            self._put(msgspec.structs.replace(entry, told=ver))

    def full(self, kind: str) -> bool:
        """Whether no further job of this kind is taken now."""
        places = OPEN_CAP + (SPARE if kind in CLOCKLESS else 0)
        entries = self.book.entries
        return len(entries) >= KEPT + places or sum(not entry.over for entry in entries) >= places

    # Events

    def _started(self, now: Now) -> list[Command]:
        for entry in self.book.entries:
            if not entry.over and entry.begun and entry.state == "RUNNING":
                self._put(msgspec.structs.replace(entry, entries=entry.entries + 1))
        begun = [
            entry for entry in self.book.entries if not entry.over and entry.begun and entry.job.kind != "job.cancel"
        ]
        for entry in begun:
            if entry.entries > ENTRIES_CAP and entry.ending is None:
                self._take_back(entry.job.id, "FAILED", "loop", "", now)
        # Asked for, perhaps, or perhaps not: the mark tells, so it is asked for as if for the first time.
        return [
            facts.Begin(entry.job.id)
            for entry in begun
            if entry.entries <= ENTRIES_CAP and entry.ending is None and self._still_may(entry, now)
        ]

    def _came(self, event: facts.Came, now: Now) -> list[Command]:
        ident = event.job.id
        known = self.book.find(ident)
        if known is not None:
            if known.digest == event.digest and now.mono >= self._answered.get(ident, 0.0):
                self._answered[ident] = now.mono + AGAIN_S
                self._put(msgspec.structs.replace(known, told=known.ver - 1))
            return []
        if self.full(event.job.kind):
            return []
        job = msgspec.structs.replace(event.job, boxes=event.job.boxes[:1])
        self._answered[ident] = now.mono + AGAIN_S
        self._put(Entry(job=job, digest=event.digest, signers=event.signers, at=now.at))
        self._since[ident] = now.mono
        return []

    def _turn(self, ident: str, now: Now) -> list[Command]:
        entry = self.book.find(ident)
        if entry is None or entry.over:
            return []
        if entry.begun:
            return self._turn_begun(entry, now)
        return self._turn_waiting(entry, now)

    # Before it has begun

    def _turn_waiting(self, entry: Entry, now: Now) -> list[Command]:
        ident, job = entry.job.id, entry.job
        if canceler := self._canceled(ident):
            self._end(ident, "CANCELED", now, by=f"job {canceler}")
        elif self._past(entry, now):
            self._end(ident, "EXPIRED", now, why=entry.why if entry.state == "WAITING" else "")
        elif newer := self._newer(entry):
            self._end(ident, "SUPERSEDED", now, by=f"job {newer}")
        elif now.true is not None and job.nbf > now.true + LIFE_S:
            self._end(ident, "REJECTED", now, why="times")
        elif entry.state == "RECEIVED":
            self._change(ident, now, state="ACCEPTED")
        elif job.kind == "time.set" and max(now.floor, now.true or 0.0) < job.nbf:
            self._wait(entry, "clock" if now.true is None else "not_before", now)
        elif now.true is None and job.kind not in CLOCKLESS | {"time.set"}:
            self._wait(entry, "clock", now)
        elif now.true is not None and now.true < job.nbf:
            self._wait(entry, "not_before", now)
        elif other := self._under_way(entry):
            self._wait(entry, "turn", now)
            return self._supersede(other, entry, now)
        elif now.mono >= self._next.get(ident, 0.0):
            self._next[ident] = now.mono + RETRY_S
            return [facts.Prepare(ident)]
        return []

    def _past(self, entry: Entry, now: Now) -> bool:
        """Whether it is too late to begin, as far as that is known."""
        return max(self.book.floor, now.floor, now.true or 0.0) > entry.last

    def _still_may(self, entry: Entry, now: Now) -> bool:
        """What was asked for goes on; of the rest a long time without power may lie before its beginning."""
        timely = (now.true is not None or entry.job.kind in CLOCKLESS) and not self._past(entry, now)
        return entry.asked or timely

    def _canceled(self, ident: str) -> str:
        """The job that takes this one back, also where it came first."""
        for other in self.book.entries:
            job = other.job
            if job.kind == "job.cancel" and other.state == "SUCCEEDED" and job.args.get("job") == ident:
                return job.id
        return ""

    def _newer(self, entry: Entry) -> str:
        if entry.job.kind not in NEWER or not _counter(entry):  # what asks for the newest, whichever it is
            return ""
        for other in self.book.entries:
            newer = other.job.kind == entry.job.kind and _counter(other) > _counter(entry)
            if newer and other.state not in ("REJECTED", "EXPIRED", "CANCELED", "FAILED", "TIMED_OUT", "REVERTED"):
                return other.job.id
        return ""

    def _under_way(self, entry: Entry) -> Entry | None:
        if entry.job.kind not in MUTATING:
            return None
        for other in self.book.entries:
            if other.begun and not other.over and other.job.kind in MUTATING and other.job.id != entry.job.id:
                return other
        return None

    def _supersede(self, other: Entry, entry: Entry, now: Now) -> list[Command]:
        """A release the customer was not asked for in vain: what waits for a choice gives way to a newer one."""
        family = NEWER.get(entry.job.kind)
        waits = other.state == "WAITING" and other.why in CHOICES and other.ending is None
        if family and NEWER.get(other.job.kind) == family and waits and _counter(entry) > _counter(other):
            return self._take_back(other.job.id, "SUPERSEDED", "", f"job {entry.job.id}", now)
        return []

    def _wait(self, entry: Entry, why: str, now: Now, detail: str = "") -> None:
        ident = entry.job.id
        if (entry.state, entry.why) != ("WAITING", why):
            self._since[ident] = now.mono
            self._change(ident, now, state="WAITING", why=why, detail=detail)
        if now.true is None and not entry.begun and now.mono - self._since.setdefault(ident, now.mono) > CLOCK_S:
            self._end(ident, "TIMED_OUT", now, why=why)

    # Beginning

    def _prepared(self, ident: str, mark: str, now: Now) -> list[Command]:
        entry = self.book.find(ident)
        if entry is None or entry.over or entry.begun or self._under_way(entry) is not None or self._past(entry, now):
            return []
        if entry.job.kind == "time.set":
            return self._set_time(entry, now)
        if entry.job.kind == "job.cancel":
            return self._cancel(entry, now)
        if now.true is None and entry.job.kind not in CLOCKLESS:
            return []
        self._since[ident] = now.mono
        self._next[ident] = now.mono + LOOK_S
        self._change(ident, now, state="RUNNING", why="", begun=now.true or 1.0, mark=mark)
        return [facts.Begin(ident)]

    def _set_time(self, entry: Entry, now: Now) -> list[Command]:
        """Only ever forward: a replayed one is too small to matter. It says no later time than it was signed for."""
        said = entry.job.args.get("time", "")
        latest = min(entry.last, now.floor + AHEAD_S)
        if not said.isdecimal() or len(said) > 12 or not entry.job.nbf <= int(said) <= latest:
            self._end(entry.job.id, "REJECTED", now, why="args")
            return []
        self.book = msgspec.structs.replace(self.book, floor=max(self.book.floor, float(said)))
        self._end(entry.job.id, "SUCCEEDED", now)
        return []

    def _cancel(self, entry: Entry, now: Now) -> list[Command]:
        """Take back what is named; what comes later under that name is not begun."""
        ident, wanted = entry.job.id, entry.job.args.get("job", "")
        if not wanted or wanted == ident:
            self._end(ident, "REJECTED", now, why="args")
            return []
        target = self.book.find(wanted)
        if target is None or not (target.over or target.begun):
            self._end(ident, "SUCCEEDED", now)
            return self._turn(wanted, now)
        if target.over:
            canceled = target.state == "CANCELED"
            self._end(ident, "SUCCEEDED" if canceled else "FAILED", now, why="" if canceled else "too_late")
            return []
        self._change(ident, now, state="RUNNING", why="", step=target.state, begun=now.true or 1.0)
        return self._take_back(wanted, "CANCELED", "", f"job {ident}", now)

    def _unready(self, ident: str, progress: Progress, now: Now) -> list[Command]:
        entry = self.book.find(ident)
        if entry is None or entry.over or entry.asked or entry.ending is not None:
            return []
        if progress.state not in TERMINAL:
            self._wait(entry, progress.why, now, progress.detail)
        elif entry.begun:  # perhaps it was asked for, and the answer was lost with the power
            return self._take_back(ident, progress.state, progress.why, "", now)
        else:
            self._end(ident, progress.state, now, why=progress.why, detail=progress.detail)
        return []

    # While it is under way

    def _turn_begun(self, entry: Entry, now: Now) -> list[Command]:
        ident = entry.job.id
        if entry.job.kind == "job.cancel":
            return self._watch_cancel(entry, now)
        if entry.ending is not None:
            if now.mono - self._taking.setdefault(ident, now.mono) > WITHDRAW_S:
                self._end(ident, entry.ending, now, why=entry.ends_why, by=entry.ends_by, detail="not taken back")
                return []
            return self._due(ident, facts.Withdraw(ident), now)
        # The deadline first: what is too late to be taken back when its choice is over ends all the same.
        span = span_s(entry.job.kind)
        late = now.true is not None and 1.0 < entry.begun < now.true - span
        late |= entry.state == "RUNNING" and self._works_too_long(entry, now)
        if late or now.mono - self._since.setdefault(ident, now.mono) > span:
            return self._take_back(ident, "TIMED_OUT", entry.why or "deadline", "", now)
        if not self._still_may(entry, now):
            if self._past(entry, now):
                return self._take_back(ident, "EXPIRED", entry.why, "", now)
            self._wait(entry, "clock", now)
            return []
        if not entry.asked:
            return self._due(ident, facts.Begin(ident), now)
        waits = entry.state == "WAITING" and entry.why in CHOICES
        if waits and self._past(entry, now) and now.mono >= self._next.get(ident, 0.0):
            return self._take_back(ident, "EXPIRED", entry.why, "", now)
        return self._due(ident, facts.Look(ident), now)

    def _works_too_long(self, entry: Entry, now: Now) -> bool:
        most = working_s(entry.job.kind)
        known = now.true is not None and 0 < entry.turned < now.true - most
        return known or now.mono - self._turned.setdefault(entry.job.id, now.mono) > most

    def _watch_cancel(self, entry: Entry, now: Now) -> list[Command]:
        target = self.book.find(entry.job.args.get("job", ""))
        if target is None or target.state == "CANCELED":
            self._end(entry.job.id, "SUCCEEDED", now)
        elif target.over or target.ending is None:
            self._end(entry.job.id, "FAILED", now, why="too_late")
        return []

    def _due(self, ident: str, command: Command, now: Now) -> list[Command]:
        if now.mono < self._next.get(ident, 0.0):
            return []
        self._next[ident] = now.mono + LOOK_S
        return [command]

    def _take_back(self, ident: str, ending: State, why: str, by: str, now: Now) -> list[Command]:
        entry = self.book.find(ident)
        if entry is None or entry.over or entry.ending is not None:
            return []
        self._put(msgspec.structs.replace(entry, ending=ending, ends_why=why, ends_by=by))
        self._taking[ident] = now.mono
        self._next[ident] = now.mono + LOOK_S
        return [facts.Withdraw(ident)]

    def _withdrawn(self, ident: str, too_late: str, now: Now) -> None:
        entry = self.book.find(ident)
        if entry is None or entry.over or entry.ending is None:
            return
        if not too_late:
            self._end(ident, entry.ending, now, why=entry.ends_why, by=entry.ends_by)
        elif entry.ending in ("CANCELED", "SUPERSEDED", "EXPIRED", "REJECTED"):
            # What the customer or the machine has begun goes on, and says itself how it ends.
            self._put(msgspec.structs.replace(entry, asked=True, ending=None, ends_why="", ends_by=""))
        else:
            self._end(ident, entry.ending, now, why=entry.ends_why, by=entry.ends_by, detail=too_late)

    def _looked(self, ident: str, progress: Progress, now: Now) -> None:
        entry = self.book.find(ident)
        if entry is None or entry.over or not entry.begun:
            return
        if not entry.asked:
            entry = msgspec.structs.replace(entry, asked=True)
            self._put(entry)
        if progress.state in TERMINAL:
            self._end(
                ident, progress.state, now, why=progress.why, by=progress.by, detail=progress.detail,
                step=progress.step, pct=100 if progress.state == "SUCCEEDED" else progress.pct,
            )  # fmt: skip
            return
        was = (entry.state, entry.why, entry.step)
        moved = was != (progress.state, progress.why, progress.step)
        if moved or progress.pct >= entry.pct + PCT_STEP:
            quiet = entry.ver >= MANY_REPORTS
            self._change(
                ident, now, quiet=quiet, state=progress.state, why=progress.why, step=progress.step, pct=progress.pct,
                by=progress.by, detail=progress.detail[:DETAIL], entries=0 if moved else entry.entries,
            )  # fmt: skip

    # The book

    def _end(
        self, ident: str, state: State, now: Now, *, why: str = "", by: str = "", detail: str = "", **more: Any
    ) -> None:
        self._change(ident, now, state=state, why=why, by=by, detail=detail[:DETAIL], ending=None, **more)
        for known in (self._since, self._turned, self._next, self._taking):
            known.pop(ident, None)

    def _change(self, ident: str, now: Now, *, quiet: bool = False, **values: Any) -> None:
        entry = self.book.find(ident)
        if entry is None or entry.over:
            return
        if values.get("state", entry.state) != entry.state:
            values["turned"] = now.true or 0.0
            self._turned[ident] = now.mono
        grown = entry.ver if quiet else entry.ver + 1
        self._put(msgspec.structs.replace(entry, **values, ver=grown, at=now.at))

    def _put(self, entry: Entry) -> None:
        entries = list(self.book.entries)
        for place, one in enumerate(entries):
            if one.job.id == entry.job.id:
                entries[place] = entry
                break
        else:
            entries.append(entry)
        self.book = msgspec.structs.replace(self.book, entries=tuple(entries))


def _counter(entry: Entry) -> int:
    said = entry.job.args.get("counter") or entry.job.args.get("number") or ""
    return int(said) if said.isdecimal() and len(said) < 16 else 0
