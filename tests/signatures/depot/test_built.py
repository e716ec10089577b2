"""What the press builds, the depot publishes as it is: both ends of the build side, by their commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from repository import client_of, digest

from sekisho.appliance.cli import main
from sekisho.signatures import delta

RECIPE = """
[[rules]]
name = "ours"
path = "own.rules"

[[yara]]
name = "own"
path = "yara"
"""
RULE = 'alert http any any -> any any (msg:"ET INFO {0}"; http.uri; content:"/{0}"; sid:{0}; rev:1;)\n'


@pytest.fixture
def press(tmp_path: Path) -> Path:
    (tmp_path / "yara").mkdir()
    (tmp_path / "yara" / "a.yar").write_text('rule a { strings: $a = "very bad indeed" condition: $a }\n')
    (tmp_path / "sets.toml").write_text(RECIPE)
    return tmp_path


def test_two_sets_as_built_reach_a_client_by_the_delta(press: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--dir", str(press / "r"), "--keys", str(press / "k")]
    assert main(["signatures", "repository", "init", *place]) == 0
    for number in (1, 2):
        (press / "own.rules").write_text("".join(RULE.format(sid) for sid in range(1, 10 + number)))
        recipe = ["--recipe", str(press / "sets.toml"), "--out", str(press / "sets")]
        assert main(["signatures", "build", *recipe]) == 0, capsys.readouterr().err
        capsys.readouterr()
        assert main(["signatures", "publish", str(press / "sets" / str(number)), *place, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["number"], told["left_out"], told["repeated"]) == (number, [], False)
    root = (press / "r" / "metadata" / "1.root.json").read_bytes()
    client = client_of(press / "r", press / "box", root)
    client.refresh()
    info = client.get_targetinfo("sig/1-2.zst")
    assert info
    old, new = ((press / "sets" / str(number) / f"{number}.tar").read_bytes() for number in (1, 2))
    way = Path(client.download_target(info)).read_bytes()
    assert digest(delta.apply(old, way, len(new))) == digest(new)
    assert json.loads((press / "r" / "published.json").read_bytes())["number"] == 2
