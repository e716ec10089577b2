"""A contract's states: only the ways that are drawn, no deletion before its day, in whatever order things are asked."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.contracts import state
from sekisho.center.contracts.state import Contract

TODAY = dt.date(2026, 4, 1)
WAYS = {
    ("active", "ending"),
    ("ending", "ending"),
    ("ending", "active"),
    ("ending", "ended"),
    ("ended", "active"),
    ("ended", "deleting"),
    ("deleting", "deleted"),
}


class Life(RuleBasedStateMachine):
    """Everybody asks for anything on any day; time goes on."""

    @initialize()
    def begin(self) -> None:
        self.contract, self.today = Contract("t1"), TODAY
        self.ways: list[tuple[str, str]] = []

    def _turn(self, contract: Contract) -> None:
        self.ways.append((self.contract.state, contract.state))
        self.contract = contract

    @rule(days=st.integers(0, 200))
    def time_goes_on(self, days: int) -> None:
        self.today += dt.timedelta(days=days)

    @rule(days=st.integers(-400, 4000), early=st.booleans())
    def end_is_asked_for(self, days: int, early: bool) -> None:
        last = self.today + dt.timedelta(days=days)
        with suppress(RejectedInput):
            self._turn(state.ask_end(self.contract, "a@b", last, "x" * 900, self.today, early=early))
            assert last >= (self.today if early else state.months_after(self.today, 2))

    @rule()
    def withdrawn(self) -> None:
        with suppress(RejectedInput):
            self._turn(state.withdraw(self.contract))

    @rule()
    def the_day_comes(self) -> None:
        with suppress(RejectedInput):
            last = self.contract.ends_on
            self._turn(state.end(self.contract, self.today))
            assert str(self.today) > last

    @rule()
    def comes_back(self) -> None:
        with suppress(RejectedInput):
            self._turn(state.resume(self.contract))

    @rule()
    def deletion_begins(self) -> None:
        with suppress(RejectedInput):
            ended = dt.date.fromisoformat(self.contract.ended_on or "9999-01-01")
            self._turn(state.begin_deletion(self.contract, self.today))
            assert self.today > state.months_after(ended, 3)

    @rule()
    def deletion_is_done(self) -> None:
        with suppress(RejectedInput):
            self._turn(state.finish_deletion(self.contract))

    @invariant()
    def only_drawn_ways(self) -> None:
        assert set(self.ways) <= WAYS
        assert len(self.contract.reason) <= state.REASON_CAP
        assert (self.contract.state == "active") == (self.contract == Contract("t1"))


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)


@pytest.mark.parametrize(
    ("day", "months", "then"),
    [("2026-01-31", 1, "2026-02-28"), ("2027-11-30", 3, "2028-02-29"), ("2026-12-15", 2, "2027-02-15")],
)
def test_months_end_where_the_calendar_does(day: str, months: int, then: str) -> None:
    assert str(state.months_after(dt.date.fromisoformat(day), months)) == then


def test_a_whole_life() -> None:
    asked = state.ask_end(Contract("t1"), "a@b", dt.date(2026, 6, 30), "moving", TODAY, early=False)
    with pytest.raises(RejectedInput, match="in force until"):
        state.end(asked, dt.date(2026, 6, 30))
    ended = state.end(asked, dt.date(2026, 7, 1))
    assert ended.kept_until == "2026-10-01"
    with pytest.raises(RejectedInput, match="kept until"):
        state.begin_deletion(ended, dt.date(2026, 10, 1))
    deleting = state.begin_deletion(ended, dt.date(2026, 10, 2))
    with pytest.raises(RejectedInput, match="is deleting"):
        state.resume(deleting)
    assert state.finish_deletion(deleting).state == "deleted"
