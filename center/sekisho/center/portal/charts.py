"""Charts as SVG without script and without inline style, so that they live under the pages' policy and in a PDF.

What a chart looks like is in attributes on its elements, which is all a PDF needs; on a page portal.css overrides them
by class (`color-0`...), so that charts follow light and dark. Each comes with its numbers: a picture alone tells
nothing to who cannot see it.
"""

from __future__ import annotations

import math
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

import markupsafe
import msgspec
import pygal

sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]
"""pygal puts a finder of modules for its plug-ins there, of a kind that Python 3.11 warns of at every import."""

COLOURS: Final = ("#1f5f8b", "#c2571a", "#5c7f3a", "#8a4f9e", "#6b7780", "#a3201c")
"""Of the series in their order, where no style sheet says otherwise; each holds 3:1 on white (WCAG 1.4.11)."""
LABELS_CAP: Final = 7
"""Names under the axis; of more every second, third, ... is written."""
NAME_CAP: Final = 24
BESIDE_CAP: Final = 240.0
"""Units of the picture's width that names beside horizontal bars may take."""
_MARGIN: Final = 8
_LETTER: Final = 6.0
"""What pygal allows for a character at its own size of letters."""
_INK, _LINE = "#3c474d", "#ccd5da"
_DROPPED: Final = ("defs", "desc", "title")
_OVERLAYS: Final = ("overlay", "text-overlay", "tooltip-overlay")


class Series(msgspec.Struct, frozen=True):
    """One row of numbers, as many as there are labels; None: not known."""

    name: str
    values: Sequence[float | None]


class Chart(msgspec.Struct, frozen=True):
    """A picture and what it is made of; templates show it with `figure` of chart.html."""

    title: str
    labels: Sequence[str]
    series: Sequence[Series]
    svg: markupsafe.Markup
    unit: str = ""


def bars(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    stacked: bool = False,
    unit: str = "",
    width: int = 560,
    height: int = 240,
) -> Chart:
    """Vertical bars, side by side or upon each other; at most as many series as there are colours."""
    made = (pygal.StackedBar if stacked else pygal.Bar)(**_settings(labels, series, width, height, stacked=stacked))
    return _chart(made, title, labels, series, unit)


def rows(title: str, labels: Sequence[str], series: Sequence[Series], *, unit: str = "", width: int = 560) -> Chart:
    """Horizontal bars, the first label on top: for names, which are longer than days."""
    height = 60 + 34 * max(1, len(labels))
    turned = [Series(one.name, tuple(reversed(one.values))) for one in series]
    names = tuple(_beside(label) for label in reversed(labels))
    longest = max((_breadth(name) for name in names), default=0)
    room = max(0.0, longest - _LETTER * max((len(name) for name in names), default=0))
    made = pygal.HorizontalBar(**_settings(names, turned, width, height, every=1), margin_left=_MARGIN + room)
    return _chart(made, title, names, turned, unit, shown=(labels, series))


def lines(
    title: str, labels: Sequence[str], series: Sequence[Series], *, unit: str = "", width: int = 560, height: int = 240
) -> Chart:
    """Lines over time; they are interrupted where a value is not known."""
    made = pygal.Line(**_settings(labels, series, width, height), show_dots=len(labels) < 2, allow_interruptions=True)
    return _chart(made, title, labels, series, unit)


def _settings(
    labels: Sequence[str],
    series: Sequence[Series],
    width: int,
    height: int,
    *,
    stacked: bool = False,
    every: int = 0,
) -> dict[str, Any]:
    if len(series) > len(COLOURS):
        raise ValueError("more series than colours")
    step = every or max(1, math.ceil(len(labels) / LABELS_CAP))
    numbers = [[value or 0 for value in one.values] for one in series]
    highest = max((sum(column) if stacked else max(column) for column in zip(*numbers, strict=True)), default=0)
    return {
        "width": width,
        "height": height,
        "js": [],
        "css": [],
        "classes": ("chart",),
        "show_legend": False,
        "margin": _MARGIN,
        "x_labels": [_cut(label) if index % step == 0 else "" for index, label in enumerate(labels)],
        "truncate_label": NAME_CAP,
        "range": (0, highest) if highest >= 4 else (0, 4),
        "max_scale": 5,
        "formatter": _number,
        "rounded_bars": 2,
        "spacing": 14,
        "no_data_text": "-",
        "force_uri_protocol": "https",
    }


def _chart(
    made: Any,
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    unit: str,
    shown: tuple[Sequence[str], Sequence[Series]] | None = None,
) -> Chart:
    for one in series:
        if len(one.values) != len(labels):
            raise ValueError("as many values as labels")
        made.add("", list(one.values))
    root = made.render_tree()
    _strip(root)
    root.attrib.pop("id", None)
    root.attrib |= {"role": "img", "aria-label": title}
    first, rest = shown or (labels, series)
    text = ElementTree.tostring(_plain(root), encoding="unicode")
    return Chart(title, first, rest, markupsafe.Markup(text), unit)  # noqa: S704 - made here, its texts escaped


def _strip(element: Any) -> None:
    """Take out style, script, tooltips and everything that names the library; what is left gets its looks."""
    for child in list(element):
        names = set(str(child.get("class", "")).split())
        if not isinstance(child.tag, str) or _local(child.tag) in _DROPPED or names & set(_OVERLAYS):
            element.remove(child)
            continue
        _strip(child)


def _plain(element: Any, colour: str = "") -> ElementTree.Element:
    """The same tree without namespaces prefixes and `style`, with presentation attributes instead."""
    classes = str(element.get("class", "")).split()
    colour = next((COLOURS[int(name[6:])] for name in classes if name.startswith("color-")), colour)
    made = ElementTree.Element(_local(element.tag), {k: v for k, v in element.attrib.items() if k != "style"})
    if made.tag == "svg":
        made.set("xmlns", "http://www.w3.org/2000/svg")
    for name, value in _looks(made.tag, classes, colour).items():
        made.set(name, value)
    made.text = element.text
    made.extend(_plain(child, colour) for child in element)
    if "x" in classes and "axis" in classes:
        _middle(made)
    return made


def _looks(tag: str, classes: Sequence[str], colour: str) -> dict[str, str]:
    if tag == "text":
        return {"font-size": "12", "font-family": "sans-serif", "fill": _INK, "text-anchor": "end"}
    if tag == "rect":
        return {"fill": "none"} if "background" in classes else {"fill": colour or "none"}
    if tag == "path":
        if "line" in classes and colour:
            return {"fill": "none", "stroke": colour, "stroke-width": "2"}
        return {"fill": "none", "stroke": _LINE, "stroke-width": "1"}
    return {"fill": colour} if tag == "circle" else {}


def _middle(axis: ElementTree.Element) -> None:
    """Names under a vertical axis stand in its middle, and no line rises from them."""
    for guide in axis.iter("g"):
        for path in guide.findall("path"):
            if "guide" in str(path.get("class")):
                guide.remove(path)
    for text in axis.iter("text"):
        text.set("text-anchor", "middle")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _breadth(text: str) -> float:
    """Of a name beside an axis as a phone draws it: East Asian characters are twice as wide (UAX 11)."""
    return sum(18.0 if unicodedata.east_asian_width(char) in "WFA" else 10.5 for char in text)


def _beside(label: str) -> str:
    """The label, cut so that the bars keep more than half of the width; the table has it whole."""
    name = _cut(label)
    while _breadth(name) > BESIDE_CAP:
        name = name[:-2] + "…"
    return name


def _cut(label: str) -> str:
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in label[:NAME_CAP])
    return clean if len(label) <= NAME_CAP else clean[:-1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
