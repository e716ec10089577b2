"""Box, broker, centre, customer and adversary, in any order: what must hold holds after every step.

The broker keeps everything it ever saw and gives any of it, again and in any order, or forgets it; the adversary signs
with keys nobody lists and changes what others signed; the power fails at any step; clocks are told wrong.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from jobsbox import Box, Died, Hands, name_of
from power import Power, powered
from signing import NOW, SATO, STRANGER, TANAKA, job, signed

from sekisho.appliance.core.jobs import MUTATING, TERMINAL, Job
from sekisho.portal_agent.jobs.facts import Progress

KINDS = ("fw.activate", "engine.restart", "fw.activate", "fw.stage", "quarantine.release", "diag.collect", "sig.update")
ANY = st.integers(0, 50)


class World(RuleBasedStateMachine):
    """One box and everybody around it."""

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for name in ("fsync", "fdatasync"):
            self.patch.setattr(os, name, lambda _: None)
        self.folder = Path(tempfile.mkdtemp(prefix="jobs-model-"))
        self.power = Power(0)
        self.hands = Hands()
        self.box = Box(self.folder, self.hands)
        powered(self.power, self.patch, self.box)
        self.true_jobs: dict[str, Job] = {}
        self.seen: list[tuple[str, bytes]] = []
        """Everything that ever crossed the broker."""

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            self._at_last()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    # The centre and its operators

    @rule(
        kind=st.sampled_from(KINDS),
        lost=st.sampled_from((False, False, False, True)),
        wait=st.sampled_from((0, 0, 120)),
        life=st.sampled_from((300, 86_400)),
        n=ANY,
    )
    def sign(self, kind: str, lost: bool, wait: int, life: int, n: int) -> None:
        now = int(self.box.true)
        made = job(kind, nbf=now + wait, exp=now + wait + life, args={"counter": str(n + 1)})
        if kind == "fw.activate":
            self.hands.outcome[made.id] = Progress("WAITING", "customer", "staged")
        self.true_jobs[made.id] = made
        self._send(signed(made, TANAKA, SATO))
        if not lost:
            self.deliver(0)

    @precondition(lambda self: self.true_jobs)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        wanted = list(self.true_jobs)[which % len(self.true_jobs)]
        now = int(self.box.true)
        made = job("job.cancel", nbf=now - 1, exp=now + 86_400, args={"job": wanted})
        self.true_jobs[made.id] = made
        self._send(signed(made))

    def _send(self, envelope: bytes) -> None:
        self.seen.append((name_of(envelope), envelope))

    # The broker and the adversary

    @precondition(lambda self: self.seen)
    @rule(which=ANY)
    def deliver(self, which: int) -> None:
        name, envelope = self.seen[-1 - which % len(self.seen)]
        self.box.give(envelope, name)

    @precondition(lambda self: self.seen)
    @rule(which=ANY, how=st.sampled_from(("stranger", "payload", "name", "torn")))
    def forge(self, which: int, how: str) -> None:
        name, envelope = self.seen[which % len(self.seen)]
        if how == "torn":
            self.box.give(envelope[: len(envelope) // 2], name)
        elif how == "name":
            self.box.give(envelope, job().id)
        elif how == "stranger" and name in self.true_jobs:
            evil = msgspec.structs.replace(self.true_jobs[name], kind="engine.restart", args={})
            self.box.give(signed(evil, STRANGER), name)
        else:
            outer: dict[str, Any] = msgspec.json.decode(envelope)
            outer["payload"] = outer["payload"][:-8] + "AAAAAAA="
            self.box.give(msgspec.json.encode(outer), name)

    # The customer, the machine, the time

    @precondition(lambda self: self.hands.outcome)
    @rule(which=ANY, says=st.sampled_from(("SUCCEEDED", "CANCELED", "REVERTED", "FAILED")))
    def choose(self, which: int, says: Any) -> None:
        ident = list(self.hands.outcome)[which % len(self.hands.outcome)]
        if self.hands.outcome[ident].state not in TERMINAL:
            self.hands.outcome[ident] = Progress(says, by="local-page")

    @rule(late=st.sampled_from(("", "activating")))
    def past_the_point(self, late: str) -> None:
        self.hands.too_late = late

    @rule(told=st.booleans(), jump=st.sampled_from((0, 0, 0, -(10**6), 3600)))
    def clock(self, told: bool, jump: int) -> None:
        self.box.told = told
        self.box.true += jump

    @rule(times=st.integers(1, 6), seconds=st.sampled_from((1.0, 15.0, 400.0)))
    def pass_time(self, times: int, seconds: float) -> None:
        self._turn(times, seconds)

    @rule(steps=st.integers(1, 12))
    def power_fails_soon(self, steps: int) -> None:
        self.power.step, self.power.fails_at = 0, steps
        self._turn(3, 11.0)
        self.power.fails_at = 0

    @rule()
    def start_again(self) -> None:
        self.power.fails_at = 0
        self.box.end()
        self._turn(1, 1.0)

    def _turn(self, times: int, seconds: float) -> None:
        for _ in range(times):
            try:
                if self.box.jobs is None:
                    self.box.start()
                self.box.turn(1, seconds)
            except Died:
                self.box.jobs = None

    # What must hold

    @invariant()
    def nothing_is_done_twice_nor_without_a_signature(self) -> None:
        if hasattr(self, "hands"):
            done = self.hands.done
            assert len(set(done)) == len(done)
            assert all(self.true_jobs[ident].kind == kind for kind, ident in done)

    @invariant()
    def of_those_that_change_the_box_one_is_under_way(self) -> None:
        if hasattr(self, "box"):
            entries = self.box.kept().entries
            assert self.hands.most <= 1, "two at once"
            assert sum(bool(e.begun) and not e.over and e.job.kind in MUTATING for e in entries) <= 1

    def _told(self) -> None:
        told: dict[str, dict[int, str]] = {}
        ends: dict[str, set[tuple[int, str]]] = {}
        for event in self.box.told_of():
            if not event.ver:
                continue
            known = told.setdefault(event.id, {})
            assert known.setdefault(event.ver, event.state) == event.state, "one number, two words"
            assert event.ver >= max(known), "it goes back"
            if event.state in TERMINAL:
                ends.setdefault(event.id, set()).add((event.ver, event.state))
            else:
                assert event.id not in ends, "something after the end"
            if event.state == "SUCCEEDED" and self.true_jobs[event.id].kind not in ("job.cancel", "time.set"):
                assert event.id in {ident for _, ident in self.hands.done}, "said to be done"
        assert all(len(some) == 1 for some in ends.values()), "two ends"
        assert told.keys() <= self.true_jobs.keys(), "a job nobody signed"

    def _at_last(self) -> None:
        """Whatever happened: in time everything is over, told, and what was told is what is so."""
        self.power.fails_at = 0
        self._told()
        self.box.told, self.box.true = True, max(self.box.true, float(NOW)) + 2 * 86_400
        for seconds in (1.0, 20.0, 200.0, 86_400.0 * 20, 86_400.0 * 80, 200.0, 200.0, 200.0):
            self._turn(3, seconds)
        entries = self.box.kept().entries
        assert all(entry.over and entry.told >= entry.ver for entry in entries), "stuck"
        self._told()
        last = {event.id: event.state for event in self.box.told_of() if event.ver}
        assert {entry.job.id: entry.state for entry in entries} == last


World.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)  # fmt: skip
TestWorld = pytest.mark.timeout(180)(World.TestCase)
