"""Runs against sets: the same answers for anything."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from sekisho.center import runs

SETS = st.sets(st.integers(min_value=1, max_value=60))


@given(SETS, SETS)
def test_runs_are_sets_written_short(one: set[int], other: set[int]) -> None:
    mine, theirs = runs.of(one), runs.of(other)
    assert _numbers(mine) == one
    assert all(first > last + 1 for (_, last), (first, _) in itertools.pairwise(mine))
    assert runs.union([*mine, *theirs]) == runs.of(one | other)
    assert runs.minus(mine, theirs) == runs.of(one - other)
    assert {number for number in range(62) if runs.holds(mine, number)} == one


def _numbers(some: list[runs.Run]) -> set[int]:
    return {number for first, last in some for number in range(first, last + 1)}
