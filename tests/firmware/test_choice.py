"""The customer decides when a release that interrupts is used: on the box, without a network, by the office's clock."""

from __future__ import annotations

import datetime as dt
import itertools
import time
import zoneinfo
from pathlib import Path
from typing import Any

import msgspec
import pytest
from firmware_world import FINE, NOON, World, release
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core import settings as box_settings
from sekisho.appliance.core import told_time
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.jobs import Believed
from sekisho.firmware.keeper import desk, facts, told, windows
from sekisho.firmware.keeper.journal import Attempt, Choice, Journal, State, Took
from sekisho.firmware.keeper.machine import Machine
from sekisho.firmware.keeper.ordered import Ordered
from sekisho.policy.overlay import Restart

TOKYO = "Asia/Tokyo"
SUNDAYS = Restart(days=("sun",), start="03:00", hours=2)
DAY = 86_400.0
JOB = "job 01ARZ3NDEKTSV4RRFFQ69G5FAV"


def at(text: str, zone: str = TOKYO) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


# Windows


@pytest.mark.parametrize(
    ("moment", "opened"),
    [
        ("2026-11-22T02:59:59", False), ("2026-11-22T03:00:00", True), ("2026-11-22T04:59:59", True),
        ("2026-11-22T05:00:00", False), ("2026-11-21T03:30:00", False), ("2026-11-29T03:30:00", True),
    ],
)  # fmt: skip
def test_a_weekly_window_is_open_by_the_offices_clock(moment: str, opened: bool) -> None:
    assert (windows.open_until(SUNDAYS, TOKYO, at(moment)) > 0) is opened


def test_a_window_that_goes_over_midnight_belongs_to_the_day_it_begins() -> None:
    late = Restart(days=("sat",), start="23:00", hours=3)
    assert windows.open_until(late, TOKYO, at("2026-11-22T01:59:59")) == at("2026-11-22T02:00:00")
    assert not windows.open_until(late, TOKYO, at("2026-11-21T01:30:00"))


def test_a_window_keeps_its_length_when_the_clocks_change_and_opens_though_its_hour_does_not_exist() -> None:
    zone, spring, autumn = "Europe/Berlin", "2026-03-29", "2026-10-25"
    weekly = Restart(days=("sun",), start="02:30", hours=2)
    for day in (spring, autumn):
        opens = windows.next_open(weekly, zone, at(f"{day}T00:00:00", zone))
        assert windows.open_until(weekly, zone, opens) - opens == 2 * 3600.0
    assert dt.datetime.fromtimestamp(windows.next_open(weekly, zone, at(f"{spring}T00:00:00", zone)), dt.UTC).hour == 1


def test_in_a_zone_that_is_not_known_no_window_is_open() -> None:
    every = Restart(days=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), start="00:00", hours=12)
    for zone in ("Nowhere/Land", "../../etc/passwd", "\0", "/etc/localtime"):
        assert [windows.open_until(every, zone, at(f"2026-11-22T{hour:02}:00:00")) for hour in range(24)] == [0.0] * 24


@given(
    wall=st.floats(1.7e9, 2.5e9), days=st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])),
    hour=st.integers(0, 23), minute=st.integers(0, 59), hours=st.integers(1, 12),
    zone=st.sampled_from([TOKYO, "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
)  # fmt: skip
def test_the_next_window_is_one_and_none_is_missed_before_it(
    wall: float, days: Any, hour: int, minute: int, hours: int, zone: str
) -> None:
    weekly = Restart(days=tuple(days), start=f"{hour:02}:{minute:02}", hours=hours)
    opens = windows.next_open(weekly, zone, wall)
    if not days:
        assert opens == 0
        return
    assert wall <= opens <= wall + 8 * DAY and windows.open_until(weekly, zone, opens) > opens
    if opens > wall:
        assert not any(windows.open_until(weekly, zone, wall + part * (opens - wall) / 8) for part in range(8))


# Choosing


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, tier=3)


def staged(world: World, **asked: Any) -> World:
    world.put(facts.Asked(counter=7, by=JOB, **asked))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state == "staged")
    return world


def live(world: World, seconds: int) -> None:
    for _ in range(seconds):
        world.step()


def skip(world: World, seconds: float) -> None:
    """Time passes, in which nothing is looked at."""
    world.wall += seconds
    world.now += seconds
    live(world, 3)


