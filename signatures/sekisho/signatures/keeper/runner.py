"""Joins the machine to its journal and its effects: saves before it acts, acts, brings the outcome back as an event.

Two threads: the caller's, in which `turn` looks once a second and everything quick is done, and one for what takes
long (network, engines). Only the first touches the machine.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core import fired, muting, standing, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.writeahead import WriteAhead, unimportant
from sekisho.signatures import compiler, soak
from sekisho.signatures.keeper import facts, journal, news, prove
from sekisho.signatures.keeper.journal import Journal, Kept, Step
from sekisho.signatures.keeper.machine import Machine
from sekisho.signatures.keeper.watch import Watch
from sekisho.signatures.published import Manifest
from sekisho.telemetry import events

LOOK_S: Final = 1.0
JUDGE_S: Final = 10.0
LINK_S: Final = 5.0
"""`current` is looked at this often for a change by somebody else."""

log = logging.getLogger(__name__)


class Newest(msgspec.Struct, frozen=True):
    """`fleet/newest.json`: written by telemetry from the centre's signed word."""

    number: int


class Work(Protocol):
    """What `effects.Effects` does on the real box."""

    def refresh(self, *, again: bool) -> facts.Refreshed: ...

    def fetch(self, manifest: Manifest) -> facts.Fetched: ...

    def unpack(self, manifest: Manifest) -> facts.Unpacked: ...

    def test(self, manifest: Manifest, active: Kept) -> facts.Tested: ...

    def switch(self, wanted: str, mine: muting.Muting) -> facts.Switched: ...

    def mute(self, mine: muting.Muting) -> None: ...

    def discard(self, number: int, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None: ...

    def tidy(self, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None: ...


class Keeper:
    """The box's published set, kept. `clock` is monotonic, `wall` says the UTC."""

    def __init__(
        self,
        settings: Settings,
        work: Work,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], str] = utc.now,
        spread: Callable[[float], float] = lambda most: random.uniform(0, most),  # noqa: S311 - no secret
        threaded: bool = True,
    ) -> None:
        """Take up where the last one ended; nothing is fetched yet.

        Raises:
            DeviceFault: the disk refuses the journal.

        """
        self._settings, self._work = settings, work
        self._clock, self._wall, self._threaded = clock, wall, threaded
        path = settings.channel / "keeper.json"
        try:
            settings.channel.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as err:
            raise DeviceFault(f"{settings.channel}: {err.strerror}.") from err
        self.machine = Machine(journal.load(path), settings.signatures.soak_minutes * 60, spread)
        self._writer = JournalWriter(settings.journals / "signatures.jsonl")
        self._outcomes: queue.SimpleQueue[facts.Event] = queue.SimpleQueue()
        self._ahead = WriteAhead[facts.Command](
            self.machine, path, journal.save, self._writer, self._carry_out,
            decode=events.decode, urgent=lambda: self.journal.step is Step.ROLLBACK,
        )  # fmt: skip
        self._watch = Watch()
        self._judged = self._linked = clock()
        self.waits = ""
        """Why the set on its way is not tried now."""
        self.last = ""
        """What became of the last refresh, for people."""
        self._handle(facts.Started(self._in_force(), outdated=self._outdated()))

    @property
    def journal(self) -> Journal:
        return self.machine.journal

    def put(self, event: facts.Event) -> None:
        """From any thread: what happened elsewhere."""
        self._outcomes.put(event)

    def turn(self, wait_s: float = 0.0) -> None:
        """Everything that is due now, after waiting at most `wait_s` for something to happen.

        Raises:
            DeviceFault: the journal cannot be written. Nothing is begun until it can.

        """
        self._ahead.settle()
        with suppress(queue.Empty):
            self._handle(self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait())
            while True:
                self._handle(self._outcomes.get_nowait())
        now = self._clock()
        sight = self._look()
        self.waits = sight.wait
        relink = self.journal.step is Step.IDLE and sight.link != self.journal.active.id
        if relink and not self.machine.working and now - self._linked >= LINK_S:
            self._linked = now
            self._handle(facts.Relinked(self._in_force()))
        if now - self._judged >= JUDGE_S and self.journal.step in (Step.IDLE, Step.SOAK):
            self._judged = now
            self._listen(now, sight)
        self._handle(sight)

    def close(self) -> None:
        self._writer.close()

    # Seeing

    def _look(self) -> facts.Looked:
        settings, waiting, now = self._settings, "", self._clock()
        if self.journal.step is Step.STAGED and self.journal.manifest is not None:
            waiting = prove.waits(settings, self.journal.manifest, now)
        return facts.Looked(
            link=_link(settings),
            engine=standing.try_read(settings, "engine", now),
            scanner=standing.try_read(settings, "scanner", now),
            wait=waiting,
            hint=self._hint(),
            off="The owner's own rules are in force." if compiler.owners(settings) else "",
            silent="" if settings.signatures.channel else "No channel is configured.",
        )

    def _hint(self) -> int:
        with suppress(OSError, msgspec.MsgspecError):
            data = (self._settings.fleet / "newest.json").read_bytes()
            return msgspec.json.decode(data[:4096], type=Newest).number
        return 0

    def _in_force(self) -> Kept:
        info = compiler.current(self._settings)
        known = (self.journal.candidate, self.journal.active, self.journal.previous)
        manifest = next((kept.manifest for kept in known if info is not None and kept.id == info.id), None)
        return prove.kept(info, manifest)

    def _outdated(self) -> bool:
        """Whether the set in force was proven for other settings or by another engine."""
        info = compiler.current(self._settings)
        try:
            return info is not None and bool(info.number) and info.provers != compiler.provers(self._settings)
        except DeviceFault as err:
            log.error("%s", err)
            return False

    def _listen(self, now: float, sight: facts.Looked) -> None:
        """Ask the watch about the set it is over."""
        found = self.journal
        verdict = self._watch.hear(now, fired.try_read(self._settings), sight.engine, found.mine, found.held)
        self._handle(facts.Heard(self._watch.heading.id, verdict))

    # Acting

    def _handle(self, event: facts.Event) -> None:
        if isinstance(event, facts.Failed):
            log.log(logging.INFO if event.kind == "peer" else logging.WARNING, "%s: %s", event.step, event.why)
        commands = self.machine.handle(event, self._clock(), self._wall())
        if isinstance(event, facts.Refreshed):
            self.last = f"The newest set is {event.manifest.number}."
        elif isinstance(event, facts.Failed):
            self.last = event.why
        self._ahead.take(commands)

    def _carry_out(self, command: facts.Command) -> None:
        found, step = self.journal, self.journal.step
        match command:
            case facts.Refresh(again):
                self._begin(Step.IDLE, lambda: self._work.refresh(again=again))
            case facts.Fetch(manifest):
                self._begin(step, lambda: self._work.fetch(manifest))
            case facts.Unpack(manifest):
                self._begin(step, lambda: self._work.unpack(manifest))
            case facts.Test(manifest):
                # What is new is new against the last set that was watched to the end.
                before = found.previous if found.unsoaked and found.previous.id else found.active
                self._begin(step, lambda: self._work.test(manifest, before))
            case facts.Switch(wanted, mine):
                self._watch.note(self._clock(), fired.try_read(self._settings))
                self._now(step, lambda: self._work.switch(wanted, mine))
            case facts.Mute(mine):
                with unimportant():
                    self._work.mute(mine)
            case facts.Watch(wanted):
                heading = news.load(self._settings.channel / "news.json", wanted)
                now = self._clock()
                until = now + self._settings.signatures.soak_minutes * 60 + soak.WINDOW_S
                self._watch.begin(heading, standing.try_read(self._settings, "engine", now), until)
            case facts.Discard(number):
                with unimportant():
                    self._work.discard(number, *_kept(found))
            case facts.Tidy():
                with unimportant():
                    self._work.tidy(*_kept(found))

    def _begin(self, step: Step, work: Callable[[], facts.Event]) -> None:
        if self._threaded:
            threading.Thread(target=self._now, args=(step, work), name=str(step), daemon=True).start()
        else:
            self._now(step, work)

    def _now(self, step: Step, work: Callable[[], facts.Event]) -> None:
        try:
            self.put(work())
        except RejectedInput as err:
            self.put(facts.Failed(step, "refused", str(err)))
        except PeerError as err:
            self.put(facts.Failed(step, "peer", str(err)))
        except (SekishoError, OSError) as err:
            self.put(facts.Failed(step, "fault", str(err)))
        except Exception as err:  # the boundary: what a hostile set makes a library raise refuses the set
            log.exception("%s failed", step)
            self.put(facts.Failed(step, "refused", f"{type(err).__name__}: {err}"))


def _kept(found: Journal) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Ids and numbers of what is to stay on the disk."""
    kept = [one for one in (found.active, found.previous, found.candidate) if one.id]
    return tuple(one.id for one in kept), tuple(one.number for one in kept if one.number)


def _link(settings: Settings) -> str:
    try:
        return (settings.sets / "current").readlink().name
    except OSError:
        return ""
