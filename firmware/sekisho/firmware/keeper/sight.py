"""What the machine is shown once a second: the time as well as known, the customer's settings, the gates on trial."""

from __future__ import annotations

import time
from collections.abc import Callable

from sekisho.appliance.core.settings import Settings
from sekisho.firmware.gates import judge
from sekisho.firmware.gates.eyes import Eyes
from sekisho.firmware.keeper import windows
from sekisho.firmware.keeper.desk import AHEAD_S
from sekisho.firmware.keeper.facts import Chosen, Event, Looked, Postponed
from sekisho.firmware.keeper.journal import Attempt, Choice, Journal, State
from sekisho.firmware.keeper.ordered import Ordered
from sekisho.policy.overlay import Restart


class Sight:
    """One box's. `eyes` are used by the thread that asks for `look` alone."""

    def __init__(self, settings: Settings, eyes: Eyes, wall: Callable[[], float] = time.time) -> None:
        self._eyes = eyes
        self._ordered = Ordered(settings, wall)

    def wall(self) -> float:
        """Unix seconds, as well as known."""
        return self._ordered.now()[0]

    def weekly(self) -> tuple[Restart | None, str]:
        """The customer's weekly window and its zone."""
        wanted = self._ordered.orders()
        return wanted.restart, wanted.zone

    def look(self, attempt: Attempt | None) -> Looked:
        """What is so now; the gates only while a release is on trial."""
        wanted = self._ordered.orders()
        wall, sure = self._ordered.now()
        failing: tuple[str, ...] = ()
        forwarding = False
        if attempt is not None and attempt.state is State.TRIAL and attempt.baseline is not None:
            seen = self._eyes.look()
            failing = judge.failing(attempt.baseline, seen)
            forwarding = seen.engine_canary and seen.lan and seen.wan and "no" not in (seen.out, seen.back)
        sure = sure and (attempt is None or wall >= attempt.began)
        return Looked(
            wall=wall, sure=sure, restart=wanted.restart, zone=wanted.zone, asap=wanted.firmware_asap,
            failing=failing, forwarding=forwarding,
        )  # fmt: skip

    def chosen(self, journal: Journal, now: float) -> Event | None:
        """The customer's word that came by the centre, once, for the release it names."""
        said, attempt = self._ordered.orders().firmware, journal.attempt
        if said is None or attempt is None or said.counter != attempt.counter or said.serial <= journal.heard:
            return None
        earlier = attempt.choice is not None and attempt.choice.by == "portal"
        if said.until and now > said.until and not earlier:
            return None  # who hears of it now does nothing and asks again, but not at an hour chosen before
        match said.when:
            case "later":
                return Postponed(said.counter, min(float(said.since), now + AHEAD_S), "portal", serial=said.serial)
            case "window":
                return Chosen(said.counter, Choice(by="portal", until=0.0, window=True), serial=said.serial)
            case _:
                until = float(said.until) if said.until else said.since + windows.MISSED_S
                choice = Choice(by="portal", at=float(said.since), until=until)
                return Chosen(said.counter, choice, serial=said.serial)
