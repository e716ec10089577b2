"""docs/stars.md says what the rubric does: its tables are the data's, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sekisho.telemetry import reasons, stars
from sekisho.telemetry.stars import Row

PAGE = Path(__file__).parents[2] / "docs" / "stars.md"
CONDITIONS = (
    "kind", "class_is", "class_not", "flow", "side", "outcome", "sure", "device", "target", "function", "excepted",
    "malicious", "reached", "reason", "part", "state", "tier",
)  # fmt: skip
SPELLED = {"class_is": "class", "class_not": "not class"}


def conditions(row: Row) -> str:
    """What one line of the rubric asks for."""
    asked = []
    for name in CONDITIONS:
        if wanted := getattr(row, name):
            asked.append(f"{SPELLED.get(name, name)} {'/'.join(word or '?' for word in wanted)}")
    if row.seconds_from:
        asked.append(f"{row.seconds_from:.0f} s and longer")
    if row.rules_upto is not None:
        asked.append(f"rules {row.rules_upto}")
    return f"{row.event}: {', '.join(asked)}" if asked else f"{row.event}"


def rows() -> Iterator[str]:
    """One line per code, most important first."""
    told = [row for row in stars.table().row if row.stars]
    for number, code in sorted({(row.stars, row.why) for row in told}, key=lambda one: (-one[0], one[1])):
        when = "; or ".join(conditions(row) for row in told if (row.stars, row.why) == (number, code))
        ja, en = reasons.of(code, "ja").what, reasons.of(code, "en").what
        yield f"| {'★' * number} | `{code}` | {ja} | {en} | {when} |"


def kinds() -> Iterator[str]:
    for name in dict.fromkeys(kind.name for kind in stars.table().kind):
        lines = [kind for kind in stars.table().kind if kind.name == name]
        classes = ", ".join(sorted({word for kind in lines for word in kind.classes}))
        groups = ", ".join(sorted({word for kind in lines for word in kind.groups}))
        words = "yes" if any(kind.words for kind in lines) else ""
        yield f"| {name} | {classes} | {groups} | {words} |"


@pytest.mark.parametrize("made", [rows, kinds])
def test_the_page_holds_the_tables_as_they_are(made: object) -> None:
    assert callable(made)
    expected = list(made())
    there = [line for line in PAGE.read_text().splitlines() if line in set(expected)]
    assert there == expected, "docs/stars.md must hold these lines:\n" + "\n".join(expected)


def test_the_page_holds_no_line_the_rubric_does_not_have() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ★") and "`" in line]
    assert table == list(rows())
