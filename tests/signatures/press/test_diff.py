"""What differs between two sets, rule by rule."""

from __future__ import annotations

import json
import lzma
import random
import re
from pathlib import Path
from typing import Any

import pytest

from sekisho.signatures import archive, delta
from sekisho.signatures.press.diff import difference

ET = Path(__file__).parents[4] / "shared/data/rules/et-open-2020-04.rules.xz"


def test_every_difference_is_told_once(two_sets: Any) -> None:
    done = two_sets.run("diff", two_sets.sets / "1", two_sets.sets / "2", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {name: found[name] for name in ("added", "removed", "changed", "now_dropping", "no_longer_dropping")} == {
        "added": [7],
        "removed": [5],
        "changed": [2, 3, 6],
        "now_dropping": [2, 6, 7],
        "no_longer_dropping": [5],
    }
    assert found["yara_added"] == ["yara/repo--three.yar:three"]
    assert found["yara_removed"] == ["yara/repo--two.yar:two"]
    assert found["baseline_changed"]
    assert found["rules"][0] == found["rules"][1]
    assert found["yara"][0] == found["yara"][1] > 2
    assert found["delta"] == (two_sets.sets / "2/1-2.zst").stat().st_size
    assert found["length"][1] == (two_sets.sets / "2/2.tar").stat().st_size


def test_the_same_difference_from_archives_packed_or_not(two_sets: Any) -> None:
    one = two_sets.run("diff", two_sets.sets / "1/1.tar", two_sets.sets / "2/2.tar.zst")
    assert one.returncode == 0, one.stderr
    assert one.stdout == two_sets.run("diff", two_sets.sets / "1", two_sets.sets / "2").stdout
    assert re.search(r"now dropping +3 +2 6 7\n", one.stdout)


def test_what_is_no_set_is_refused_in_words(two_sets: Any, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar")
    for what in (tmp_path / "x.tar", tmp_path, tmp_path / "missing"):
        done = two_sets.run("diff", two_sets.sets / "1", what)
        assert done.returncode in (2, 3)
        assert "Traceback" not in done.stderr


def test_an_archive_changed_on_the_disk_is_refused(two_sets: Any, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/set.json").write_bytes((two_sets.sets / "1/set.json").read_bytes())
    (tmp_path / "1/1.tar").write_bytes((two_sets.sets / "2/2.tar").read_bytes())
    assert two_sets.run("diff", tmp_path / "1", two_sets.sets / "2").returncode == 2


def test_a_set_and_itself_do_not_differ(tmp_path: Path) -> None:
    whole = archive.pack(
        {"rules/a.rules": b"drop ip any any -> any any (sid:1;)\n", "yara/a.yar": b"rule a { condition: false }"}
    )
    found = difference(whole, whole, tmp_path)
    assert (found.added, found.changed, found.now_dropping, found.yara_added, found.yara) == ([], [], [], [], (1, 1))


@pytest.mark.skipif(not ET.exists(), reason="no real rule set beside the repository")
@pytest.mark.parametrize("of", [4, pytest.param(1, marks=pytest.mark.full)])
def test_an_ordinary_day_costs_a_few_kilobytes(of: int) -> None:
    """27 rules changed, 56 added, three YARA rules added, of 20,117 (or every fourth): as many as a day brings."""
    lines = lzma.decompress(ET.read_bytes()).decode().splitlines()[::of]
    chance = random.Random(6)
    old = archive.pack(
        {"rules/et.rules": ("\n".join(lines) + "\n").encode(), "yara/a.yar": b"rule a { condition: false }\n"}
    )
    for at in chance.sample(range(len(lines)), 27):
        lines[at] = re.sub(r"rev: ?(\d+);", r"rev:9\1;", lines[at]).replace(
            "content:", f'content:"{chance.getrandbits(64):x}"; content:', 1
        )
    for number in range(56):
        word = f"{chance.getrandbits(64):x}"
        lines.append(
            f'alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"ET MALWARE {word} Activity"; flow:established;'
            f' http.uri; content:"/{word[::-1]}.php"; classtype:trojan-activity; sid:{4000000 + number}; rev:1;'
            " metadata:created_at 2020_05_01;)"
        )
    yara = "".join(f'rule day{n} {{ strings: $a = "{chance.getrandbits(128):x}" condition: $a }}\n' for n in range(3))
    new = archive.pack(
        {
            "rules/et.rules": ("\n".join(lines) + "\n").encode(),
            "yara/a.yar": b"rule a { condition: false }\n" + yara.encode(),
        }
    )
    way = delta.make(old, new)
    assert delta.apply(old, way, len(new)) == new
    assert len(way) < 8_000