def used(world: World) -> bool:
    return bool(world.activations)


def test_a_power_cut_never_activates_what_nobody_chose(world: World) -> None:
    staged(world)
    for reason in ("power_loss", "ordered", "watchdog", "panic", "power_loss"):
        world.keeper = None
        world.boot(reason)
        live(world, 5)
    skip(world, 60 * DAY)
    assert not used(world) and world.slot == "A" and world.ends() == []


@pytest.mark.parametrize("mode", ["ask", "window", "asap"])
def test_an_operators_job_alone_restarts_no_box(world: World, mode: Any) -> None:
    world.put(facts.Chosen(7, Choice(by=JOB, until=0.0), mode=mode))
    staged(world, mode=mode, deadline=NOON + 60)
    world.put(facts.Chosen(7, Choice(by=JOB, until=0.0), mode=mode))
    live(world, 10)
    skip(world, 30 * DAY)
    assert not used(world) and world.slot == "A"


def test_a_job_that_comes_before_its_release_is_known_activates_nothing_that_interrupts(world: World) -> None:
    world.silent = True
    world.put(facts.Asked(counter=7, by=JOB))
    live(world, 3)
    world.put(facts.Chosen(7, Choice(by=JOB, until=0.0), mode="ask"))
    live(world, 3)
    world.silent = False
    live(world, 900)
    assert not used(world)


def test_what_interrupts_nothing_is_activated_when_the_job_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = staged(World(monkeypatch, tier=1))
    live(world, 5)
    assert not used(world)
    world.put(facts.Chosen(7, Choice(by=JOB, until=0.0)))
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"]


def test_as_soon_as_possible_counts_only_where_the_contract_says_so(world: World) -> None:
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), asap=True)  # type: ignore[method-assign]  # the contract
    staged(world, mode="ask")
    live(world, 10)
    assert not used(world)
    world.put(facts.Asked(counter=7, by=JOB, mode="asap"))
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"] and world.activations[0] is not None
    assert world.activations[0].by == "contract"


@pytest.mark.parametrize("mode", ["window", "asap"])
def test_a_job_may_use_the_window_the_customer_keeps_for_restarts(world: World, mode: Any) -> None:
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), restart=SUNDAYS, zone=TOKYO)  # type: ignore[method-assign]  # his settings
    world.wall = at("2026-11-21T12:00:00")
    staged(world, mode=mode)
    live(world, 5)
    assert not used(world)
    world.wall = at("2026-11-22T03:00:00")
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"]


def test_a_window_that_closed_during_a_power_cut_is_waited_for_again(world: World) -> None:
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), restart=SUNDAYS, zone=TOKYO)  # type: ignore[method-assign]  # his settings
    world.wall = at("2026-11-22T04:59:00")
    staged(world, mode="window")
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state == "armed")
    world.keeper = None
    world.boot("power_loss")
    world.wall = at("2026-11-22T06:00:00")
    live(world, 30)
    attempt = world.journal.attempt
    assert not used(world) and attempt is not None and attempt.state == "staged"
    world.wall = at("2026-11-29T03:00:00")
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"]


def test_an_hour_that_was_chosen_is_kept_over_a_power_cut_and_missed_when_the_box_was_off(world: World) -> None:
    staged(world)
    tonight = NOON + 6 * 3600
    choice = Choice(by="local-page", at=tonight, until=tonight + windows.MISSED_S)
    world.put(facts.Chosen(7, choice))
    live(world, 5)
    world.keeper = None
    world.boot("power_loss")
    live(world, 5)
    assert not used(world)
    world.keeper = None
    world.wall = tonight + windows.MISSED_S + 60
    live(world, 5)
    assert not used(world) and world.told()[-1].why == "customer"
    again = world.wall + 100
    world.put(facts.Chosen(7, Choice(by="local-page", at=again, until=again + windows.MISSED_S)))
    world.until(lambda journal: journal.last is not None)
    assert world.wall >= again and world.ends() == ["succeeded"]


def test_a_clock_nobody_can_believe_opens_no_window_and_no_hour(world: World) -> None:
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), sure=False)  # type: ignore[method-assign]  # a dead battery
    staged(world)
    world.put(facts.Chosen(7, Choice(by="local-page", at=NOON + 50, until=NOON + 5000)))
    live(world, 200)
    assert not used(world)


