"""Arithmetic on runs of numbers: sorted, disjoint pairs (first, last), both included. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

Run = tuple[int, int]


def of(numbers: Iterable[int]) -> list[Run]:
    """The fewest runs that hold exactly these numbers."""
    return union((number, number) for number in numbers)


def union(runs: Iterable[Run]) -> list[Run]:
    """All of it, neighbours joined."""
    joined: list[Run] = []
    for first, last in sorted(runs):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def minus(runs: Sequence[Run], taken: Sequence[Run]) -> list[Run]:
    """What of `runs` is not in `taken`; both as `union` gives them."""
    left: list[Run] = []
    at = 0
    for first, last in runs:
        while at < len(taken) and taken[at][1] < first:
            at += 1
        ahead = at
        while ahead < len(taken) and taken[ahead][0] <= last:
            if taken[ahead][0] > first:
                left.append((first, taken[ahead][0] - 1))
            first = taken[ahead][1] + 1
            ahead += 1
        if first <= last:
            left.append((first, last))
    return left


def holds(runs: Sequence[Run], number: int) -> bool:
    """Whether a run of `runs` (as `union` gives them) has the number."""
    at = bisect_right(runs, number, key=lambda run: run[0])
    return at > 0 and runs[at - 1][1] >= number
