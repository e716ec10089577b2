"""A clock that boots wrong or jumps is measured against monotonic time; only a fresh answer sets it right."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.telemetry import clocks
from sekisho.telemetry.clocks import NO_CLOCK, RELEASED, SMALL_S, Clocks
from sekisho.telemetry.question import ASK_AGAIN_S, CONFIRM_S, PATIENCE_S, ROUND_TRIP_S, Question

TRUE = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()
"""True time at monotonic zero of the present boot."""
WRONG = [0.0, dt.datetime(2099, 1, 1, tzinfo=dt.UTC).timestamp(), TRUE - 90 * 86400]


def text(unix: float) -> str:
    return dt.datetime.fromtimestamp(unix, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("wrong", WRONG)
def test_times_told_by_a_wrong_clock_are_corrected_once_the_time_is_known(wrong: float) -> None:
    box = Clocks("b1", wrong, 0.0)
    box.observe(wrong + 100, 100.0)
    told = text(wrong + 50)
    assert box.off(box.of(told)) is None and box.true_time(100.0) is None and not box.right
    box.confirm(TRUE + 100, 100.0)
    off = box.off(box.of(told))
    assert off is not None
    assert abs(wrong + 50 + off - (TRUE + 50)) < 0.01
    assert box.true_time(160.0) == pytest.approx(TRUE + 160) and not box.right


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("answer_first", [False, True])
def test_a_jump_to_the_right_time_leaves_what_came_after_it_alone(wrong: float, answer_first: bool) -> None:
    box = Clocks("b1", wrong, 0.0)
    box.observe(wrong + 100, 100.0)
    if answer_first:
        box.confirm(TRUE + 100, 100.0)
    box.observe(TRUE + 101, 101.0)
    if not answer_first:
        box.confirm(TRUE + 102, 102.0)
    before, after = box.of(text(wrong + 99)), box.of(text(TRUE + 101))
    assert before != after
    assert box.off(before) == pytest.approx(TRUE - wrong) and box.off(after) == 0.0
    assert box.right


def test_a_jump_away_from_the_right_time_is_corrected_after_it_only() -> None:
    box = Clocks("b1", TRUE, 0.0)
    box.confirm(TRUE, 0.0)
    box.observe(TRUE + 100, 100.0)
    box.observe(TRUE + 101 - 7200, 101.0)
    assert box.off(box.of(text(TRUE + 99))) == 0.0
    assert box.off(box.of(text(TRUE + 101 - 7200))) == pytest.approx(7200)
    assert not box.right


def test_a_right_clock_needs_nothing_added_and_small_errors_are_none() -> None:
    box = Clocks("b1", TRUE + SMALL_S / 2, 0.0)
    box.confirm(TRUE + 10, 10.0)
    assert box.off(box.of(text(TRUE + 1))) == 0.0 and box.right


def test_unconfirmed_clocks_that_may_be_right_are_believed_when_nobody_answers_others_never() -> None:
    for wall, believed in ((TRUE, True), (0.0, False), (WRONG[1], False)):
        box = Clocks("b1", wall, 0.0)
        assert box.off(box.of(text(wall))) is None
        box.presume()
        assert (box.off(box.of(text(wall))) == 0.0) is believed
        assert box.plausible_wall() == (wall if believed else RELEASED)


def test_a_time_that_no_clock_told_is_left_alone() -> None:
    box = Clocks("b1", TRUE, 0.0)
    for at in (text(TRUE - 86400), text(TRUE + 86400), "", "yesterday", "9999-99-99T00:00:00Z"):
        assert box.of(at) == NO_CLOCK and box.off(NO_CLOCK) == 0.0


def kept(box: Clocks, boot: str, wall: float, mono: float) -> Clocks:
    """The same box after its daemon was killed."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(clocks.SCHEMA + "CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);")
        box.save(db)
        return clocks.load(db, boot, wall, mono)


def test_a_kill_forgets_neither_clocks_nor_the_answer() -> None:
    box = Clocks("b1", 0.0, 0.0)
    box.observe(100.0, 100.0)
    box.confirm(TRUE + 100, 100.0)
    again = kept(box, "b1", 130.0, 130.0)
    assert again.off(again.of(text(50.0))) == pytest.approx(TRUE)
    assert again.true_time(130.0) == pytest.approx(TRUE + 130)
    assert again.floor == pytest.approx(TRUE + 100)