@pytest.mark.parametrize("state", ["downloading", "armed"])
def test_now_does_not_outlive_its_boot_until_somebody_knows_the_time(world: World, state: str) -> None:
    """The customer says "now" and the power goes; days later the box starts, with the time it had at first."""
    look, known = world.look, [False]
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), sure=known[0])  # type: ignore[method-assign]  # a dead battery
    world.silent = state == "downloading"
    world.put(facts.Asked(counter=7, by=JOB))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state in ("downloading", "staged"))
    world.put(facts.Chosen(7, Choice(by="local-page", until=world.wall + desk.NOW_S)))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state == state)
    world.keeper, world.silent = None, False
    world.boot("power_loss")
    world.wall = NOON
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state == "staged")
    live(world, 900)
    assert not used(world)
    known[0] = True
    skip(world, 3 * DAY)
    assert not used(world) and world.told()[-1].why == "customer", "it is asked again"
    known[0] = False
    world.put(facts.Chosen(7, Choice(by="local-page", until=world.wall + desk.NOW_S)))
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"], "who says it in this boot needs no clock"


def test_no_clock_and_no_broker_takes_a_window_back_before_what_the_channel_was_signed_at(tmp_path: Path) -> None:
    """Who sets the clock back, or tells a time of last year, has no window of last year open."""
    settings = box_settings.parse(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')
    signed = at("2026-11-20T00:00:00")
    settings.operators.parent.mkdir(parents=True)
    settings.operators.write_bytes(msgspec.json.encode(Believed(operators=[], expires=signed + DAY, at=signed)))
    told_time.path_of(settings).parent.mkdir(parents=True)
    for clock, said, known, sure in (
        (signed + 5, None, signed + 5, True), (signed - 400 * DAY, None, signed, False),
        (signed, signed - 400 * DAY, signed, True),
    ):  # fmt: skip
        if said is not None:
            told_time.write(settings, said, time.monotonic())
        seen = Ordered(settings, itertools.repeat(clock).__next__).now()
        assert seen[0] == pytest.approx(known, abs=5) and seen[1] is sure


def test_later_asks_again_later_and_cancel_ends_it(world: World) -> None:
    staged(world)
    world.put(facts.Chosen(7, Choice(by="portal", at=NOON + 3600, until=NOON + 7200)))
    world.put(facts.Postponed(7, NOON + 5 * DAY, "local-page"))
    live(world, 5)
    skip(world, 2 * 3600)
    assert not used(world) and world.told()[-1].why == "postponed"
    world.put(facts.Canceled(7, "local-page"))
    live(world, 3)
    assert world.ends() == ["canceled"]
    world.put(facts.Chosen(7, Choice(by="local-page", until=0.0)))
    live(world, 20)
    assert not used(world) and world.ends() == ["canceled"], "an end is for ever"


def test_an_hour_given_up_for_another_is_not_kept_though_it_is_about_to_begin() -> None:
    attempt = Attempt(state=State.ARMED, counter=7, tier=3, choice=Choice(by="portal", at=NOON, until=NOON + 60))
    mind = Machine(Journal(attempt=attempt), trial_s=6, steady_s=2, grace_s=0, spread=lambda most: most)
    assert facts.Measure() in mind.handle(facts.Looked(wall=NOON), 1.0, NOON, "")
    mind.handle(facts.Chosen(7, Choice(by="portal", at=NOON + DAY, until=0.0), serial=2), 2.0, NOON + 1, "")
    assert mind.handle(facts.Measured(FINE), 3.0, NOON + 2, "") == []
    assert mind.journal.attempt is not None and mind.journal.attempt.state is State.STAGED


@pytest.mark.parametrize("mode", ["ask", "window", "asap"])
def test_a_job_leaves_the_hour_and_the_later_of_the_customer_as_they_are(world: World, mode: Any) -> None:
    look = world.look
    every = Restart(days=("mon", "tue", "wed", "thu", "fri", "sat", "sun"), start="00:00", hours=12)
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), restart=every, asap=True)  # type: ignore[method-assign]  # his settings
    staged(world)
    answering, tonight = counter(world), Choice(by="portal", at=NOON + DAY, until=NOON + 2 * DAY)
    for word in (facts.Chosen(7, tonight), facts.Postponed(7, NOON + 7 * DAY, "portal")):
        world.put(word)
        live(world, 2)
        before, told = world.journal.attempt, len(world.told())
        ask(answering, desk.Activate(counter=7, by=JOB, mode=mode))
        live(world, 20)
        assert before is not None and world.journal.attempt == msgspec.structs.replace(before, mode=mode)
        assert len(world.told()) == told, "nobody chose anything"


