"""Times of the week, their edges, nights across midnight and across the week's end."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.policy.schedules import WEEK_MIN, is_within, next_edge, parse_times

TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=TOKYO)


def test_a_working_day_begins_and_ends_on_the_minute() -> None:
    spans = parse_times(("mon-fri 09:00-18:00",))
    assert not is_within(spans, at("2026-11-20 08:59:59"))
    assert is_within(spans, at("2026-11-20 09:00:00"))
    assert not is_within(spans, at("2026-11-20 18:00:00"))
    assert not is_within(spans, at("2026-11-21 10:00:00"))  # a Saturday
    assert next_edge(spans, at("2026-11-20 18:00:00")) == at("2026-11-23 09:00:00")


def test_a_sunday_night_reaches_into_monday() -> None:
    spans = parse_times(("sun 22:00-06:00",))
    assert is_within(spans, at("2026-11-22 23:00:00")) and is_within(spans, at("2026-11-23 05:59:00"))
    assert not is_within(spans, at("2026-11-22 05:00:00"))
    assert next_edge(spans, at("2026-11-23 00:30:00")) == at("2026-11-23 06:00:00")


@pytest.mark.parametrize("text", ["mon", "mon 9-18", "funday 09:00-10:00", "mon 09:60-10:00", "mon 09:00-09:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|go from"):
        parse_times((text,))


DAY = st.sampled_from(["mon", "tue-thu", "sat,sun", "fri-mon", "daily"])
CLOCK = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda hm: f"{hm[0]:02}:{hm[1]:02}")


@given(st.lists(st.tuples(DAY, CLOCK, CLOCK).filter(lambda t: t[1] != t[2]), min_size=1, max_size=4),
       st.integers(0, WEEK_MIN - 1))  # fmt: skip
def test_nothing_changes_before_the_next_edge(ranges: list[tuple[str, str, str]], minute: int) -> None:
    spans = parse_times(tuple(f"{day} {start}-{end}" for day, start, end in ranges))
    now = at("2026-11-16 00:00:00") + dt.timedelta(minutes=minute)
    edge = next_edge(spans, now)
    assert edge is not None and edge > now
    state = is_within(spans, now)
    for step in range(1, int((edge - now).total_seconds() // 60), 7):
        assert is_within(spans, now + dt.timedelta(minutes=step)) == state
