"""docs/protocol.md and the tests say the same: every MUST has an id, every id a test that carries it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text()
MARK = re.compile(r"^@pytest\.mark\.protocol\(([^)]*)\)\n(?:@.*\n)*(?:async )?def test_", re.M)


def _rules() -> dict[str, str]:
    return dict(re.findall(r"^- \[(P\d+)\] (.*(?:\n  .*)*)", PAGE, flags=re.M))


def _carried() -> set[str]:
    marks = (
        mark
        for path in (ROOT / "tests").rglob("test_*.py")
        for mark in re.findall(
            r"^@pytest\.mark\.protocol\(([^)]*)\)\n(?:@.*\n)*(?:async )?def test_", path.read_text(), re.M
        )
    )
    return {ident for mark in marks for ident in re.findall(r'"(P\d+)"', mark)}


def test_every_must_has_an_id() -> None:
    body = PAGE.partition("## Identities")[2]
    inside = sum(len(re.findall(r"\bMUST\b", text)) for text in _rules().values())
    assert len(re.findall(r"\bMUST\b", body)) == inside
    assert all("MUST" in text for text in _rules().values())


def test_ids_are_in_order_and_each_is_held_by_a_test() -> None:
    rules = list(_rules())
    assert rules == [f"P{number}" for number in range(1, len(rules) + 1)]
    assert _carried() == set(rules)
