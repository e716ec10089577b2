"""What is new in a set is read from texts as vendors write them."""

from __future__ import annotations

from pathlib import Path

from sekisho.signatures.keeper import news


def test_a_yara_file_without_a_rule_is_passed_over(tmp_path: Path) -> None:
    now, before = tmp_path / "now", tmp_path / "before"
    for folder in (now, before):
        folder.mkdir()
        (folder / "comments.yar").write_text("// nothing is left of this file\n")
        (folder / "old.yar").write_text("rule Old { condition: false }\n")
    (now / "new.yar").write_text('import "pe"\nprivate rule One { condition: false }\nrule Two { condition: false }\n')
    rules = tmp_path / "suricata.rules"
    rules.write_text("alert tcp any any -> any 9 (sid:1;)\n")
    assert news.compare(rules, rules, now, before).yara == {"One", "Two"}
