"""What a month's figures say should be done: only what follows from them. Pure."""

from __future__ import annotations

from typing import Final, Literal

from sekisho.center.report.figures import Figures

Advice = Literal["silent", "cases", "important", "off", "unlooked", "found_later", "fine"]
OFF_S: Final = 600
"""Inspection was off for longer than a restart takes."""
UNLOOKED: Final = 0.2
"""More of the traffic than this was not looked at."""
LATER: Final = ("file_arrived", "file_known_now")


def advice(figures: Figures) -> list[Advice]:
    """What to do, the most urgent first; `fine` alone where nothing is to be done."""
    found: list[Advice] = []
    if not figures.watched_s and not figures.detections and not figures.traffic.total:
        found.append("silent")
    if figures.cases_open:
        found.append("cases")
    elif figures.important:
        found.append("important")
    if any(reason.why in LATER for reason in figures.reasons):
        found.append("found_later")
    if figures.off_s > OFF_S:
        found.append("off")
    if figures.traffic.total and figures.traffic.unlooked / figures.traffic.total > UNLOOKED:
        found.append("unlooked")
    return found or ["fine"]
