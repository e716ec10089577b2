"""Charts: numbers as pictures without script or inline style, and the same numbers as text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
import weasyprint

from sekisho.center.portal import charts
from sekisho.center.portal.charts import Series

HOSTILE = '"><script>alert(1)</script>\u202e<b onclick=x>'


def test_a_chart_has_nothing_a_strict_policy_forbids() -> None:
    for made in (
        charts.bars(HOSTILE, [HOSTILE, "b"], [Series(HOSTILE, [1, 2]), Series("y", [0, None])], stacked=True),
        charts.rows(HOSTILE, [HOSTILE, "b"], [Series(HOSTILE, [1, 2])]),
        charts.lines(HOSTILE, [HOSTILE, "b"], [Series(HOSTILE, [1, None])]),
    ):
        root = ElementTree.fromstring(made.svg)  # noqa: S314 - made here
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
            "svg",
            "g",
            "path",
            "rect",
            "text",
            "circle",
        }
        names = {name for element in root.iter() for name in element.attrib}
        assert not {name for name in names if name == "style" or name.startswith("on") or "href" in name}
        assert root.get("aria-label") == HOSTILE and root.get("role") == "img"


def test_every_number_has_a_bar_and_names_of_many_are_thinned_out() -> None:
    made = charts.bars("t", [f"d{day}" for day in range(31)], [Series("x", list(range(1, 32)))])
    assert made.svg.count('class="rect') == 31
    names = re.findall(r">(d\d+)<", made.svg)
    assert names[0] == "d0" and len(names) <= charts.LABELS_CAP


def test_no_data_and_nothing_but_zeros_are_charts_too() -> None:
    assert "<svg" in charts.bars("t", [], []).svg
    assert "<svg" in charts.bars("t", ["a"], [Series("x", [0])]).svg


def test_as_many_values_as_labels_are_demanded() -> None:
    with pytest.raises(ValueError, match="labels"):
        charts.bars("t", ["a", "b"], [Series("x", [1])])


def test_a_chart_has_its_colours_in_a_pdf_as_well() -> None:
    made = charts.bars("t", ["a"], [Series("x", [3])])
    assert f'fill="{charts.COLOURS[0]}"' in made.svg
    assert weasyprint.HTML(string=made.svg).write_pdf()[:5] == b"%PDF-"