def test_what_only_followed_from_a_jobs_mode_is_taken_back_with_it(world: World) -> None:
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), restart=SUNDAYS, zone=TOKYO)  # type: ignore[method-assign]  # his settings
    world.wall = at("2026-11-21T12:00:00")
    staged(world, mode="window")
    live(world, 5)
    assert world.told()[-1].why == "window"
    ask(counter(world, SUNDAYS), desk.Activate(counter=7, by=JOB, mode="ask"))
    live(world, 5)
    assert world.told()[-1].why == "customer"
    world.wall = at("2026-11-22T03:00:00")
    live(world, 20)
    assert not used(world)


def test_a_deadline_is_told_ever_more_plainly_and_restarts_nothing(world: World) -> None:
    world.offered = release(7, 3, urgent=True)
    staged(world, deadline=NOON + 10 * DAY)
    for day in range(1, 15):
        skip(world, DAY)
        assert not used(world), day
    whys = [event.why for event in world.told() if event.state == "staged"]
    assert whys == ["customer", "deadline", "deadline", *["overdue"] * (len(whys) - 3)] and len(whys) >= 7
    assert {event.deadline for event in world.told() if event.state == "staged"} != {""}


def test_what_closes_no_hole_is_never_called_overdue(world: World) -> None:
    staged(world, deadline=NOON + DAY)
    skip(world, 20 * DAY)
    assert "overdue" not in {event.why for event in world.told()}


def test_nobody_is_asked_about_the_deadline_before_the_day_they_put_it_off_to(world: World) -> None:
    staged(world, deadline=NOON + 5 * DAY)
    world.put(facts.Postponed(7, NOON + 9 * DAY, "portal"))
    live(world, 3)
    skip(world, 5 * DAY)
    assert "deadline" not in {event.why for event in world.told()}
    skip(world, 5 * DAY)
    assert "deadline" in {event.why for event in world.told()}


def test_the_interruption_to_expect_is_what_nine_of_ten_took_here() -> None:
    history = (*(Took(3, float(seconds)) for seconds in (40, 41, 42, 43, 44, 45, 46, 47, 48, 300)), Took(1, 0.0))
    journal = Journal(attempt=Attempt(counter=7, tier=3), history=history)
    assert told.expected(journal, 3) == 48 and told.expected(journal, 1) == 0 and told.expected(journal, 2) == 0
    assert told.expected(Journal(), 3) == 0


def test_a_third_image_waits_until_the_one_before_may_be_overwritten(world: World) -> None:
    staged(world)
    world.put(facts.Chosen(7, Choice(by="button", until=0.0)))
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["succeeded"] and world.slot == "B"
    world.offered = release(8, 3)
    world.put(facts.Asked(counter=8, by=JOB))
    live(world, 100)
    attempt = world.journal.attempt
    assert attempt is not None and attempt.state == "accepted"
    skip(world, 71 * 3600)
    attempt = world.journal.attempt
    assert attempt is not None and attempt.state == "accepted"


# The desk


def counter(world: World, weekly: Restart | None = None) -> desk.Counter:
    def journal() -> Journal:
        return world.journal

    return desk.Counter(
        journal, lambda: journal().running, lambda: (weekly, TOKYO), world.put, lambda: "", lambda: world.wall
    )


def ask(answering: desk.Counter, question: desk.Question) -> desk.Shown:
    return msgspec.json.decode(next(answering.answer(msgspec.json.encode(question))), type=desk.Shown)


def test_the_desk_says_what_waits_and_takes_the_customers_word(world: World) -> None:
    staged(world, deadline=NOON + DAY)
    answering = counter(world)
    shown = ask(answering, desk.Status())
    assert shown.way is not None and (shown.way.counter, shown.way.state, shown.way.tier) == (7, "staged", 3)
    ask(answering, desk.Activate(counter=7, by="local-page"))
    world.until(lambda journal: journal.last is not None)
    shown = ask(answering, desk.Status())
    assert shown.way is None and shown.last is not None and shown.last.state == "succeeded"
    assert shown.running.counter == 7


