"""From the command line: planned and steered at the centre, signed elsewhere, with the operator's own key file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from thousand import ABOUT, World

from sekisho.appliance.cli import main
from sekisho.appliance.core import utc
from sekisho.center.rollout import papers
from sekisho.telemetry.events import Firmware


def run(*argv: object) -> int:
    try:
        return int(main([str(one) for one in argv]) or 0)
    except SystemExit as err:
        return int(err.code or 0)


def test_a_rollout_from_plan_to_cancel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, 10, tenants=5)
    store, plan, key = tmp_path / "centre.db", tmp_path / "plan.json", tmp_path / "operator.key"
    release = tmp_path / "release.json"
    release.write_bytes(msgspec.json.encode({**msgspec.to_builtins(ABOUT), "blocks": [], "built": "x"}))
    command = ("center", "rollout")

    def said() -> Any:
        return json.loads(capsys.readouterr().out)

    assert run("center", "jobs", "key", "new", "--out", key, "--name", "suzuki") == 0
    assert run(*command, "plan", "--release", release, "--out", plan, "--ring", "box-7", "--store", store) == 0
    told = capsys.readouterr().out
    assert "1.4.0 for amd64, tier 1" in told and "rings of 1, 2, 7 boxes" in told
    assert run(*command, "start", plan, "--store", store) == 2
    assert "not signed" in capsys.readouterr().err
    assert run(*command, "sign", "--key", key, plan) == 0
    assert plan.stat().st_size < 200_000
    capsys.readouterr()
    assert run(*command, "start", plan, "--store", store) == 0
    id_ = capsys.readouterr().out.strip()
    assert run(*command, "status", "--json", "--store", store) == 0
    (one,) = said()
    assert (one["id"], one["rollout"]["state"], one["boxes"], one["rings"]) == (id_, "running", 10, 3)
    for what, state in (("pause", "paused"), ("resume", "running"), ("halt", "halted"), ("cancel", "canceled")):
        assert run(*command, what, id_, "--store", store) == 0
        assert f"{id_}: {state}" in capsys.readouterr().out
    assert run(*command, "resume", id_, "--store", store) == 2
    assert "canceled" in capsys.readouterr().err
    assert run(*command, "status", id_, "--json", "--store", store) == 0
    shown = said()
    assert [one["what"] for one in shown["notes"]] == ["cancel", "halt", "resume", "pause", "start"]
    assert {one["how"] for one in shown["boxes"]} == {"unasked"}
    assert run(*command, "status", id_, "--store", store) == 0
    assert "ring 1: 1 boxes" in capsys.readouterr().out
    world.close()


def test_a_box_with_a_newer_release_is_left_out_of_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, 4, tenants=2)
    for name, running in (("box-1", 141), ("box-2", 140)):
        world.tell(name, Firmware(at=utc.of_unix(world.now), running=running, counter=running))
    store, made, release = tmp_path / "centre.db", tmp_path / "plan.json", tmp_path / "release.json"
    release.write_bytes(msgspec.json.encode(ABOUT))
    plan = ("center", "rollout", "plan", "--release", release, "--out", made, "--store", store)
    assert run(*plan) == 0
    assert "newer release in use: 1 (box-1 is one)" in capsys.readouterr().out
    assert sorted(box for ring in papers.read(made).rings for box in ring) == ["box-0", "box-2", "box-3"]
    assert run(*plan, "--ring", "box-1") == 2
    assert run(*plan, "--kind", "sig.update") == 0
    assert len([box for ring in papers.read(made).rings for box in ring]) == 4, "its number is of another kind"
    world.close()


def test_what_cannot_be_planned_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path, 2, tenants=1)
    store, release = tmp_path / "centre.db", tmp_path / "release.json"
    release.write_bytes(msgspec.json.encode(ABOUT))
    plan = ("center", "rollout", "plan", "--release", release, "--out", tmp_path / "p", "--store", store)
    for more, words in (
        (("--ring", "nobody"), "knows no box"),
        (("--bad", "0"), "cannot be a rule"),
        (("--kind", "fw.rollback"), "not sent in rings"),
        (("--life-days", "1000"), "lives at most"),
        (("--tenant", "nobody"), "no box for this rollout"),
    ):
        assert run(*plan, *more) == 2, more
        assert words in capsys.readouterr().err
    assert run(*plan[:-1], tmp_path / "absent.db") == 3
    release.write_text("{")
    assert run(*plan) == 2
    assert not (tmp_path / "p").exists()
    world.close()
