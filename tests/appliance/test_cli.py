"""The command line program's manners, and the settings file it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sekisho.appliance import cli
from sekisho.appliance.core.settings import DEFAULTS, MAX_SETTINGS_BYTES, Settings, parse

CLI = (sys.executable, "-I", "-m", "sekisho.appliance.cli")


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *args], capture_output=True, text=True, check=False, timeout=30)


def test_the_printed_defaults_are_settings_and_say_what_the_types_say() -> None:
    text = run("box", "defaults", "--box", "shop-1").stdout
    assert parse(text) == Settings(box="shop-1")
    lines = text.splitlines()
    spoken = [line[2:] if line.startswith("# ") and " = " in line else line for line in lines]
    assert parse("\n".join(spoken)) == Settings(box="shop-1"), "every commented value is the default"
    assert DEFAULTS.count(" = ") >= 20


@pytest.mark.parametrize("args", [(), ("nonsense",), ("box",), ("box", "nonsense"), ("box", "check", "--no-such")])
def test_wrong_use_is_exit_code_two_with_a_usage_line(args: tuple[str, ...]) -> None:
    done = run(*args)
    assert done.returncode == 2 and "usage: sekisho" in done.stderr


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b'box = "a"\nbocks = 1\n', "bocks"),
        (b'box = "a"\n[inspection]\nqueues = "many"\n', "queues"),
        (b'box = "a b"\n', "a b"),
        (b'box = "a"\n[bridge]\naddresses = ["1.2.3"]\n', "1.2.3"),
        (b"\xff\xfe", "UTF-8"),
        (b"#" * (MAX_SETTINGS_BYTES + 1), "larger"),
    ],
)
def test_refused_settings_are_named_in_one_sentence(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "box.toml"
    path.write_bytes(content)
    done = run("box", "check", "--settings-only", "--settings", str(path))
    assert done.returncode == 2 and word in done.stderr and len(done.stderr.splitlines()) == 1


def test_absent_settings_are_refused(tmp_path: Path) -> None:
    done = run("box", "check", "--settings", str(tmp_path / "none.toml"))
    assert done.returncode == 2 and "none.toml" in done.stderr


def test_good_settings_are_a_fact_in_json(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text('box = "a"\n')
    done = run("box", "check", "--settings-only", "--json", "--settings", str(path))
    assert done.returncode == 0 and json.loads(done.stdout) == {"ok": True, "box": "a", "problems": []}


def test_a_room_that_is_not_installed_is_absent_and_the_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.ROOMS, "lab", "not_on_this_box")
    parser = cli.build_parser()
    assert parser.parse_args(["box", "defaults"]).func
    with pytest.raises(SystemExit) as ended:
        cli.main(["lab", "up"])
    assert ended.value.code == 2
