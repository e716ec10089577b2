"""The daemon as its unit runs it: not root, with two capabilities, and nothing more to be had."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

USER = 65534
# The kernel shows its queue table to root and to the group root only: the unit has it as supplementary group.
CAPS = "+net_admin,+net_raw"


def test_two_capabilities_are_enough(world: Any, waiting: Callable[..., Any], tmp_path: Path) -> None:
    settings = world.settings()
    settings.chmod(0o644)
    # Compiled beforehand: a virtual environment under a private home does not start children as another user.
    apply = (sys.executable, "-I", "-m", "sekisho.appliance.cli", "signatures", "apply", "--settings", str(settings))
    world.run("box", *apply)
    (tmp_path / "run").mkdir(exist_ok=True)
    for path in (tmp_path / "run", tmp_path / "state", *tmp_path.glob("run/**/*"), *tmp_path.glob("state/**/*")):
        os.chown(path, USER, USER, follow_symlinks=False)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    world.start(
        "box", "setpriv", f"--reuid={USER}", f"--regid={USER}", "--groups=0", f"--inh-caps=-all,{CAPS}",
        f"--ambient-caps=-all,{CAPS}", f"--bounding-set=-all,{CAPS}", "--no-new-privs",
        sys.executable, "-I", "-m", "sekisho.appliance.daemon", "--settings", str(settings), log="daemon.log",
    )  # fmt: skip
    status = tmp_path / "run" / "appliance" / "status.json"

    def running() -> bool:
        return status.exists() and json.loads(status.read_bytes())["engine"]["phase"] == "running"

    try:
        waiting(running, 20, "the engine running")
    except AssertionError as err:
        raise AssertionError((tmp_path / "daemon.log").read_text()) from err
    world.run("lan", "ping", "-c", "1", "-W", "2", "10.79.0.1")
    waiting((tmp_path / "state" / "coverage" / "now.json").exists, 20, "the coverage account")
    told = [json.loads(line) for line in (tmp_path / "state" / "journal" / "appliance.jsonl").read_text().splitlines()]
    assert [event for event in told if event["type"] == "health" and event["part"] in ("coverage", "rules")] == []
    pid = json.loads(status.read_bytes())["engine"]["pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == USER, "the engine has no more rights than the daemon"
