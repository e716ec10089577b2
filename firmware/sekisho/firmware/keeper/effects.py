"""Carries out the machine's commands on the real box: the channel, the disk, root's errands. Each may be repeated."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.firmware import wishes
from sekisho.firmware.gates.eyes import Eyes
from sekisho.firmware.keeper import facts, here
from sekisho.firmware.keeper.journal import LOADING, Attempt, Place
from sekisho.firmware.keeper.runner import OverBudget
from sekisho.firmware.published import Release

STAGE_S: Final = 3600.0
SWITCH_S: Final = 1500.0
MARK_S: Final = 120.0
REPORTS: Final = 10
"""Black boxes that are kept."""


class Channel(Protocol):
    """`firmware.source.Source`."""

    def refresh(self) -> Release: ...

    def fetch(
        self,
        release: Release,
        progress: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        max_bytes: int,
    ) -> Path: ...

    def discard(self, needed: Callable[[], str]) -> None: ...


Asking = Callable[[str, wishes.Wish, float], wishes.Outcome]
"""A number, a wish, and seconds to wait."""


class Effects:
    """`ask` is root's errand (`wishes.ask`); `cancelled` says whether the download is wanted no more; `on_its_way`
    gives the attempt there is by now.
    """

    def __init__(
        self,
        settings: Settings,
        channel: Channel,
        eyes: Eyes,
        ask: Asking,
        cancelled: Callable[[], bool],
        on_its_way: Callable[[], Attempt | None],
    ) -> None:
        self._settings, self._channel, self._eyes = settings, channel, eyes
        self._ask, self._cancelled, self._on_its_way = ask, cancelled, on_its_way
        self.progress = (0, 0)
        """Bytes of the bundle that are here, and all of them."""

    def refresh(self) -> facts.Found:
        return facts.Found(self._channel.refresh())

    def fetch(self, release: Release, max_bytes: int) -> facts.Fetched:
        def progress(here_now: int, all_of_it: int) -> None:
            self.progress = (here_now, all_of_it)

        def unwanted() -> bool:
            attempt = self._on_its_way()
            return self._cancelled() or (attempt is not None and attempt.release != release)

        if max_bytes and release.length > max_bytes:
            raise OverBudget(
                f"Release {release.counter} has {release.length} bytes; the job allows {max_bytes}.",
                "Take it from a USB stick, or allow more.",
            )
        self._channel.fetch(release, progress, unwanted, max_bytes)
        return facts.Fetched()

    def install(self, release: Release) -> facts.Installed:
        if release.tier == 1:
            told = self._ask(self._number("stage", release.counter), wishes.Stage(release.name), STAGE_S)
            placed = Place(release=told.said, slot=here.running(self._settings).place.slot)
        else:
            told = self._ask(self._number("install", release.counter), wishes.Install(release.name), STAGE_S)
            placed = Place(slot=told.said)
        return facts.Installed(placed)

    def measure(self) -> facts.Measured:
        return facts.Measured(self._eyes.watch())

    def switch(self, to: Place, number: int) -> facts.Switched:
        # Should this daemon end meanwhile, its successor asks for the same, and hears what became of it.
        told = self._ask(f"switch-{number}-{to.release or 'system'}", wishes.Switch(to.release), SWITCH_S)
        return facts.Switched(told.took_s)

    def mark_next(self, place: Place) -> facts.Marked:
        self._ask(self._number("mark", 0), wishes.Mark("other"), MARK_S)
        return facts.Marked()

    def start_anew(self) -> None:
        self._ask(self._number("anew", 0), wishes.Anew(), MARK_S)

    def keep(self, attempt: Attempt, number: int) -> facts.Kept:
        if attempt.tier > 1:
            self._ask(self._number("keep", attempt.counter), wishes.Mark("good"), MARK_S)
        elif Path(self._settings.firmware.link).is_symlink():
            # Here the daemon is renewed: its successor asks for the same.
            self._ask(f"settle-{number}-{attempt.place.release or 'system'}", wishes.Settle(), SWITCH_S)
        return facts.Kept()

    def go_back(self, attempt: Attempt) -> facts.WentBack:
        running = here.running(self._settings).place
        if attempt.tier == 1:
            # Whatever the link names: a daemon may run the other one still. No link, and nothing was ever switched.
            if Path(self._settings.firmware.link).is_symlink():
                wish = wishes.Switch(attempt.before.release, back=True)
                self._ask(self._number("back", attempt.counter), wish, SWITCH_S)
            return facts.WentBack()
        away = running.slot != attempt.before.slot
        self._ask(self._number("unmark", 0), wishes.Mark("other" if away else "booted"), MARK_S)
        if away:
            self.start_anew()
        return facts.WentBack(restart=away)

    def report(self, number: int, attempt: Attempt) -> None:
        """The black box: why it went back, with what was seen before and each step's time."""
        folder = self._settings.firmware_state / "reports"
        seen = {"attempt": attempt, "now": self._eyes.look(), "running": here.running(self._settings)}
        try:
            folder.mkdir(mode=0o750, exist_ok=True)
            write_atomic(folder / f"{number:06d}.json", msgspec.json.encode(seen), 0o640)
            for old in sorted(folder.glob("*.json"))[:-REPORTS]:
                old.unlink(missing_ok=True)
        except OSError as err:
            raise DeviceFault(f"Cannot write into {folder}: {err.strerror}.") from err

    def discard(self, counter: int, keep: tuple[Place, ...]) -> None:
        # Who said so may have waited behind a download or an errand: what is on its way by now is spared too.
        self._channel.discard(self._needed)
        names = {place.release for place in keep}
        if (attempt := self._on_its_way()) is not None:
            names |= {attempt.place.release, attempt.release.name if attempt.release is not None else ""}
        if {path.name for path in Path(self._settings.firmware.releases).glob("*-*")} - names:
            self._ask(self._number("remove", counter), wishes.Remove(tuple(sorted(names - {""}))), MARK_S)

    def _needed(self) -> str:
        """SHA-256 of the bundle that is being fetched or installed."""
        attempt = self._on_its_way()
        if attempt is None or attempt.release is None or attempt.state not in LOADING:
            return ""
        return attempt.release.sha256

    def _number(self, what: str, counter: int) -> str:
        """A wish of its own: done again, it does no harm."""
        return f"{what}-{counter}-{secrets.token_hex(6)}"
