"""Looks every few seconds whether the engine still works with its rules, says so (core.standing), and has it repaired.

An engine can lose its rules without a word: somebody's signal makes it read a file that is gone, and it goes on with
none. So its counts are asked and a canary is flown, all the time. What is wrong beyond doubt (counts) is repaired at
once; a canary that got through is tried again first, and says nothing where packets are led around the engine, its
queue is full, or no process holds it: those have their own watch (watchdog.py). Nor is an engine that never caught one
loaded or started anew for that: something else on the box takes them, and a restart costs the office its inspection, or
its internet. It is said all the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from sekisho.appliance import control
from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.core import standing, utc
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.core.standing import Standing
from sekisho.appliance.engine import Engine
from sekisho.appliance.proof import Proof
from sekisho.appliance.turning import Turning
from sekisho.telemetry.events import Event, Signatures

EVERY_S: Final = 2.0
CHANGE_S: Final = 0.2
"""How often is looked whether something changed, and, after a miss, again."""
MISSES: Final = 4
"""Canaries that get through one after the other before the engine is blamed."""
COUNTERS_S: Final = 8.0
"""The engine itself sums its counters this often."""
REPAIR_S: Final = (0.0, 15.0, 60.0, 600.0)
"""Between one repair and the next, the last for ever."""
TOLD_S: Final = (60.0, 600.0)

log = logging.getLogger(__name__)


@dataclass
class _BackOff:
    """When a repair may be asked for again."""

    asked: int = 0
    next_at: float = 0.0

    def due(self, now: float) -> bool:
        if now < self.next_at:
            return False
        self.asked += 1
        self.next_at = now + REPAIR_S[min(self.asked, len(REPAIR_S) - 1)]
        return True


class Watch:
    """One engine's."""

    def __init__(
        self, settings: Settings, engine: Engine, report: Callable[[Event], None], excused: Callable[[], bool]
    ) -> None:
        """`excused`: whether packets do not reach the engine now for a reason that others see to."""
        self._settings = settings
        self._engine = engine
        self._report = report
        self._excused = excused
        self._account = Account()
        self._standing = Standing(at=0.0)
        self._good_at = time.monotonic()
        self._misses = 0
        self._silent_since: float | None = None
        self._told = 0.0
        self._for_counts = _BackOff()
        """Begins anew with every silence: lost rules are given back at once, however often."""
        self._for_canaries = _BackOff()
        """Goes on from one silence to the next: a busy machine must not be kept busy with repairs."""
        self._unanswered: Turning | None = None
        """Since the engine does not say what it has."""
        self._for_answers = _BackOff()
        self._catcher = 0
        """The engine that has caught a canary."""
        self._counters_at = 0.0
        self._pid = 0
        self._base = (0, 0)
        self._passed = self._stopped = 0

    def run(self, stop: threading.Event) -> None:
        """Look until `stop`."""
        looked = 0.0
        while not stop.wait(CHANGE_S):
            account, now = self._engine.account, time.monotonic()
            if account is not self._account or self._misses or now - looked >= EVERY_S:
                looked = now
                self.look(account)
        self._write(Standing(at=time.monotonic(), loads=self._engine.account.loads))

    def look(self, account: Account) -> None:
        """One look at what `account` says should be so."""
        self._account = account
        if account.load is None:
            self._misses = 0
            self._say(account, None)
        elif account.changing:
            self._say(account, None, keep=True)
        else:
            proof = self._engine.prover.look(account.load)
            if self._engine.account is account:
                self._count(self._engine.state)
                self._say(account, proof)  # first: what is told carries what is said
                self._judge(account, proof)

    def _judge(self, account: Account, proof: Proof) -> None:
        load = account.load
        if load is None:
            return
        now = time.monotonic()
        self._asked_in_vain(now, proof)
        if proof.loaded >= 0 and not proof.counts(load):
            self._silent(now, f"rules: {proof.loaded} of {load.expected} are loaded, {proof.failed} failed.")
            if self._for_counts.due(now):
                self._engine.request_repair()
        elif proof.canary == "missed" and not self._excused():
            self._misses += 1
            if self._misses >= MISSES:
                self._silent(now, "canary: a packet that the rules must stop got through the engine.")
                if self._catcher == self._engine.state.pid and self._for_canaries.due(now):
                    self._engine.request_repair()
        else:
            self._misses = 0
            if proof.whole(load):
                self._catcher = self._engine.state.pid
                self._well(now)

    def _asked_in_vain(self, now: float, proof: Proof) -> None:
        """An engine that loads does not answer, and one that hangs over somebody's load never will."""
        if proof.loaded >= 0:
            self._unanswered, self._for_answers = None, _BackOff()
            return
        if self._unanswered is None:
            self._unanswered = self._engine.turning()
        elif self._unanswered.lost() and self._for_answers.due(now):
            log.error("the engine takes no orders: it does not come to load rules that somebody told it to load")
            self._engine.request_repair()

    def _silent(self, now: float, detail: str) -> None:
        if self._silent_since is None:
            self._silent_since, self._told, self._for_counts = self._good_at, 0.0, _BackOff()
            log.error("the engine is silent: %s", detail)
            self._tell("silent", now, detail)
        seconds = now - self._silent_since
        if reached := [mark for mark in TOLD_S if self._told < mark <= seconds]:
            self._told = reached[-1]
            self._tell("silent", now, detail)

    def _well(self, now: float) -> None:
        if self._silent_since is not None:
            log.warning("the engine has its rules again")
            self._tell("repaired", now, "proven: its rules are counted and its canaries caught again.")
            self._silent_since = None
        if now > self._for_canaries.next_at + REPAIR_S[-1]:
            self._for_canaries = _BackOff()
        self._good_at = now

    def _tell(self, state: str, now: float, detail: str) -> None:
        found, load = self._standing, self._account.load
        self._report(
            Signatures(
                at=utc.now(),
                state="silent" if state == "silent" else "repaired",
                set=load.set_id[:16] if load else "",
                rules=found.rules,
                failed=found.failed,
                seconds=round(now - (self._silent_since or now), 1),
                detail=detail,
            )
        )

    def _count(self, state: EngineState) -> None:
        """The engine's own packet counters, without the canaries; of an engine we found running, since then."""
        now = time.monotonic()
        if state.pid == self._pid and now - self._counters_at < COUNTERS_S:
            return
        self._counters_at = now
        try:
            ips = control.ask(self._settings.control_socket, "dump-counters").message["ips"]
            counted = int(ips["accepted"]), int(ips["blocked"])
        except (PeerError, KeyError, TypeError, ValueError) as err:
            log.debug("no counters: %s", err)
            return
        own = self._engine.prover.sent
        if state.pid != self._pid:
            self._pid, self._passed, self._stopped = state.pid, 0, 0
            launched = self._engine.sent_before
            self._base = (-launched, -launched) if launched is not None else (counted[0] - own, counted[1] - own)
        self._passed = max(self._passed, counted[0] - self._base[0] - own)
        self._stopped = max(self._stopped, counted[1] - self._base[1] - own)

    def _say(self, account: Account, proof: Proof | None, *, keep: bool = False) -> None:
        load, last = account.load, self._standing
        if proof is None or load is None:
            found = last if keep else Standing(at=0.0)
        else:
            flown = proof.canary != "untried"
            rules, failed = (proof.loaded, proof.failed) if proof.loaded >= 0 else (last.rules + load.own, last.failed)
            found = Standing(
                at=0.0,
                set_id=load.set_id,
                rules=max(0, rules - load.own),
                expected=load.rules,
                failed=failed,
                canary=proof.canary,
                canary_at=proof.at if flown else last.canary_at,
                muted=load.muted,
                soaking=load.soaking,
                accepted=self._passed,
                blocked=self._stopped,
            )
        self._engine.state.canary = found.canary
        self._write(found, account)

    def _write(self, found: Standing, account: Account | None = None) -> None:
        if account is not None:
            found = msgspec.structs.replace(
                found, at=time.monotonic(), loads=account.loads, refused=account.refused, why=account.why
            )
        self._standing = found
        try:
            standing.write(self._settings, "engine", found)
        except OSError as err:
            log.warning("what the engine works with cannot be said: %s", err)
