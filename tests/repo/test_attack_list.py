"""Every attack of docs/attacks.md is tried by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = {
    "arbitrary install", "endless data", "extraneous dependencies", "fast-forward, and recovery", "indefinite freeze",
    "malicious mirror, drop-request", "mix-and-match", "rollback", "cut, then rollback",
    "key compromise, each role, below the threshold", "wrong software, wrong hardware", "eavesdrop", "slow retrieval",
    "partial bundle", "clock back", "clock forward", "job replay", "job for another gateway",
    "retained acknowledgement, forged or old",
}  # fmt: skip


def test_every_attack_has_named_tests_that_exist() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and "---" not in line
    ][1:]
    assert {row[0] for row in rows} - {""} == LIST
    for row in rows:
        named = re.findall(r"`(tests/[^`]+)`", row[2])
        assert named, row
        for one in named:
            path, _, test = one.partition("::")
            assert re.search(rf"^(def {test}\(|{test} = )", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), (
                one
            )
