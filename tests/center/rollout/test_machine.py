"""When a rollout goes on and when it stops: every rule by itself, then fleets of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.rollout.machine import RELEASE_CAP, is_harm, look, standing, wish
from sekisho.center.rollout.model import OVER, Decision, Rollout, Rule, Seen

RULE = Rule(soak_s=600, silent_s=1800, deadline_s=86_400)
START = 1_800_000_000.0
EVERY = 60.0
SIZES = [3, 47, 200]


class Fleet:
    """Boxes of a rollout, and a clock that is moved by hand."""

    def __init__(self, sizes: list[int] | None = None, rule: Rule = RULE, kind: str = "fw.activate") -> None:
        self.sizes, self.rule = sizes or SIZES, rule
        self.now = START
        self.rollout = Rollout(id="r", kind=kind)
        numbers = [ring for ring, size in enumerate(self.sizes) for _ in range(size)]
        self.boxes = {
            f"b{n}": Seen(box=f"b{n}", ring=ring, site=f"s{n}", connected=True) for n, ring in enumerate(numbers)
        }
        self.told: list[str] = []
        self.deaf = False

    def set(self, box: str, state: str, step: str = "", **more: Any) -> None:
        self.boxes[box] = replace(self.boxes[box], state=state, step=step, word_at=self.now, **more)

    def change(self, box: str, **more: Any) -> None:
        self.boxes[box] = replace(self.boxes[box], **more)

    def look(self, after: float = EVERY) -> Decision:
        self.now += after
        heard = self.now - 3600 if self.deaf else self.now
        decision = look(self.rollout, self.rule, self.sizes, list(self.boxes.values()), self.now, heard)
        self.rollout = decision.rollout
        for box in decision.release:
            assert not self.boxes[box].asked_at, "asked twice"
            self.change(box, asked_at=self.now)
        self.told += decision.told
        return decision

    def turn(self, behave: Callable[[str], str] = lambda _box: "SUCCEEDED", after: float = EVERY) -> Decision:
        """Let every box that was asked and has not ended answer, then look."""
        for box, seen in self.boxes.items():
            if seen.asked_at and not seen.state:
                self.set(box, behave(box))
        return self.look(after)

    def until(self, state: str, behave: Callable[[str], str] = lambda _box: "SUCCEEDED", looks: int = 5000) -> None:
        for _ in range(looks):
            if self.rollout.state == state:
                return
            self.turn(behave)
        raise AssertionError(f"never {state}: {self.rollout}")


def test_a_good_release_reaches_every_box_ring_by_ring_and_each_ring_soaks_first() -> None:
    fleet = Fleet()
    asked: list[int] = []
    for _ in range(100):
        fleet.turn()
        asked.append(sum(bool(one.asked_at) for one in fleet.boxes.values()))
    assert fleet.rollout.state == "done"
    assert sorted(set(asked)) == [3, 50, 250]
    assert all(asked.count(n) > 600 / EVERY for n in (3, 50)), "each ring was watched for its soak"
    assert fleet.told == ["soak", "ring", "soak", "ring", "soak", "done"]


@pytest.mark.parametrize("end", ["FAILED", "REVERTED", "REJECTED", "TIMED_OUT"])
def test_two_percent_of_a_ring_that_end_badly_halt_it_and_nobody_more_is_asked(end: str) -> None:
    fleet = Fleet()
    fleet.until("halted", lambda box: end if box == "b20" else "SUCCEEDED")
    assert (fleet.rollout.why, fleet.rollout.why_ring, fleet.rollout.why_box) == ("bad", 1, "b20")
    assert (fleet.rollout.why_number, fleet.rollout.why_of) == (1, 47)
    assert not any(one.asked_at for one in fleet.boxes.values() if one.ring == 2)
    assert fleet.look().release == [] and fleet.rollout.state == "halted"


def test_fewer_than_two_percent_go_on() -> None:
    fleet = Fleet([3, 200])
    fleet.until("done", lambda box: "FAILED" if box in ("b50", "b60", "b70") else "SUCCEEDED")


def test_failures_far_above_the_rule_halt_a_large_ring_long_before_two_percent_of_it() -> None:
    fleet = Fleet([3, 1000], replace(RULE, per_site=1))
    for n in range(3, 1003):
        fleet.change(f"b{n}", connected=n < 13)
    fleet.until("halted", lambda box: "REVERTED" if box in ("b5", "b8", "b11") else "SUCCEEDED")
    assert (fleet.rollout.why_number, fleet.rollout.why_of) == (3, 1000)


@pytest.mark.parametrize("step", ["ACTIVATING", "TRIAL", "REVERTING", "activating"])
def test_one_box_that_falls_silent_while_it_tries_halts_everything_after_its_time(step: str) -> None:
    fleet = Fleet()
    for _ in range(15):
        fleet.turn()
    fleet.set("b9", "RUNNING", step)
    for _ in range(30):
        fleet.turn()
    assert fleet.rollout.state == "running"
    fleet.turn(after=61)
    assert (fleet.rollout.state, fleet.rollout.why, fleet.rollout.why_box) == ("halted", "silent", "b9")


def test_a_box_that_is_gone_when_it_was_armed_is_silent_too() -> None:
    fleet = Fleet([3])
    fleet.look()
    fleet.set("b0", "RUNNING", "ARMED", connected=False, lost_at=fleet.now + 5)
    fleet.set("b1", "RUNNING", "DOWNLOADING", connected=False, lost_at=fleet.now + 5)
    fleet.set("b2", "WAITING", "STAGED", connected=False, lost_at=fleet.now + 5, why="customer")
    for _ in range(32):
        fleet.turn()
    assert (fleet.rollout.why, fleet.rollout.why_box) == ("silent", "b0")


@pytest.mark.parametrize("step", ["DOWNLOADING", "VERIFIED", "INSTALLING", "STAGED"])
def test_an_office_that_switches_off_at_night_before_the_switch_halts_nothing(step: str) -> None:
    fleet = Fleet([3])
    fleet.look()
    fleet.set("b0", "RUNNING", step, connected=False, lost_at=fleet.now + 5)
    for _ in range(12 * 60):
        fleet.turn()
    assert fleet.rollout.state == "running"
    fleet.set("b0", "TIMED_OUT", step, why="silent")
    fleet.until("done")


def test_a_box_that_was_off_before_it_was_asked_is_not_asked_not_silent_and_asked_when_it_comes() -> None:
    fleet = Fleet([3, 40])
    for n in (7, 8, 9):
        fleet.change(f"b{n}", connected=False, lost_at=START - 9e5)
    fleet.until("done")
    assert not fleet.boxes["b7"].asked_at
    fleet = Fleet([3, 20])
    fleet.change("b1", connected=False, lost_at=START - 9e5)
    for _ in range(50):
        fleet.turn()
    assert (fleet.rollout.state, fleet.rollout.ring) == ("running", 0), "a third of a ring is missing"
    fleet.change("b1", connected=True, lost_at=0.0)
    fleet.until("done")
    assert fleet.boxes["b1"].asked_at


def test_boxes_that_are_not_reached_hold_no_rollout_for_ever() -> None:
    fleet = Fleet([3, 10])
    fleet.change("b0", connected=False, lost_at=START - 9e5)
    fleet.until("done")
    assert fleet.now - START > RULE.deadline_s
    nobody = Fleet([3, 10])
    for box in ("b0", "b1"):
        nobody.change(box, connected=False, lost_at=START - 9e5)
    nobody.until("halted")
    assert (nobody.rollout.why, nobody.rollout.why_number, nobody.rollout.why_of) == ("absent", 2, 3)


def test_boxes_that_die_after_they_said_that_they_have_it_stop_the_ring_and_after_the_deadline_everything() -> None:
    fleet = Fleet([3, 40])
    fleet.turn()
    fleet.turn()
    for box in ("b0", "b1", "b2"):
        fleet.change(box, connected=False, lost_at=fleet.now)
    lost = fleet.now
    while fleet.look(after=100).rollout.state == "running":
        assert fleet.rollout.ring == 0, "nobody follows boxes that are not heard"
    assert RULE.deadline_s <= fleet.now - lost < RULE.deadline_s + 200
    assert (fleet.rollout.why, fleet.rollout.why_number, fleet.rollout.why_of) == ("silent", 3, 3)
    assert not any(one.asked_at for one in fleet.boxes.values() if one.ring)
    fleet.rollout = wish(fleet.rollout, "resume", fleet.now).rollout
    for box in ("b0", "b1", "b2"):
        assert is_harm(fleet.boxes[box], fleet.rollout, RULE, fleet.now), "who resumes knows of them"
        fleet.change(box, forgiven=True)
    assert fleet.look().rollout.why == "absent", "and nobody of the ring is left to show anything"


def test_boxes_of_an_earlier_ring_that_stay_away_halt_the_later_one() -> None:
    fleet = Fleet([3, 40])
    for _ in range(14):
        fleet.turn()
    assert fleet.rollout.ring == 1
    for box in ("b0", "b1"):
        fleet.change(box, connected=False, lost_at=fleet.now)
    for n in range(10, 20):  # the ring is not over
        fleet.set(f"b{n}", "WAITING", "STAGED", why="customer")
    while fleet.look(after=100).rollout.state == "running":
        assert fleet.now - START < 2 * RULE.deadline_s
    assert (fleet.rollout.why, fleet.rollout.why_ring, fleet.rollout.why_box) == ("silent", 0, "b0")


def test_offices_that_are_off_at_night_cost_time_and_no_halt_and_few_that_are_off_not_even_that() -> None:
    fleet = Fleet([3, 40])
    fleet.turn()
    fleet.turn()
    for box in ("b0", "b1", "b2"):
        fleet.change(box, connected=False, lost_at=fleet.now)
    for _ in range(13 * 60):
        fleet.turn()
    assert (fleet.rollout.state, fleet.rollout.ring) == ("running", 0)
    for box in ("b0", "b1", "b2"):
        fleet.change(box, connected=True, lost_at=0.0)
    fleet.turn()
    assert fleet.rollout.ring == 1
    for _ in range(2):
        fleet.turn()
    for n in range(3, 7):
        fleet.change(f"b{n}", connected=False, lost_at=fleet.now)
    fleet.until("done", looks=20)


def test_a_customer_who_has_not_decided_is_neither_good_nor_bad() -> None:
    fleet = Fleet([3, 10])
    fleet.look()
    fleet.set("b0", "SUCCEEDED")
    fleet.set("b1", "SUCCEEDED")
    fleet.set("b2", "WAITING", "STAGED", why="customer")
    for _ in range(60):
        fleet.look()
    assert (fleet.rollout.state, fleet.rollout.ring) == ("running", 0)
    fleet.set("b2", "SUCCEEDED", "")
    fleet.until("done")


def test_customers_who_choose_a_week_from_now_halt_nothing_and_keep_their_choice() -> None:
    fleet = Fleet([3])
    fleet.look()
    fleet.set("b0", "SUCCEEDED")
    for box in ("b1", "b2"):
        fleet.set(box, "WAITING", "STAGED", why="customer")
    for _ in range(7 * 24):
        assert not fleet.look(after=3600).withdraw
    assert fleet.rollout.state == "running"
    for box in ("b1", "b2"):
        fleet.set(box, "SUCCEEDED")
    fleet.until("done")


def test_a_halt_for_those_that_were_not_reached_takes_nothing_back_and_what_goes_on_is_watched() -> None:
    fleet = Fleet([5])
    for box in ("b0", "b1", "b2"):
        fleet.change(box, connected=False, lost_at=START - 9e5)
    fleet.look()
    fleet.set("b3", "WAITING", "STAGED", why="customer")
    fleet.set("b4", "SUCCEEDED")
    halting = [fleet.look(after=3600) for _ in range(25)]
    assert fleet.told == ["halt"] and not any(one.withdraw for one in halting)
    assert (fleet.rollout.state, fleet.rollout.why, fleet.rollout.why_box) == ("halted", "absent", "b0")
    assert (fleet.rollout.why_number, fleet.rollout.why_of) == (4, 5), "all that do not have it, whatever for"
    fleet.set("b3", "REVERTED")
    assert fleet.look().withdraw and (fleet.rollout.why, fleet.rollout.why_box) == ("bad", "b3")


@pytest.mark.parametrize("kind", ["fw.activate", "fw.stage"])
def test_the_last_ring_is_not_over_while_a_box_may_still_switch(kind: str) -> None:
    def fleet_of() -> Fleet:
        fleet = Fleet([100], kind=kind)
        for box in fleet.boxes:
            fleet.change(box, expires=START + 60 * 86_400)
        fleet.look()
        for n, box in enumerate(fleet.boxes):
            ends = "SUCCEEDED" if n < 51 else "WAITING"
            fleet.set(box, ends, "" if n < 51 else "STAGED", firmware="succeeded" if n < 51 else "staged")
        fleet.look(after=10 * 86_400)
        for _ in range(15):
            fleet.look()
        assert fleet.rollout.state == "running" and fleet.told == ["soak"]
        return fleet

    halts = fleet_of()
    for box in ("b60", "b61"):
        halts.set(box, "REVERTED", firmware="reverted")
    assert halts.look().withdraw and halts.rollout.why == "bad"
    stopped = fleet_of()
    assert wish(stopped.rollout, "cancel", stopped.now).withdraw
    lasts = fleet_of()
    for n in range(51, 100):
        lasts.set(f"b{n}", "EXPIRED", firmware="expired")
    lasts.until("done", looks=2)
    forgets = fleet_of()
    for n in range(60, 100):
        forgets.set(f"b{n}", "EXPIRED", firmware="expired")
    forgets.look(after=48 * 86_400)
    assert forgets.look().rollout.state == "running"
    forgets.look(after=2 * 86_400)
    forgets.until("done", looks=2)  # a job that has expired is waited for no more


def test_a_ring_in_which_nobody_is_left_to_try_it_halts_instead_of_running_for_ever() -> None:
    fleet = Fleet([3])
    fleet.until("halted", lambda box: "REVERTED" if box == "b0" else "RUNNING")
    for box in ("b1", "b2"):
        fleet.set(box, "CANCELED")
    fleet.rollout = wish(fleet.rollout, "resume", fleet.now).rollout
    fleet.change("b0", forgiven=True)
    assert not fleet.look().withdraw and fleet.told == ["halt", "halt"]
    assert (fleet.rollout.state, fleet.rollout.why, fleet.rollout.why_number) == ("halted", "absent", 3)


def test_after_a_halt_the_ring_soaks_anew() -> None:
    fleet = Fleet([3])
    for _ in range(8):
        fleet.turn()
    fleet.change("b1", worse="memory")
    fleet.look()
    assert fleet.rollout.state == "halted" and fleet.rollout.soaked_s > 0
    assert wish(fleet.rollout, "resume", fleet.now).rollout.soaked_s == 0
    paused = replace(fleet.rollout, state="paused", why="")
    assert wish(paused, "resume", fleet.now).rollout.soaked_s > 0, "while it pauses harm is still seen"


def test_a_release_that_is_only_on_the_disk_has_not_succeeded_where_the_job_was_to_bring_it_there() -> None:
    fleet = Fleet([3, 10], kind="fw.stage")
    for _ in range(100):
        fleet.turn()
    assert fleet.rollout.ring == 0
    for box in ("b0", "b1", "b2"):
        fleet.change(box, firmware="succeeded", word_at=fleet.now)
    fleet.look()
    assert "soak" in fleet.told


def test_what_the_box_says_of_the_release_later_counts_more_than_how_the_job_ended() -> None:
    fleet = Fleet()
    for _ in range(20):
        fleet.turn()
    fleet.change("b1", firmware="reverted", word_at=fleet.now)
    fleet.look()
    assert (fleet.rollout.state, fleet.rollout.why, fleet.rollout.why_ring) == ("halted", "bad", 0)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_ring_whose_boxes_were_all_deleted_is_over(gone: int) -> None:
    fleet = Fleet([3, 10, 20])
    for _ in range(2 if gone else 0):
        fleet.turn()
    fleet.boxes = {box: one for box, one in fleet.boxes.items() if one.ring != gone}
    fleet.until("done")
    assert all(one.asked_at for one in fleet.boxes.values()) and fleet.rollout.ring == 2
    nobody = Fleet([3])
    nobody.boxes = {}
    assert nobody.look(after=3600).rollout.state == "done"


def test_boxes_that_do_worse_with_it_halt_it() -> None:
    fleet = Fleet()
    for _ in range(15):
        fleet.turn()
    fleet.change("b4", worse="memory")
    fleet.look()
    assert (fleet.rollout.state, fleet.rollout.why, fleet.rollout.why_detail) == ("halted", "worse", "memory")


def test_a_centre_that_is_deaf_calls_nobody_silent_and_lets_no_soak_pass() -> None:
    fleet = Fleet()
    for _ in range(15):
        fleet.turn()
    fleet.set("b9", "RUNNING", "ACTIVATING")
    fleet.deaf = True
    soaked = fleet.rollout.soaked_s
    for _ in range(60):
        assert fleet.look().release == []
    assert fleet.rollout.state == "running" and fleet.rollout.soaked_s == soaked
    fleet.deaf = False
    for _ in range(30):
        fleet.turn()
    assert fleet.rollout.state == "running", "it had no chance to be heard before"
    fleet.turn()
    fleet.turn()
    assert fleet.rollout.why == "silent"


def test_a_centre_that_was_off_gives_boxes_their_time_again() -> None:
    fleet = Fleet()
    for _ in range(15):
        fleet.turn()
    fleet.set("b9", "RUNNING", "TRIAL")
    fleet.look(after=7200)
    assert fleet.rollout.state == "running"
    for _ in range(31):
        fleet.look()
    assert fleet.rollout.why == "silent"


@pytest.mark.parametrize("step", ["TRIAL", "ARMED"])
def test_after_the_centres_clock_was_set_back_silence_and_soak_are_counted_from_then(step: str) -> None:
    fleet = Fleet()
    for _ in range(15):
        fleet.turn()
    soaked = fleet.rollout.soaked_s
    lost = {"connected": False, "lost_at": fleet.now} if step == "ARMED" else {}
    fleet.set("b9", "RUNNING", step, **lost)
    fleet.look(after=-7 * 86_400)
    assert (fleet.rollout.state, fleet.rollout.hearing_since) == ("running", fleet.now)
    assert fleet.rollout.soaked_s == soaked and fleet.rollout.began <= fleet.now
    for _ in range(30):
        fleet.look()
    assert fleet.rollout.state == "running"
    fleet.look()
    assert (fleet.rollout.why, fleet.rollout.why_box) == ("silent", "b9")


def test_a_broker_that_was_heard_in_what_is_now_the_future_is_not_heard() -> None:
    fleet = Fleet()
    fleet.look()
    heard, fleet.now = fleet.now, fleet.now - 3600
    for _ in range(30):
        fleet.now += EVERY
        fleet.rollout = look(fleet.rollout, RULE, SIZES, list(fleet.boxes.values()), fleet.now, heard).rollout
        assert fleet.rollout.hearing_since == 0.0


def test_no_more_boxes_of_one_site_fetch_at_one_time_than_the_rule_says() -> None:
    fleet = Fleet([12], replace(RULE, per_site=2))
    for n in range(12):
        fleet.change(f"b{n}", site="tokyo" if n < 8 else f"s{n}")
    assert sorted(fleet.look().release) == ["b0", "b1", "b10", "b11", "b8", "b9"]
    fleet.set("b0", "RUNNING", "DOWNLOADING")
    assert fleet.look().release == []
    fleet.set("b0", "RUNNING", "STAGED")
    assert fleet.look().release == ["b2"]
    assert fleet.look(after=3700).release == ["b3", "b4"], "who says nothing for an hour leaves its place"


def test_a_look_asks_a_bounded_number() -> None:
    fleet = Fleet([RELEASE_CAP + 20])
    assert len(fleet.look().release) == RELEASE_CAP and len(fleet.look().release) == 20


def test_paused_means_that_nobody_is_asked_and_still_that_harm_is_seen() -> None:
    fleet = Fleet()
    fleet.rollout = wish(fleet.rollout, "pause", fleet.now).rollout
    assert fleet.look().release == []
    fleet.rollout = wish(fleet.rollout, "resume", fleet.now).rollout
    assert len(fleet.look().release) == 3
    fleet.rollout = wish(fleet.rollout, "pause", fleet.now).rollout
    fleet.set("b0", "REVERTED")
    assert fleet.look().withdraw and fleet.rollout.state == "halted"


def test_who_resumes_knows_of_the_bad_ones_and_the_next_one_halts_again() -> None:
    fleet = Fleet()
    fleet.until("halted", lambda box: "FAILED" if box == "b20" else "SUCCEEDED")
    fleet.rollout = wish(fleet.rollout, "resume", fleet.now).rollout
    fleet.change("b20", forgiven=True)
    for _ in range(5):
        fleet.turn()
    assert fleet.rollout.state == "running"
    fleet.set("b21", "REVERTED")
    assert fleet.look().withdraw and fleet.rollout.why_box == "b21"


@pytest.mark.parametrize("state", ["canceled", "done"])
@pytest.mark.parametrize("what", ["pause", "resume", "halt", "cancel"])
def test_what_is_over_stays_over(state: Any, what: Any) -> None:
    rollout = Rollout(id="r", kind="fw.activate", state=state)
    with pytest.raises(RejectedInput, match=state):
        wish(rollout, what, START)
    seen = [Seen(box="b", ring=0, connected=True)]
    assert look(rollout, RULE, [1], seen, START, START) == Decision(rollout=rollout)


_STATES = st.sampled_from(
    ["", "RECEIVED", "RUNNING", "WAITING", "SUCCEEDED", "FAILED", "REVERTED", "CANCELED", "EXPIRED", "TIMED_OUT"]
)
_STEPS = st.sampled_from(["", "DOWNLOADING", "STAGED", "ACTIVATING", "TRIAL"])
_MOVES = st.lists(
    st.tuples(st.integers(0, 39), _STATES, _STEPS, st.booleans(), st.sampled_from([5.0, 300.0, 2000.0, 90_000.0])),
    max_size=60,
)


@given(_MOVES, st.lists(st.sampled_from(["pause", "resume", "halt", "cancel", ""]), max_size=60))
def test_whatever_boxes_and_people_do_the_rules_hold(moves: list[Any], wishes: list[Any]) -> None:
    fleet = Fleet([2, 8, 30], replace(RULE, soak_s=60))
    for number, (n, state, step, connected, after) in enumerate(moves):
        box = f"b{n}"
        if fleet.boxes[box].asked_at:
            lost = 0.0 if connected else fleet.now
            fleet.set(box, state, step, connected=connected, lost_at=lost)
        what: Any = wishes[number] if number < len(wishes) else ""
        before = fleet.rollout
        if what:
            try:
                fleet.rollout = wish(fleet.rollout, what, fleet.now).rollout
            except RejectedInput:
                assert fleet.rollout == before
        was = fleet.rollout
        decision = fleet.look(after)
        seen = list(fleet.boxes.values())
        assert decision.rollout.ring in (was.ring, was.ring + 1)
        if was.state in OVER:
            assert decision.rollout == was and not decision.release
        if decision.release:
            assert decision.rollout.state == "running"
            assert all(fleet.boxes[one].ring <= decision.rollout.ring for one in decision.release)
        if decision.rollout.state == "running":
            silent = [one for one in seen if standing(one, decision.rollout, fleet.rule, fleet.now) == "silent"]
            assert not silent, "a silent box was passed over"
        if decision.rollout.ring > was.ring:
            mine = [one for one in seen if one.ring == was.ring]
            assert any(one.state == "SUCCEEDED" for one in mine)
            assert not any(
                one.asked_at and one.step in ("ACTIVATING", "TRIAL") and one.state == "RUNNING" for one in mine
            )
