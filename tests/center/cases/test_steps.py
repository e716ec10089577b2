"""The rules of a case, walked at random: no way leads past the checklist, and what is closed stays closed."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sekisho.center.cases import steps
from sekisho.center.cases.steps import Ask, Close, Count, Dispatch, Mark, Move, Note, Refused, Withdraw, Work, step
from sekisho.center.cases.window import Window, year

TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")
BEGAN = dt.datetime(2026, 11, 1, 3, tzinfo=dt.UTC)
WINDOW = Window(BEGAN, "mail", TOKYO)

_marks = st.builds(Mark, st.sampled_from(steps.CHECKS), st.booleans(), st.sampled_from(("", *steps.FINDINGS)))
_moves: st.SearchStrategy[Move] = st.one_of(
    _marks,
    _marks,
    st.builds(Ask, st.sampled_from(("", "青木 03-0000-0000"))),
    st.just(Withdraw()),
    st.builds(Dispatch, st.sampled_from(("", "技術屋")), st.dates(dt.date(2026, 11, 1), dt.date(2027, 2, 1))),
    st.builds(Count, st.booleans()),
    st.builds(Close, st.sampled_from(steps.OUTCOMES), st.sampled_from(("", "済"))),
    st.builds(Note, st.text(max_size=5)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(_moves, st.integers(0, 3 * 86400)), max_size=40))
def test_whatever_is_tried_nobody_comes_without_the_checklist_and_the_end_is_the_end(
    tried: list[tuple[Move, int]],
) -> None:
    work, now = Work(), BEGAN
    truly: dict[str, bool] = {}
    """What was really ticked and not taken back, by the test's own book."""
    for move, later in tried:
        now += dt.timedelta(seconds=later)
        before = work
        try:
            work = step(work, move, "somebody", now, WINDOW)
        except Refused:
            assert work is before
            continue
        if isinstance(move, Mark):
            truly[move.check] = move.done
            if not move.done and move.check == "updated":
                truly["scanned"] = False
        if before.state != "asked" and work.state == "asked":
            assert all(truly.get(check) for check in ("ours", "updated", "scanned")), "asked without the checklist"
            assert work.finding, "asked without what the scan found"
            assert now <= BEGAN + dt.timedelta(days=30), "asked after the window"
            assert before.state == "scanning"
        if work.state == "dispatched" and before.state != "dispatched":
            assert before.state == "asked"
        if work.used:
            assert dt.date.fromisoformat(work.visit) <= WINDOW.last_day
        assert before.state != "closed", "something happened after the end"
        assert msgspec.json.decode(msgspec.json.encode(work), type=Work) == work


def _ready(now: dt.datetime = BEGAN) -> Work:
    work = Work()
    for check in steps.DEMANDED:
        work = step(work, Mark(check, done=True, finding="remains" if check == "scanned" else ""), "a", now, WINDOW)
    return work


def test_the_whole_way_can_be_gone() -> None:
    work = step(_ready(), Ask("青木"), "a", BEGAN, WINDOW)
    work = step(work, Dispatch("技術屋", dt.date(2026, 11, 3)), "h", BEGAN, WINDOW)
    with pytest.raises(Refused, match="uncounted"):
        step(work, Close("helped", "済"), "h", BEGAN, WINDOW)
    work = step(work, Count(used=True), "h", BEGAN, WINDOW)
    assert step(work, Close("helped", "済"), "h", BEGAN, WINDOW).state == "closed"


def test_a_scan_with_old_definitions_does_not_count() -> None:
    with pytest.raises(Refused, match="update_first"):
        step(Work(), Mark("scanned", done=True, finding="nothing"), "a", BEGAN, WINDOW)
    work = step(_ready(), Mark("updated", done=False), "a", BEGAN, WINDOW)
    assert "scanned" not in work.checks


def test_the_last_second_is_in_the_window_and_the_next_is_not() -> None:
    last = BEGAN + dt.timedelta(days=30)
    assert step(_ready(), Ask("a"), "a", last, WINDOW).state == "asked"
    with pytest.raises(Refused, match="window_over"):
        step(_ready(), Ask("a"), "a", last + dt.timedelta(seconds=1), WINDOW)


def test_days_left_are_those_of_the_customers_calendar() -> None:
    late = Window(dt.datetime(2026, 11, 1, 14, 50, tzinfo=dt.UTC), "received", TOKYO)  # 23:50 in Tokyo
    assert late.days_left(late.since) == 30
    assert late.days_left(late.since + dt.timedelta(minutes=20)) == 29
    assert late.days_left(late.until) == 0
    assert late.days_left(late.until + dt.timedelta(seconds=1)) == -1


def test_a_visit_after_the_window_is_no_use_of_the_insurance() -> None:
    work = step(step(_ready(), Ask("a"), "a", BEGAN, WINDOW), Dispatch("v", dt.date(2026, 12, 2)), "h", BEGAN, WINDOW)
    with pytest.raises(Refused, match="late_visit"):
        step(work, Count(used=True), "h", BEGAN, WINDOW)
    assert step(work, Count(used=False), "h", BEGAN, WINDOW).used is False


@pytest.mark.parametrize(
    ("began", "today", "first", "last"),
    [
        (dt.date(2026, 5, 11), dt.date(2026, 11, 21), dt.date(2026, 6, 1), dt.date(2027, 5, 31)),
        (dt.date(2024, 12, 6), dt.date(2026, 11, 21), dt.date(2026, 1, 1), dt.date(2026, 12, 31)),
        (dt.date(2026, 11, 9), dt.date(2026, 11, 21), dt.date(2026, 12, 1), dt.date(2027, 11, 30)),
        (None, dt.date(2026, 11, 21), dt.date(2026, 4, 1), dt.date(2027, 3, 31)),
        (None, dt.date(2027, 3, 31), dt.date(2026, 4, 1), dt.date(2027, 3, 31)),
    ],
)
def test_uses_are_counted_in_the_insurances_year(
    began: dt.date | None, today: dt.date, first: dt.date, last: dt.date
) -> None:
    found = year(today, began)
    assert (found.first, found.last) == (first, last)
