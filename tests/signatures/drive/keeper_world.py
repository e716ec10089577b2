"""The keeper in a world of its own: real journal, real links and set directories; network, engines and time are played.

Every side effect has points at which the process may die: before, in the middle, after. `World.die_at` is the number
of the point, counted from the start of a run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from played_box import Inspectors, settings_of, told

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.muting import Muting
from sekisho.signatures import compiler
from sekisho.signatures.keeper import facts, journal, prove
from sekisho.signatures.keeper.effects import Effects
from sekisho.signatures.keeper.journal import Kept, Step
from sekisho.signatures.keeper.prove import kept
from sekisho.signatures.keeper.runner import Keeper
from sekisho.signatures.model import SetInfo
from sekisho.signatures.published import Manifest
from sekisho.telemetry import events

TERMINAL = ("active", "refused", "rolled_back")


class Died(BaseException):
    """kill -9."""


def manifest(number: int) -> Manifest:
    return Manifest(
        number=number, built=f"2026-11-{number:02}T00:00:00Z", sha256="0" * 64, length=1, path=f"sig/{number}.tar.zst",
        packed=1, rules=1, yara=1,
    )  # fmt: skip


def write_set(settings: Any, number: int, *, whole: bool = True) -> Kept:
    """A set directory as the compiler would leave it."""
    text = f"alert ip any any -> any any (sid:{number};)\n".encode()
    info = SetInfo(
        id=hashlib.sha256(text).hexdigest(), number=number, built=manifest(number).built, suricata_rules=1,
        yara_rules=1, built_at="", rules_sha256=hashlib.sha256(text).hexdigest(),
        yara_sha256=hashlib.sha256(b"y").hexdigest(), known_sha256=hashlib.sha256(b"").hexdigest(),
    )  # fmt: skip
    folder = settings.sets / info.id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in (("suricata.rules", text), ("yara.compiled", b"y"), ("known.bin", b"")):
        (folder / name).write_bytes(data)
    if whole:
        (folder / "set.json").write_bytes(msgspec.json.encode(info))
    return kept(info, manifest(number))


@dataclass
class World:
    """One box, from outside."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    soak_minutes: float = 0.05
    newest: int = 1
    online: bool = True
    broken: set[int] = field(default_factory=set)
    """Numbers the trial refuses."""
    trial: tuple[int, ...] = ()
    checked: bool = True
    """Whether what is in force must be whole after each turn."""
    full: bool = False
    """The disk takes nothing more."""
    now: float = 1000.0
    points: int = 0
    die_at: int = -1
    die_in: str = ""
    """Die at every point of this name instead."""
    deaths: int = 0
    visited: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = settings_of(self.root, b"{}", "https://channel.example", self.soak_minutes)
        self.inspectors = Inspectors(self.settings)
        self.first = write_set(self.settings, 1)
        compiler.switch(self.settings, self.first.id)
        self.inspectors.turn(self.now)
        journal.save(self._made(self.settings.channel) / "keeper.json", journal.Journal(active=self.first, highest=1))
        self.monkeypatch.setattr(journal, "save", self._saving(journal.save))
        self.monkeypatch.setattr(JournalWriter, "append", self._appending(JournalWriter.append))
        self.monkeypatch.setattr(prove, "waits", lambda settings, manifest, now: "")
        self.monkeypatch.setattr(compiler, "provers", lambda settings: "")
        for name in ("fsync", "fdatasync"):  # a process dies here, not the power
            self.monkeypatch.setattr(os, name, lambda fd: None)
        self.keeper: Keeper | None = None
        self.asks: Callable[[Keeper], None] = lambda _: None
        """What somebody asks of the keeper before each of its turns."""

    @staticmethod
    def _made(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def point(self, name: str) -> None:
        """The process may die here."""
        self.visited.append(name)
        self.points += 1
        if self.points - 1 == self.die_at or name == self.die_in:
            self.deaths += 1
            raise Died(name)

    def turn(self, seconds: float = 1.0) -> None:
        """One look of everybody; a daemon that died is started again. What is in force is whole at every instant."""
        self.now += seconds
        self.inspectors.turn(self.now)
        try:
            if self.keeper is None:
                self.keeper = self._born()
            self.asks(self.keeper)
            self.keeper.turn()
        except Died:
            self.keeper = None
        except DeviceFault:
            pass
        if self.checked:
            assert compiler.current(self.settings) is not None, "what is in force is not whole"

    def settle(self, most: int = 400) -> None:
        """Until the newest set has come to its end."""
        for _ in range(most):
            self.turn()
            done = {event.number if event.state == "active" else event.refused for event in self.ends()}
            if self.keeper and self.keeper.journal.step is Step.IDLE and self.newest in done:
                break
        self.turn()
        self.turn()

    def ends(self) -> list[events.Signatures]:
        return [event for event in told(self.settings) if event.state in TERMINAL]

    @property
    def in_force(self) -> int:
        info = compiler.current(self.settings)
        assert info is not None
        return info.number

    def id_of(self, number: int) -> str:
        return hashlib.sha256(f"alert ip any any -> any any (sid:{number};)\n".encode()).hexdigest()

    def _born(self) -> Keeper:
        made = Keeper(
            self.settings, _Played(self), clock=lambda: self.now, wall=self._wall, spread=lambda most: 0.0,
            threaded=False,
        )  # fmt: skip
        made.put(facts.Asked())
        return made

    def _wall(self) -> str:
        self.now += 0.000001
        return f"2026-11-21T{int(self.now) // 3600 % 24:02}:{int(self.now) // 60 % 60:02}:{self.now % 60:09.6f}Z"

    def _saving(self, real: Callable[..., None]) -> Callable[..., None]:
        def save(path: Path, found: journal.Journal) -> None:
            self.point("before saving")
            if self.full:
                raise OSError(28, "No space left on device")
            real(path, found)
            self.point("after saving")

        return save

    def _appending(self, real: Callable[..., None]) -> Callable[..., None]:
        def append(writer: JournalWriter, line: bytes, *, durable: bool = True) -> None:
            self.point("before telling")
            if self.full:
                raise DeviceFault("No space left on device.")
            try:
                self.point("while telling")
            except Died:
                with writer.path.open("ab") as out:
                    out.write(line[: len(line) // 2])
                raise
            real(writer, line, durable=durable)
            self.point("after telling")

        return append


class _Played(Effects):
    """The effects, with network and engines played and everything on the disk real."""

    def __init__(self, world: World) -> None:
        super().__init__(world.settings, lambda: False)
        self._world = world

    def refresh(self, *, again: bool) -> facts.Refreshed:
        self._world.point("before refreshing")
        if not self._world.online:
            raise PeerError("The channel's server cannot be reached.")
        self._world.point("after refreshing")
        return facts.Refreshed(manifest(self._world.newest), again=again)

    def fetch(self, manifest: Manifest) -> facts.Fetched:
        self._world.point("before fetching")
        if not self._world.online:
            raise PeerError("The download was cut.")
        self._world.point("after fetching")
        return facts.Fetched()

    def unpack(self, manifest: Manifest) -> facts.Unpacked:
        self._world.point("before unpacking")
        self._world.point("after unpacking")
        return facts.Unpacked()

    def test(self, manifest: Manifest, active: Kept) -> facts.Tested:
        self._world.point("before testing")
        if manifest.number in self._world.broken:
            raise RejectedInput("20 rules are refused by Suricata.")
        if self._world.full:
            raise DeviceFault("No space left on device.")
        try:
            self._world.point("while testing")
        except Died:
            write_set(self._world.settings, manifest.number, whole=False)
            raise
        found = write_set(self._world.settings, manifest.number)
        self._world.point("after testing")
        return facts.Tested(found, self._world.trial)

    def switch(self, wanted: str, mine: Muting) -> facts.Switched:
        self._world.point("before switching")
        self.mute(mine)
        self._world.point("while switching")
        compiler.switch(self._world.settings, wanted)
        self._world.point("after switching")
        return facts.Switched()

    def mute(self, mine: Muting) -> None:
        self._world.point("before muting")
        if self._world.full:
            raise DeviceFault("No space left on device.")
        super().mute(mine)

    def discard(self, number: int, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None:
        self._world.point("before discarding")
        super().discard(number, ids, numbers)
        self._world.point("after discarding")

    def tidy(self, ids: tuple[str, ...], numbers: tuple[int, ...]) -> None:
        self._world.point("before tidying")
        super().tidy(ids, numbers)
        self._world.point("after tidying")