def test_a_jump_while_the_daemon_was_dead_is_seen_when_it_is_back() -> None:
    box = Clocks("b1", 0.0, 0.0)
    again = kept(box, "b1", TRUE + 60, 60.0)
    again.confirm(TRUE + 60, 60.0)
    assert again.off(again.of(text(30.0))) == pytest.approx(TRUE)
    assert again.off(again.of(text(TRUE + 30))) == 0.0


def test_an_earlier_boot_in_1970_is_placed_before_this_one_and_one_with_a_right_clock_stays() -> None:
    right = Clocks("b1", TRUE - 5000, 0.0)
    right.observe(TRUE - 4000, 1000.0)
    wrong = kept(right, "b2", 0.0, 0.0)
    wrong.observe(600.0, 600.0)
    now = kept(wrong, "b3", 5.0, 5.0)
    now.confirm(TRUE + 5, 5.0)
    assert now.off(now.of(text(TRUE - 4500))) == 0.0
    assert now.off(2) == pytest.approx(TRUE + 5 - 600), "its end touches the first look at this boot"


@given(
    st.lists(st.tuples(st.floats(0.1, 5000), st.floats(-4e9, 4e9)), max_size=12),
    st.integers(0, 12),
)
def test_whatever_the_jumps_each_clock_of_a_boot_comes_out_right(
    jumps: list[tuple[float, float]], answered: int
) -> None:
    mono = wall = 10.0
    box = Clocks("b1", wall, mono)
    told: dict[int, tuple[float, float]] = {}
    for number, (seconds, jump) in enumerate(jumps):
        if number == answered:
            box.confirm(TRUE + mono, mono)
        mono, wall = mono + seconds, wall + seconds + (jump if abs(jump) > 1 else 0.0)
        box.observe(wall, mono)
        told[box._clocks[-1].id] = (wall, mono)
    box.confirm(TRUE + mono, mono)
    for clock, (at, when) in told.items():
        off = box.off(clock)
        assert off is not None
        assert abs(at + off - (TRUE + when)) <= SMALL_S + 0.1


def test_rows_of_few_clocks_are_kept_and_the_table_stays_small() -> None:
    box = Clocks("b1", TRUE, 0.0)
    for number in range(1, 200):
        box.observe(TRUE + number * 100, float(number))
    assert len(box._clocks) == clocks.MAX_CLOCKS and box.off(1) == 0.0


def test_a_boot_is_named_once(tmp_path: Path) -> None:
    first = clocks.boot_mark(tmp_path)
    assert clocks.boot_mark(tmp_path) == first
    (tmp_path / ".boot").unlink()
    assert clocks.boot_mark(tmp_path) != first


def test_age_counts_unless_the_clock_is_years_ahead_of_all_that_is_kept() -> None:
    assert clocks.may_expire(TRUE, [TRUE - 86400 * 100, 9.0])
    assert clocks.may_expire(TRUE, [])
    assert clocks.may_expire(TRUE, [WRONG[1], TRUE - 5])
    assert not clocks.may_expire(WRONG[1], [TRUE, WRONG[1]])


def test_wall_and_monotonic_time_are_read_together() -> None:
    wall, mono = clocks.read()
    again, later = clocks.read()
    assert abs((again - later) - (wall - mono)) < 0.2


@pytest.mark.protocol("P24")
def test_only_the_fresh_answer_tells_the_time_and_only_once() -> None:
    question = Question()
    question.connected(0.0)
    assert question.due(0.0)
    first = question.ask(0.0)
    second = question.ask(1.0)
    assert question.answer(first, 5_000, 1.5) is None, "the answer to a birth before"
    assert question.answer("", 5_000, 1.5) is None, "no answer to a birth at all"
    assert question.answer(second, 5_000, 2.0) == pytest.approx(5.5)
    assert question.answer(second, 1, 2.0) is None, "the same again"
    assert not question.due(2.0 + CONFIRM_S - 1) and question.due(2.0 + CONFIRM_S)


def test_a_late_answer_says_nothing_and_is_asked_for_again() -> None:
    question = Question()
    question.connected(0.0)
    nonce = question.ask(0.0)
    assert question.answer(nonce, 5_000, ROUND_TRIP_S + 0.1) is None
    assert question.due(ASK_AGAIN_S)


def test_patience_ends_only_while_connected() -> None:
    question = Question()
    assert not question.out_of_patience(1e9)
    question.connected(100.0)
    assert not question.out_of_patience(100.0 + PATIENCE_S - 0.1)
    assert question.out_of_patience(100.0 + PATIENCE_S)
