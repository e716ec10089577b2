"""A centre with sources of its own that a test may change, and the command as a person gives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RULE = (
    'alert http any any -> any any (msg:"{cat} number {sid}"; flow:established,to_server; http.uri; content:"/{sid}";'
    " classtype:{kind}; sid:{sid}; rev:1;)\n"
)
YARA = 'rule {name} {{ strings: $a = "{name} is very bad indeed" condition: $a }}\n'
RECIPE = """
[[rules]]
name = "first"
path = "first.rules"

[[yara]]
name = "repo"
path = "repo"

[[policy]]
action = "drop"
categories = ["ET MALWARE"]
"""


def rule(sid: int, category: str = "ET MALWARE", kind: str = "trojan-activity") -> str:
    return RULE.format(sid=sid, cat=category, kind=kind)


class Centre:
    """A directory with a recipe, its sources, and the sets that were built."""

    RECIPE = RECIPE
    rule = staticmethod(rule)

    def __init__(self, root: Path) -> None:
        self.root, self.sets = root, root / "sets"
        (root / "repo/rules").mkdir(parents=True)
        (root / "repo/LICENSE").write_text("free")
        self.recipe(RECIPE)
        self.rules(*(rule(sid) for sid in range(1, 6)), rule(6, "ET INFO"))
        self.yara("one", "two")

    def recipe(self, text: str) -> None:
        (self.root / "sets.toml").write_text(text)

    def rules(self, *lines: str) -> None:
        (self.root / "first.rules").write_text("".join(lines))

    def yara(self, *names: str) -> None:
        for old in (self.root / "repo/rules").iterdir():
            old.unlink()
        for name in names:
            (self.root / f"repo/rules/{name}.yar").write_text(YARA.format(name=name))

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "sekisho.appliance.cli", "signatures", *map(str, words)]
        return subprocess.run(argv, capture_output=True, text=True, timeout=55, check=False)

    def build(self, *words: object) -> dict[str, Any]:
        done = self.run("build", "--recipe", self.root / "sets.toml", "--out", self.sets, "--json", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def refused(self, *words: object) -> str:
        """What the command says; nothing of a set is left behind."""
        before = sorted(self.sets.rglob("*")) if self.sets.exists() else []
        done = self.run("build", "--recipe", self.root / "sets.toml", "--out", self.sets, *words)
        assert done.returncode in (2, 3), done.stdout
        assert (sorted(self.sets.rglob("*")) if self.sets.exists() else []) == before
        return done.stderr


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(tmp_path)


@pytest.fixture(scope="session")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Centre:
    """A centre that built two sets: in the second, a rule was removed, one changed, one added, one now drops."""
    centre = Centre(tmp_path_factory.mktemp("two"))
    centre.build()
    changed = rule(2).replace('content:"/2"', 'content:"/changed"')
    said = rule(3).replace("number 3", "number three").replace("rev:1", "rev:2")
    centre.rules(rule(1), changed, said, rule(4), rule(6, "ET MALWARE"), rule(7))
    centre.yara("one", "three")
    (centre.root / "baseline.json").write_text('{"boxes": 3, "sids": {"4": 2.5}, "yara": {}}')
    centre.build("--baseline", centre.root / "baseline.json")
    return centre
