"""The owner sees what waits and what was sent."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

import pytest

from sekisho.telemetry import commands, said
from sekisho.telemetry.events import Alert, Dns
from sekisho.telemetry.spool import Spool
from sekisho.telemetry.spool_view import SpoolView

NOW = "2026-01-02T03:04:05.000006Z"


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers())
    args = parser.parse_args(["telemetry", *argv])
    return int(args.func(args))


@pytest.fixture
def settings(tmp_path: Path) -> str:
    path = tmp_path / "box.toml"
    path.write_text(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}"\n')
    spool = Spool.open(tmp_path / "telemetry" / "spool.db", 1 << 20, NOW)
    spool.add([Alert(at=NOW, sid=1), Alert(at=NOW, sid=2), Dns(at=NOW, name="n")])
    spool.acknowledge(1, [])
    spool.close()
    return str(path)


def test_status_tells_what_waits(settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--json", "--settings", settings) == 0
    status = json.loads(capsys.readouterr().out)
    assert [lane["rows"] for lane in status["lanes"]] == [0, 1, 1]
    assert status["next_seq"] == 4 and status["connected"] is False
    assert run("status", "--settings", settings) == 0
    assert "NOT connected" in capsys.readouterr().out


def test_sent_shows_exactly_what_left(settings: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("sent", "--json", "--settings", settings) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"seq": 1, "lane": 1, "event": {"type": "alert", "at": NOW, "sid": 1}, "acknowledged": True}
    ]


def test_without_a_spool_or_settings_the_exit_code_says_so(tmp_path: Path) -> None:
    path = tmp_path / "box.toml"
    path.write_text(f'box = "b"\n[paths]\nstate = "{tmp_path}"\n')
    assert run("status", "--settings", str(path)) == 3
    assert run("sent", "--settings", str(tmp_path / "none.toml")) == 2


def test_since_is_a_span_or_a_time_and_anything_else_is_refused(
    settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for since, shown in (
        ("9999d", 1),
        ("2000-01-01", 1),
        ("2000-01-01T00:00:00+09:00", 1),
        ("2099-01-01T00:00:00Z", 0),
    ):
        assert run("sent", "--json", "--since", since, "--settings", settings) == 0
        assert len(capsys.readouterr().out.splitlines()) == shown
    for since in ("yesterday", "2y", "-1h", ""):
        with pytest.raises(SystemExit):
            run("sent", "--since", since, "--settings", settings)


def test_only_the_newest_of_the_other_messages_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(said, "MAX_SAID", 3)
    spool = Spool.open(tmp_path / "spool.db", 1 << 20, NOW)
    for number in range(9):
        spool.note_said("state", b'{"bd":%d}' % number)
    with closing(SpoolView(tmp_path / "spool.db")) as view:
        assert [json.loads(bytes(line.message))["bd"] for line in view.said()] == [6, 7, 8]
