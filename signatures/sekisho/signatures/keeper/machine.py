r"""Decides what happens to the box's published set: pure, one event in, commands out; no clock, file or thread.

    IDLE -> FETCHING -> FETCHED -> STAGED -> TESTING -> SWITCHING -> PROVING -> SOAK -> IDLE (active)
                \___________\_________\________\_______ refused, discarded       \________\
                                                                                 ROLLBACK -> IDLE (rolled back)

Whoever calls saves `journal` after each event and before it carries out the commands; then every command may be
repeated after a power cut, and each step is begun again by `Started`. A step that was begun `ENTRIES_CAP` times is
given up; each has a deadline. Refused is a set (its number is not tried again), discarded is an attempt (the machine
could not; tried again later).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sekisho.appliance.core.muting import MAX_TRIAL, Muting
from sekisho.appliance.core.standing import Standing
from sekisho.signatures.keeper import facts, told
from sekisho.signatures.keeper.facts import Command
from sekisho.signatures.keeper.journal import REFUSED_CAP, Journal, Kept, Step
from sekisho.telemetry.events import Signatures

EVERY_S: Final = 12 * 3600.0
"""The bulletin tells of a new set; this is for boxes that hear none. A look is 5 kB on the line, of which TLS 4."""
FIRST_S: Final = 20.0
"""After the start, so that a fleet that has its power back does not ask at once."""
BACK_OFF_S: Final = (5.0, 600.0)
FAULT_S: Final = 3600.0
"""After this machine could not, it tries again so much later."""
TELL_S: Final = 6 * 3600.0
ENTRIES_CAP: Final = 20
DEADLINES: Final = {
    Step.FETCHING: 86_400.0,
    Step.FETCHED: 600.0,
    Step.STAGED: 3600.0,
    Step.TESTING: 900.0,
    Step.SWITCHING: 60.0,
    Step.PROVING: 60.0,
    Step.ROLLBACK: 60.0,
}
"""Seconds; of `SOAK` it is its length and `SOAK_MORE_S`."""
SOAK_MORE_S: Final = 600.0
UNTOLD_CAP: Final = 200
OPERATOR: Final = "job "
"""How the reason of a way back begins that people asked for."""
UNPROVEN_S: Final = 60.0
"""So long an inspector may be without proof during the soak: appliance repairs one that fell silent in less."""


class Machine:
    """The keeper's mind. `spread` gives a random time up to the one it is given."""

    def __init__(self, journal: Journal, soak_s: float, spread: Callable[[float], float]) -> None:
        self.journal = journal
        self._soak_s, self._spread = soak_s, spread
        self._since = self._turned = self._ordered = 0.0
        self._working = False
        self._next = self._tell = 0.0
        self._back_off = 0.0
        self._hint = 0
        self._asked = self._again = False
        self._fine_at = 0.0
        self._at = ""
        self._sight = facts.Looked()

    @property
    def working(self) -> bool:
        """Whether a command is under way whose outcome is awaited."""
        return self._working

    def handle(self, event: facts.Event, now: float, at: str) -> list[Command]:
        """What follows from `event`. `now`: monotonic, seconds; `at`: UTC."""
        self._at = at
        match event:
            case facts.Started(link, outdated):
                return self._started(link, now, outdated=outdated)
            case facts.Relinked(link):
                return self._compare(link, now)
            case facts.Asked(again):
                self._next, self._asked, self._again = now, True, self._again or again
                return []
            case facts.Left(number, by):
                return self._leave(number, by, now)
            case facts.Refreshed():
                return self._refreshed(event, now)
            case facts.Looked():
                self._sight = event
                return self._looked(event, now)
            case facts.Heard():
                return self._heard(event, now)
            case facts.Failed():
                return self._failed(event, now)
            case _:
                return self._done(event, now)

    # Beginning

    def _started(self, link: Kept, now: float, *, outdated: bool) -> list[Command]:
        self._next = now + FIRST_S / 2 + self._spread(FIRST_S)
        self._tell = now + FIRST_S
        journal = self.journal
        if journal.step is Step.IDLE:
            return [facts.Mute(journal.mine), *self._compare(link, now, outdated=outdated)]
        if journal.step in (Step.PROVING, Step.SOAK) and link.id == journal.candidate.id:
            return [facts.Mute(journal.mine), *self._enter(Step.PROVING, now, again=journal.step)]
        if journal.step in (Step.PROVING, Step.SOAK):
            return self._enter(Step.SWITCHING, now, again=journal.step)
        return self._enter(journal.step, now, again=journal.step)

    def _compare(self, link: Kept, now: float, *, outdated: bool = False) -> list[Command]:
        """In force is what `current` names. A published set that was lost or outdated is made again of its archive."""
        journal = self.journal
        if journal.step is not Step.IDLE:
            return []
        lost = journal.active
        if link.id != lost.id:
            active = link if link.id else journal.previous
            previous = Kept() if journal.previous.id == active.id else journal.previous
            highest = max(journal.highest, active.number)
            self._change(active=active, previous=previous, highest=highest, unsoaked=False)
        if lost.manifest is not None and (link.number < lost.number or outdated):
            self._change(manifest=lost.manifest, remake=True)
            return self._enter(Step.FETCHING, now)
        return [facts.Watch(link.id)]

    # What is newest

    def _refreshed(self, event: facts.Refreshed, now: float) -> list[Command]:
        self._back_off = 0.0
        # Who asked while this answer was on its way may know of something newer.
        self._next = now if self._asked else now + EVERY_S * 0.75 + self._spread(EVERY_S / 2)
        self._again = self._again and self._asked
        journal, manifest = self.journal, event.manifest
        if journal.step not in (Step.IDLE, Step.FETCHING, Step.SOAK):
            return []
        self._working = False
        if event.current:
            self._change(checked=self._at)
            self._tell = min(self._tell, now)
        if event.again:
            left = {number: why for number, why in journal.refused.items() if number != manifest.number}
            self._change(refused=left, said="")
        if journal.step is Step.SOAK:
            # A set that mends this one must not wait until it has been watched.
            if event.unfit or manifest.number <= journal.candidate.number or manifest.number in self.journal.refused:
                return []
            self._relieve()
        wanted = (
            manifest.number >= self.journal.highest
            and manifest.number != self.journal.active.number
            and manifest.number not in self.journal.refused
        )
        if not wanted:
            return self._discard() if journal.step is Step.FETCHING else []
        if journal.step is Step.FETCHING and journal.manifest == manifest:
            return self._enter(Step.FETCHING, now)
        commands = self._discard() if journal.step is Step.FETCHING else []
        self._change(manifest=manifest, remake=False)
        if event.unfit:
            return [*commands, *self._refuse("unfit", event.unfit)]
        return [*commands, *self._enter(Step.FETCHING, now)]

    # Steps

    def _enter(self, step: Step, now: float, again: Step | None = None) -> list[Command]:
        """Begin `step`; `again`: it is begun anew after that one was interrupted."""
        entries = self.journal.entries + 1 if again is not None else 1
        self._change(step=step, entries=entries)
        self._since = self._fine_at = self._turned = now
        if step is not Step.PROVING or again is not None:
            self._ordered = now
        self._working = False
        if entries > ENTRIES_CAP:
            return self._loop(now)
        return self._work(now)

    def _work(self, now: float) -> list[Command]:
        journal, manifest = self.journal, self.journal.manifest
        keep = journal.active.id
        match journal.step:
            case Step.ROLLBACK:
                self._working = True
                return [facts.Switch(journal.active.id, journal.before, journal.previous.id)]
            case Step.PROVING | Step.SOAK | Step.STAGED | Step.IDLE:
                return []
        if manifest is None:
            return self._discard()
        self._working = True
        match journal.step:
            case Step.FETCHING:
                return [facts.Fetch(manifest)]
            case Step.FETCHED:
                return [facts.Unpack(manifest)]
            case Step.TESTING:
                return [facts.Test(manifest)]
            case _:
                return [facts.Switch(journal.candidate.id, journal.mine, keep)]

    def _done(self, event: facts.Event, now: float) -> list[Command]:
        step = self.journal.step
        match event:
            case facts.Fetched() if step is Step.FETCHING:
                return self._enter(Step.FETCHED, now)
            case facts.Unpacked() if step is Step.FETCHED:
                return self._enter(Step.STAGED, now)
            case facts.Tested() if step is Step.TESTING:
                return self._tested(event, now)
            case facts.Switched() if step is Step.SWITCHING:
                return self._enter(Step.PROVING, now)
            case facts.Switched() if step is Step.ROLLBACK:
                self._working = False
                self._since = now
        return []

    def _tested(self, event: facts.Tested, now: float) -> list[Command]:
        journal = self.journal
        mine = journal.mine
        if not journal.remake:
            # What was muted has to be found too loud again; until then it may report and may not drop.
            trial = {*event.trial, *mine.sids, *mine.on_trial} if self._soak_s else ()
            if len(trial) > MAX_TRIAL:
                return self._refuse("unfit", f"It lets {len(trial)} rules drop for the first time; {MAX_TRIAL} may.")
            mine = Muting(on_trial=tuple(sorted(trial)))
        self._change(
            candidate=event.kept, before=journal.mine, mine=mine, held_before=journal.held,
            held=journal.held if journal.remake else (), soaked_s=self._soak_s if journal.remake else 0.0,
        )  # fmt: skip
        if event.kept.id == journal.active.id:
            return self._activate(now, news=False)
        return self._enter(Step.SWITCHING, now)

    def _failed(self, event: facts.Failed, now: float) -> list[Command]:
        journal = self.journal
        asked = event.step is Step.IDLE and journal.step in (Step.IDLE, Step.FETCHING, Step.SOAK)
        if not asked and event.step is not journal.step:
            return []
        self._working = False
        # Whatever a server gives instead of what was signed, it must not make this box refuse the set itself.
        if event.kind == "peer" or (event.kind == "refused" and event.step is Step.FETCHING):
            if journal.step is not Step.SOAK:
                self._change(entries=min(journal.entries, 1))
            self._back_off = min(max(self._back_off * 2, BACK_OFF_S[0]), BACK_OFF_S[1])
            self._next = now if self._asked else now + self._back_off / 2 + self._spread(self._back_off / 2)
            return []
        if asked:
            self._next = now + FAULT_S / 2 + self._spread(FAULT_S)
            self._say("distrust" if event.kind == "refused" else "fault", event.why, 0)
            return []
        if event.step is Step.ROLLBACK:
            self._since = self._turned = now
            return []
        if event.kind == "refused":
            return self._refuse("refused", event.why)
        return self._discard("fault", event.why, now)

    # Looking

    def _looked(self, sight: facts.Looked, now: float) -> list[Command]:
        journal = self.journal
        self._hint = max(self._hint, sight.hint)
        if now >= self._tell:
            self._tell = now + TELL_S
            self._event("freshness")
        if sight.off:
            return self._keep_out(sight.off)
        match journal.step:
            case Step.IDLE | Step.FETCHING:
                return self._look_for_news(sight, now)
            case Step.STAGED if not sight.wait:
                return self._enter(Step.TESTING, now)
            case Step.STAGED if now - self._since > DEADLINES[Step.STAGED]:
                return self._discard("wait", sight.wait, now)
            case Step.PROVING:
                return self._prove(sight, now)
            case Step.SOAK:
                return self._soak(sight, now)
            case Step.ROLLBACK:
                return self._roll(sight, now)
            case step if step is not Step.STAGED and now - self._since > DEADLINES[step]:
                return self._discard("time", f"The step {step} took longer than {DEADLINES[step]:.0f} s.", now)
        return []

    def _look_for_news(self, sight: facts.Looked, now: float) -> list[Command]:
        journal = self.journal
        if journal.step is Step.IDLE and sight.link != journal.active.id:
            return []  # somebody is about to change it; the next start, or the caller, tells by `Started`
        if journal.step is Step.FETCHING and now - self._since > DEADLINES[Step.FETCHING]:
            return self._discard("time", "The set could not be downloaded within a day.", now)
        if journal.unsoaked and journal.step is Step.IDLE:
            return self._soak_again(now)
        return self._ask(sight, now)

    def _ask(self, sight: facts.Looked, now: float) -> list[Command]:
        journal = self.journal
        known = max(journal.highest, journal.candidate.number, *journal.refused, 0)
        if self._hint > known and not self._back_off and journal.step in (Step.IDLE, Step.SOAK):
            self._next, self._hint = min(self._next, now + self._spread(FIRST_S)), 0
        if self._working or now < self._next:
            return []
        if sight.silent:
            return self._discard("fault", sight.silent, now) if journal.step is Step.FETCHING else []
        self._working, self._asked = True, False
        return [facts.Refresh(self._again)]

    def _prove(self, sight: facts.Looked, now: float) -> list[Command]:
        journal = self.journal
        if sight.link != journal.candidate.id:
            return self._enter(Step.SWITCHING, now, again=Step.PROVING)
        told = (sight.engine, sight.scanner)
        for standing in told:
            if standing is not None and standing.at > self._ordered and standing.refused == journal.candidate.id:
                return self._roll_back(standing.why or "An inspector refused it.", now)
        if all(_says(standing, journal.candidate.id, self._ordered) for standing in told):
            if journal.soaked_s >= self._soak_s:
                return self._activate(now)
            first = not journal.soaked_s
            commands = self._enter(Step.SOAK, now)
            if first:
                self._event("soaking")
            return [*commands, facts.Watch(journal.candidate.id)]
        if now - self._since > DEADLINES[Step.PROVING]:
            return self._roll_back(f"Not proven within {DEADLINES[Step.PROVING]:.0f} s: {_unproven(sight)}.", now)
        return []

    def _soak(self, sight: facts.Looked, now: float) -> list[Command]:
        journal = self.journal
        if sight.link != journal.candidate.id:
            return self._enter(Step.SWITCHING, now, again=Step.SOAK)
        if all(_says(standing, journal.candidate.id, 0.0) for standing in (sight.engine, sight.scanner)):
            self._fine_at = now
        if now - self._fine_at > UNPROVEN_S:
            return self._roll_back(f"No longer proven for {UNPROVEN_S:.0f} s: {_unproven(sight)}.", now)
        soaked = journal.soaked_s + now - self._turned
        if soaked >= self._soak_s or now - self._since > self._soak_s + SOAK_MORE_S:
            return self._activate(now) if self._fine_at == now else []
        if now - self._turned >= 10.0 or soaked < 10.0:
            self._turned = now
            self._change(soaked_s=soaked)
        return self._ask(sight, now) if self._fine_at == now else []

    def _relieve(self) -> None:
        """Its soak ends early for a newer set. Its new dropping rules go on reporting only."""
        journal = self.journal
        self._change(
            step=Step.IDLE, entries=0, manifest=None, candidate=Kept(), remake=False, active=journal.candidate,
            previous=journal.active if journal.active.id else journal.previous, soaked_s=0.0, unsoaked=True,
            highest=max(journal.highest, journal.candidate.number),
        )  # fmt: skip

    def _soak_again(self, now: float) -> list[Command]:
        """The newer set came to nothing."""
        self._change(manifest=self.journal.active.manifest)
        self._try_again()
        return self._enter(Step.PROVING, now)

    def _heard(self, event: facts.Heard, now: float) -> list[Command]:
        """The watch over the set on its soak, or, when that is over, over the set in force."""
        journal, verdict = self.journal, event.verdict
        idle = journal.step is Step.IDLE and not journal.unsoaked
        if not (idle or journal.step is Step.SOAK) or event.id != self._watched().id:
            return []
        if verdict.roll_back and journal.step is Step.IDLE:
            if not journal.previous.id:
                return []
            self._try_again()
        if verdict.roll_back:
            return self._roll_back(verdict.why, now)
        trial = journal.mine.on_trial if journal.step is Step.SOAK else verdict.held
        mine = Muting(sids=verdict.muted, yara=verdict.yara, on_trial=trial)
        if (mine, verdict.held) == (journal.mine, journal.held):
            return []
        self._change(mine=mine, held=verdict.held)
        self._event("muted", detail=f"loud: {verdict.why}", sids=(*verdict.muted, *verdict.held))
        return [facts.Mute(mine)]

    def _leave(self, number: int, by: str, now: float) -> list[Command]:
        """Out of force with a set that was found good here, at the word of people who know better."""
        journal = self.journal
        if journal.step is Step.SOAK and journal.candidate.number == number and journal.active.id:
            return self._roll_back(by, now)
        resting = journal.step in (Step.IDLE, Step.FETCHING)
        if not resting or journal.active.number != number or not journal.previous.id:
            return []
        commands = self._discard() if journal.step is Step.FETCHING else []
        self._try_again()
        return [*commands, *self._roll_back(by, now)]

    def _try_again(self) -> None:
        """Have the set in force be the one on its way, over the one before."""
        journal = self.journal
        self._change(
            candidate=journal.active, active=journal.previous, previous=Kept(), before=Muting(), held_before=(),
            unsoaked=False,
        )  # fmt: skip

    def _watched(self) -> Kept:
        return self.journal.candidate if self.journal.step is Step.SOAK else self.journal.active

    def _roll(self, sight: facts.Looked, now: float) -> list[Command]:
        if self._working:
            if now - self._since > DEADLINES[Step.ROLLBACK]:
                return self._enter(Step.ROLLBACK, now, again=Step.ROLLBACK)
            return []
        journal = self.journal
        if sight.link != journal.active.id:
            if now - self._turned < BACK_OFF_S[0]:
                return []
            return self._enter(Step.ROLLBACK, now, again=Step.ROLLBACK)
        if all(_says(standing, journal.active.id, self._ordered) for standing in (sight.engine, sight.scanner)):
            return self._rolled(journal.why)
        if now - self._since > DEADLINES[Step.ROLLBACK]:
            return self._rolled(f"{journal.why} The earlier set is not proven either: {_unproven(sight)}.")
        return []

    # Ends

    def _activate(self, now: float, *, news: bool = True) -> list[Command]:
        journal = self.journal
        active, before = journal.candidate, journal.active
        previous = before if before.id not in ("", active.id) else journal.previous
        mine = msgspec.structs.replace(journal.mine, on_trial=journal.held)
        self._change(
            step=Step.IDLE, entries=0, manifest=None, candidate=Kept(), remake=False, active=active, previous=previous,
            mine=mine, highest=max(journal.highest, active.number), said="", soaked_s=0.0, unsoaked=False,
        )  # fmt: skip
        self._working = False
        if news:
            self._event("active")
            self._tell = now + TELL_S
        numbers = tuple(kept.number for kept in (active, previous) if kept.number)
        return [facts.Mute(mine), facts.Watch(active.id), facts.Tidy((active.id, previous.id), numbers)]

    def _refuse(self, code: str, why: str) -> list[Command]:
        """The set never comes into force here."""
        manifest = self.journal.manifest
        number = manifest.number if manifest is not None else 0
        self._forget_candidate(number, why)
        self._say(code, why, number)
        return [facts.Discard(number)]

    def _discard(self, code: str = "", why: str = "", now: float = 0.0) -> list[Command]:
        """The attempt ends; the machine may be able to later."""
        journal = self.journal
        number = journal.manifest.number if journal.manifest is not None else 0
        commands: list[Command] = []
        if journal.step is Step.SWITCHING:
            commands = [facts.Mute(journal.before)]
            self._change(mine=journal.before, held=journal.held_before)
        self._change(step=Step.IDLE, entries=0, manifest=None, candidate=Kept(), remake=False)
        self._working = False
        if code:
            self._next = now + FAULT_S / 2 + self._spread(FAULT_S)
            self._say(code, why, number)
        return [*commands, facts.Discard(number)] if number else commands

    def _loop(self, now: float) -> list[Command]:
        why = f"The step {self.journal.step} was begun {ENTRIES_CAP} times and never ended."
        match self.journal.step:
            case Step.ROLLBACK:
                return self._rolled(f"{self.journal.why} {why}")
            case Step.SWITCHING | Step.PROVING | Step.SOAK:
                return self._roll_back(f"loop: {why}", now)
        return self._refuse("loop", why)

    def _roll_back(self, why: str, now: float) -> list[Command]:
        if not self.journal.active.id:
            self._change(active=self.journal.candidate, mine=Muting())
            return self._refuse("unproven", f"{why} There is no earlier set to go back to.")
        number = self.journal.candidate.number
        self._change(
            why=why[:400], mine=self.journal.before, held=self.journal.held_before, refused=self._refused(number, why),
        )  # fmt: skip
        return self._enter(Step.ROLLBACK, now)

    def _rolled(self, why: str) -> list[Command]:
        number = self.journal.candidate.number
        self._forget_candidate(number, why)
        self._change(why="")
        self._event("rolled_back", detail=f"{'asked' if why.startswith(OPERATOR) else 'unproven'}: {why}")
        active = self.journal.active
        return [facts.Watch(active.id), facts.Discard(number)]

    def _forget_candidate(self, number: int, why: str) -> None:
        self._change(
            step=Step.IDLE, entries=0, manifest=None, candidate=Kept(), soaked_s=0.0, remake=False,
            refused=self._refused(number, why),
        )  # fmt: skip
        self._working = False

    def _refused(self, number: int, why: str) -> dict[int, str]:
        known = {number: why[:400]} | self.journal.refused if number else self.journal.refused
        return {one: known[one] for one in sorted(known, reverse=True)[:REFUSED_CAP]}

    def _keep_out(self, why: str) -> list[Command]:
        if self.journal.step is Step.IDLE or self._working:
            return []
        return self._discard("off", why, 0.0)

    # Telling

    def _say(self, code: str, why: str, number: int) -> None:
        """Tell of a refusal, once as long as it stays the same."""
        said = f"{number} {code} {why}"[:400]
        if said != self.journal.said:
            self._change(said=said)
            self._event("refused", detail=f"{code}: {why}")

    def _event(self, state: told.State, *, detail: str = "", sids: tuple[int, ...] = ()) -> None:
        made = told.event(state, self.journal, self._sight, self._at, detail=detail, sids=sids)
        self._change(untold=(*self.journal.untold[-UNTOLD_CAP:], made))

    def spoken(self, event: Signatures) -> None:
        """It is on the disk for telemetry."""
        self._change(untold=tuple(one for one in self.journal.untold if one is not event))

    def _change(self, **fields: Any) -> None:
        self.journal = msgspec.structs.replace(self.journal, **fields)


def _says(standing: Standing | None, wanted: str, since: float) -> bool:
    """Whether an inspector says of itself that it works with `wanted`, tried after `since`."""
    return (
        standing is not None
        and standing.set_id == wanted
        and standing.proven
        and standing.at > since
        and standing.canary_at > since
    )


def _unproven(sight: facts.Looked) -> str:
    """What is amiss, for people."""
    found = []
    for name, one in (("the engine", sight.engine), ("the scanner", sight.scanner)):
        if one is None:
            found.append(f"{name} does not run")
        elif not one.proven:
            found.append(f"{name} has {one.rules} of {one.expected} rules, {one.failed} failed, canary {one.canary}")
        else:
            found.append(f"{name} works with set {one.set_id[:12]}")
    return "; ".join(found)
