"""What one measurement says, what it is held against, and how both are printed. No input or output here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """One promised figure as it came out."""

    name: str
    what: str
    value: float
    unit: str
    bound: float
    sense: Literal["at least", "at most", "report"]
    detail: dict[str, float] = {}
    """What the value was made of, for a person who wants to know why."""

    @property
    def held(self) -> bool:
        if self.sense == "report":
            return True
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


class Report(msgspec.Struct, frozen=True):
    """One run."""

    at: str
    cores: int
    rules: int
    """Suricata rules in both engines."""
    figures: list[Figure]
    notes: list[str] = []

    @property
    def held(self) -> bool:
        return all(figure.held for figure in self.figures)


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(report: Report) -> str:
    """The report for people."""
    lines = [f"{report.at}, {report.cores} cores, {report.rules} Suricata rules", ""]
    for figure in report.figures:
        word = "" if figure.sense == "report" else f"{figure.sense} {figure.bound:g}"
        mark = "    " if figure.sense == "report" else "ok  " if figure.held else "MISS"
        lines.append(f"{mark} {figure.what:<62} {figure.value:>8.2f} {figure.unit:<5} {word}")
        lines += [f"       {key:<40} {value:>10.2f}" for key, value in figure.detail.items()]
    return "\n".join([*lines, *report.notes, ""])