@pytest.mark.parametrize(
    "question",
    [
        desk.Activate(counter=8, by="local-page"), desk.Activate(counter=7, by="local-page", window=True),
        desk.Activate(counter=7, by="local-page", at=NOON + 90 * DAY),
        desk.Postpone(7, NOON - 5, "local-page"), desk.Postpone(7, NOON + 90 * DAY, "local-page"),
        desk.Cancel(6, "local-page"), desk.Rollback(3, JOB),
    ],
    ids=str,
)  # fmt: skip
def test_the_desk_refuses_what_cannot_be(world: World, question: desk.Question) -> None:
    staged(world)
    with pytest.raises(RejectedInput):
        ask(counter(world), question)


@pytest.mark.parametrize(
    "asked",
    [
        b"", b"{}", b'{"do":"run","argv":[]}', b'{"do":"activate","counter":7,"by":"tanaka"}',
        b'{"do":"activate","counter":7,"by":"local-page\\n"}', b'{"do":"activate","counter":-7,"by":"button"}',
        b'{"do":"activate","counter":7,"by":"button","force":true}', b'{"do":"stage","mode":"now"}', b"[" * 9000,
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(world: World, asked: bytes) -> None:
    with pytest.raises(RejectedInput):
        next(counter(world).answer(asked))


def test_it_is_too_late_to_cancel_once_it_is_being_tried(world: World) -> None:
    staged(world)
    world.sick = True
    world.put(facts.Chosen(7, Choice(by="button", until=0.0)))
    world.until(lambda journal: journal.attempt is not None and journal.attempt.state == "trial")
    with pytest.raises(RejectedInput, match="too_late"):
        ask(counter(world), desk.Cancel(7, JOB))
    world.until(lambda journal: journal.last is not None)
    assert world.ends() == ["reverted"]
    assert [event.why for event in world.told() if event.state == "reverted"] == ["gate:forward_out"]


def test_what_the_machines_own_check_gave_up_is_told_with_its_reason(world: World) -> None:
    world.dead = True
    world.verdict = "gate:bridge"
    staged(world)
    world.put(facts.Chosen(7, Choice(by="button", until=0.0)))
    world.until(lambda journal: journal.last is not None)
    assert [(event.state, event.why) for event in world.told()[-1:]] == [("reverted", "gate:bridge")]
    assert world.slot == "A"


def test_a_job_for_the_window_waits_for_one_and_takes_back_its_own_word_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world, weekly = World(monkeypatch, tier=1), list[Restart | None]([None])
    look = world.look
    world.look = lambda attempt: msgspec.structs.replace(look(attempt), restart=weekly[-1], zone=TOKYO)  # type: ignore[method-assign]  # his settings
    staged(world)
    answering, other = counter(world), JOB[:-1] + "0"
    for by, stays in ((other, True), (JOB, False)):
        ask(answering, desk.Activate(counter=7, by=JOB, window=True, mode="window"))
        live(world, 10)
        ask(answering, desk.Withdraw(7, by))
        live(world, 2)
        way = ask(answering, desk.Status()).way
        assert way is not None and way.state == "staged" and way.chosen_window is stays, by
    weekly.append(SUNDAYS)
    world.wall = at("2026-11-22T03:00:00")
    live(world, 20)
    assert not used(world), "it was taken back"
    ask(answering, desk.Activate(counter=7, by=JOB, window=True, mode="window"))
    live(world, 20)
    assert used(world)


def test_two_people_take_a_box_back_to_the_release_before(monkeypatch: pytest.MonkeyPatch) -> None:
    world = staged(World(monkeypatch, tier=1))
    world.put(facts.Chosen(7, Choice(by=JOB, until=0.0)))
    world.until(lambda journal: journal.last is not None)
    assert world.link == "7-aa"
    ask(counter(world), desk.Rollback(6, JOB))
    world.until(lambda journal: journal.attempt is None and journal.running.counter == 6)
    assert world.link == "" and world.ends() == ["succeeded", "succeeded"]
    assert world.journal.highest == 7, "nothing older is taken from the channel all the same"
