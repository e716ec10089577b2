"""A machine with two slots or a link, a boot loader, a channel, and a keeper that may die at any point of any step.

Everything the keeper does passes `World.point`: there it can be told to die, by a killed daemon or a loss of power.
What survives is what a real machine keeps: the journals, the link, the slots and the boot loader's memory. The two
journals are kept in memory here, for thousands of lives; what the disk does to them is tested with `core.fsio`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sekisho.appliance.core import writeahead
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.settings import Firmware, Paths, Settings
from sekisho.firmware import published
from sekisho.firmware.keeper import facts, journal, runner
from sekisho.firmware.keeper.journal import ENDS, Attempt, Choice, Journal, Place, Running, Seen, State
from sekisho.firmware.keeper.runner import Keeper
from sekisho.telemetry import events

NOON = 1_790_000_000.0
FINE = Seen(lan=True, wan=True, out="yes", back="yes", rules=100, engine_canary=True, scanner_canary=True, spool=7)


class Death(BaseException):
    """The process is gone at this instant."""


def release(counter: int, tier: int = 1, **changes: Any) -> published.Release:
    made = {
        "counter": counter, "version": f"1.{counter}.0", "hardware": "amd64", "tier": tier, "length": 10,
        "built": "2026-11-01T00:00:00Z", "path": f"fw/amd64/{counter}.tar.zst", "sha256": "0" * 64,
        "blocks": ["0" * 64], "unpacked": 100,
    }  # fmt: skip
    return published.Release(**{**made, **changes})


class World:
    """The machine. `die_at`: number of the point at which it dies; `power`: it is the machine that goes off."""

    def __init__(
        self, patch: pytest.MonkeyPatch, *, tier: int = 1, die_at: int = -1, power: bool = False, for_ever: bool = False
    ) -> None:
        root = Path("/nonexistent")
        self.tier = tier
        self.file, self.lines = b"{}", list[bytes]()
        patch.setattr(journal, "load", lambda _: self.journal)
        patch.setattr(journal, "save", self.save)
        patch.setattr(runner, "JournalWriter", lambda _: self)
        patch.setattr(writeahead, "newest_lines", lambda _: list(self.lines))
        patch.setattr(Path, "mkdir", lambda *_, **__: None)
        self.path = root
        self.settings = Settings(
            box="box-1", paths=Paths(run=str(root / "run"), state=str(root / "state")),
            firmware=Firmware(trial_s=6, steady_s=2),
        )  # fmt: skip
        self.die_at, self.power, self.for_ever = die_at, power, for_ever
        self.points, self.deaths, self.visited = 0, 0, list[str]()
        self.now, self.wall = 1000.0, NOON
        self.offered = release(7, tier)
        # What survives the power
        self.link, self.slot = "", "A" if tier > 1 else ""
        self.slots: dict[str, str] = {"A": "system 6", "B": ""} if tier > 1 else {}
        self.former: str | None = None
        """While a release has not proved itself: what a start of the machine goes back to."""
        self.next_slot, self.tries, self.confirmed = "A", 3, {"A"}
        self.staged: set[str] = set()
        self.here: set[str] = set()
        """Bundles that were downloaded."""
        self.boots = 1
        self.reason: facts.Boot = "same"
        self.ends_by: facts.Boot = "power_loss"
        self.counters = {"": 6}
        # How the new release behaves
        self.tried = False
        """The machine was started from the new system, or tried to."""
        self.sick, self.dead = False, False
        """Sick: it comes up and a gate fails; dead: it does not come up at all."""
        self.gave_up, self.gave_up_in, self.verdict = "", "", "attempts"
        self.given_up, self.unkept = facts.GivenUp(), ""
        """What root's check of a system says, what root says of a release that it left, and why it lets none stay."""
        self.refuses, self.silent = "", False
        self.budgets_out = False
        self.done: Counter[str] = Counter()
        self.kept: list[str] = []
        self.reports: list[int] = []
        self.activations: list[Choice | None] = []
        self.keeper: Keeper | None = None
        self.restart = False

    # Dying

    def point(self, name: str) -> None:
        here, self.points = self.points, self.points + 1
        state = self.keeper.journal.attempt.state if self.keeper and self.keeper.journal.attempt else "-"
        self.visited.append(f"{state}/{name}")
        hit = self.visited[-1] == self.cursed if self.for_ever and self.deaths else here == self.die_at
        if hit and self.deaths < 45:
            self.cursed = self.visited[-1]
            self.deaths += 1
            raise Death

    cursed = ""

    # Running

    def start(self) -> None:
        self.keeper = None
        running = Running(counter=self.counters.get(self.where(), 6), version="", tier=self.tier, place=self.place())
        started = facts.Started(
            running=running, boot=f"boot {self.boots}", reason=self.reason, gave_up=self.gave_up,
            gave_up_in=self.gave_up_in, given_up=self.given_up,
        )  # fmt: skip
        made = Keeper(
            self.settings, self, self.look, started,
            clock=lambda: self.now, wall=lambda: self.wall, spread=lambda most: most / 2, threaded=False,
        )  # fmt: skip
        self.reason = "same"
        self.keeper = made

    def where(self) -> str:
        return self.slots[self.slot].removeprefix("system ") if self.tier > 1 else self.link

    def place(self) -> Place:
        return Place(release=self.link, slot=self.slot)

    def boot(self, reason: facts.Boot) -> None:
        """The boot loader's part: the chosen slot while it has tries left, else the confirmed one."""
        self.boots, self.reason, self.restart = self.boots + 1, reason, False
        if self.tier == 1:
            if self.former is not None:
                self.link, self.former = self.former, None
            return
        if self.next_slot in self.confirmed:
            self.slot = self.next_slot
            return
        self.slot, self.tried = self.next_slot, True
        self.gave_up = self.gave_up_in = ""
        self.tries -= 1
        while self.dead and self.tries > 0:
            self.tries -= 1
        if self.dead or self.tries < 0:
            self.next_slot = self.slot = next(iter(self.confirmed))
            self.gave_up, self.gave_up_in = self.verdict, f"boot {self.boots}"

    def step(self) -> None:
        """One second of the box's life, through deaths."""
        self.now += 1
        self.wall += 1
        try:
            if self.keeper is None:
                self.start()
            assert self.keeper is not None
            self.point("turn")
            self.keeper.turn()
        except Death:
            if self.keeper is not None:
                self.keeper.close()
            self.keeper = None
            if self.power:
                self.boot(self.ends_by)
            return
        if self.restart:
            self.keeper.close()
            self.keeper = None
            self.boot("ordered")

    def until(self, wanted: Any, steps: int = 4000) -> None:
        for _ in range(steps):
            self.step()
            if self.keeper is not None and not self.keeper.machine.journal.untold and wanted(self.keeper.journal):
                return
        raise AssertionError(f"never: {self.visited[-12:]}, {self.journal}")

    @property
    def journal(self) -> Journal:
        return msgspec.json.decode(self.file, type=Journal)

    def save(self, path: Path, what: Journal) -> None:
        self.point("before save")
        self.file = msgspec.json.encode(what)
        self.point("after save")

    def append(self, line: bytes) -> None:
        self.point("before telling")
        self.lines.append(line)
        self.point("after telling")

    def close(self) -> None:
        pass

    def put(self, event: facts.Event) -> None:
        while self.keeper is None:
            self.step()
        self.keeper.put(event)

    def look(self, attempt: Attempt | None) -> facts.Looked:
        return facts.Looked(
            wall=self.wall, failing=("forward_out",) if self.sick and self.new() else (), forwarding=True
        )

    def new(self) -> bool:
        return self.slot == "B" if self.tier > 1 else bool(self.link)

    def told(self) -> list[events.Firmware]:
        told = [events.decode(line) for line in self.lines]
        return [event for event in told if isinstance(event, events.Firmware)]

    def ends(self) -> list[str]:
        return [event.state for event in self.told() if event.state in {str(end) for end in ENDS}]

    # Work: each is one thing that happens, with a point before, in the middle and after it

    def _do(self, name: str, half: Any = None, whole: Any = None) -> None:
        self.point(f"before {name}")
        if half is not None:
            half()
        self.point(f"in {name}")
        if whole is not None:
            whole()
        self.done[name] += 1
        self.point(f"after {name}")

    def refresh(self) -> facts.Found:
        self._do("refresh")
        return facts.Found(self.offered)

    def fetch(self, release: published.Release, max_bytes: int) -> facts.Fetched:
        self._do("fetch")
        if self.silent:
            raise PeerError("nobody answers")
        self.here = {release.path}
        return facts.Fetched()

    def install(self, release: published.Release) -> facts.Installed:
        if self.refuses:
            raise RejectedInput(self.refuses)
        name = f"{release.counter}-aa"
        if name not in self.staged and release.path not in self.here:
            raise DeviceFault("The bundle is not on this box.", "It is fetched again.")
        if self.tier > 1:

            def half() -> None:
                assert self.slot != "B", "the slot in use is never written"
                self.slots["B"] = "torn"
                self.confirmed.discard("B")

            self._do("install", half, lambda: self.slots.update(B=f"system {release.counter}"))
            self.counters[str(release.counter)] = release.counter
            return facts.Installed(Place(slot="B"))
        self._do("install", None, lambda: self.staged.add(name))
        self.counters[name] = release.counter
        return facts.Installed(Place(release=name))

    def measure(self) -> facts.Measured:
        self._do("measure")
        return facts.Measured(FINE)

    def switch(self, to: Place, counter: int) -> facts.Switched:
        self._note()
        assert not to.release or to.release in self.staged, "only what is whole is switched to"

        def half() -> None:
            self.former = self.link if self.link != to.release else self.former

        self._do("switch", half, lambda: setattr(self, "link", to.release))
        if self.dead and to.release:
            self.link, self.former = "", None
            raise DeviceFault("It did not become healthy, and was taken back.", "")
        return facts.Switched(0.0)

    def mark_next(self, place: Place) -> facts.Marked:
        self._note()
        assert self.slots["B"].startswith("system "), "only what is whole is activated"

        def whole() -> None:
            self.next_slot, self.tries = "B", 3

        self._do("mark", None, whole)
        return facts.Marked()

    def start_anew(self) -> None:
        self._do("restart", None, lambda: setattr(self, "restart", True))

    def keep(self, attempt: Attempt, number: int) -> facts.Kept:
        if self.unkept:
            raise RejectedInput(self.unkept)
        if self.tier > 1:
            assert self.slot == "B", "only what runs is kept"
            self._do("keep", None, lambda: setattr(self, "confirmed", {"B"}))
        else:
            self._do("keep", None, lambda: setattr(self, "former", None))
        return facts.Kept()

    def go_back(self, attempt: Attempt) -> facts.WentBack:
        def whole() -> None:
            if self.tier > 1:
                self.next_slot = attempt.before.slot
                self.restart = self.slot != attempt.before.slot
            else:
                self.link, self.former = attempt.before.release, None

        self._do("go back", None, whole)
        return facts.WentBack(restart=self.restart)

    def report(self, number: int, attempt: Attempt) -> None:
        self._do("report", None, lambda: self.reports.append(number))

    def discard(self, counter: int, keep: tuple[Place, ...]) -> None:
        def whole() -> None:
            self.here.clear()
            self.staged.intersection_update({place.release for place in keep} | {self.link})

        self._do("discard", None, whole)

    def _note(self) -> None:
        saved = self.journal.attempt
        assert saved is not None and saved.state is State.ACTIVATING, "what is begun was journaled before"
        self.activations.append(saved.choice)
