"""What `sekisho center` prints, and the exit codes scripts rely on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from sekisho.center import commands, intake
from sekisho.center.intake import Message
from sekisho.center.store import NewRow, Store
from sekisho.telemetry.events import Alert, encode

NOW = "2026-01-02T03:04:05.000006Z"


@pytest.fixture
def path(store_url: str) -> str:
    store = Store(store_url)
    with store.transaction():
        rows = [NewRow(seq, 1, "alert", NOW, encode(Alert(at=NOW, sid=seq, signature="Found it"))) for seq in (1, 2)]
        store.add("t", "b", "e", rows, NOW)
    store.close()
    return store_url


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    commands.register(parser.add_subparsers())
    args = parser.parse_args(["center", *argv])
    return int(args.func(args))


def test_events_are_one_object_a_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = Store(path, read_only=True).events()[0].id
    assert run("events", "--json", "--store", str(path), "--since-id", str(first)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["box"], line["seq"], line["event"]["sid"]) for line in lines] == [("b", 2, 2)]
    assert run("events", "--store", str(path)) == 0
    assert "Found it" in capsys.readouterr().out


def test_a_gap_is_exit_code_one(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("gaps", "--json", "--store", str(path)) == 0
    store = Store(path)
    with store.transaction():
        store.add("t", "b", "e", [NewRow(9, 1, "alert", NOW, b"{}")], NOW)
    store.close()
    capsys.readouterr()
    assert run("gaps", "--json", "--store", str(path)) == 1
    assert json.loads(capsys.readouterr().out)["missing"] == [{"box": "b", "epoch": "e", "first": 3, "last": 8}]
    assert run("gaps", "--store", str(path)) == 1
    assert "3-8" in capsys.readouterr().out


def test_status_counts_what_is_stored(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--json", "--store", str(path)) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["counts"] == [{"box": "b", "type": "alert", "count": 2}]
    assert status["streams"][0]["upto"] == 2


def test_what_was_refused_is_shown(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    intake.take(Store(path), [Message("sk/1/t/b/ev/1", b"junk")] * 3, NOW)
    assert run("refused", "--json", "--store", str(path)) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["box"], row["kind"], row["count"]) for row in found["refused"]] == [("b", "batch", 3)]
    assert found["aside"] == []
    assert run("refused", "--store", str(path)) == 0
    assert "batch        3" in capsys.readouterr().out


def test_no_store_is_a_fault_of_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("events", "gaps", "status", "refused"):
        assert run(command, "--store", str(tmp_path / "none.db")) == 3
    assert "none.db" in capsys.readouterr().err
