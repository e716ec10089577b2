"""A figure says honestly whether it held, and the statistics are what their names say."""

from __future__ import annotations

import msgspec
import pytest

from sekisho.bench.figures import Figure, Report, median, percentile, table


@pytest.mark.parametrize(
    ("sense", "value", "held"),
    [("at least", 0.95, True), ("at least", 0.949, False), ("at most", 5.0, True), ("at most", 5.01, False)],
)
def test_a_figure_holds_up_to_and_at_its_bound(sense: str, value: float, held: bool) -> None:
    bound = 0.95 if sense == "at least" else 5.0
    figure = msgspec.convert(
        {"name": "n", "what": "w", "value": value, "unit": "x", "bound": bound, "sense": sense}, Figure
    )
    assert figure.held is held


def test_one_missed_figure_fails_the_run_and_shows_in_the_table() -> None:
    good = Figure("a", "first", 1.0, "x", 0.95, "at least", {"part": 3.5})
    missed = Figure("b", "second", 9.0, "ms", 5.0, "at most")
    told = Figure("c", "third", 9.0, "MB", 0.0, "report")
    report = Report("2026-01-01T00:00:00+00:00", 2, 18, [good, missed, told], ["a note"])
    assert not report.held
    assert Report("", 2, 18, [good, told]).held
    lines = table(report).splitlines()
    assert [line[:4] for line in lines[2:]] == ["ok  ", "    ", "MISS", "    ", "a no"]
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_median_and_percentile_take_the_nearest_rank() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 99) == 198
    assert percentile(values, 100) == 200
    assert percentile([7.0], 99) == 7
