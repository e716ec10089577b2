"""When a box tries to renew its certificate, and how long it waits when that fails."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sekisho.appliance.core.errors import DeviceFault
from sekisho.telemetry.enrolment import keeper
from sekisho.telemetry.enrolment.due import Due, due_file
from sekisho.telemetry.enrolment.keeper import Keeper, Outcome
from sekisho.telemetry.spool_view import SpoolView

LIFE_S = 90 * 86400.0


class Try:
    """A keeper whose renewal is a program that ends as the test says."""

    def __init__(self, root: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.identity, self._ran = root / "identity.pem", root / "ran"
        program = root / "python"
        program.write_text(f"#!/bin/sh\necho x >> {self._ran}\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        self.keeper = Keeper(root / "box.toml", self.identity, 0.0)

    def due_at(self, utc: float) -> None:
        due_file(self.identity).write_bytes(msgspec.json.encode(Due(utc, LIFE_S)))

    def turn(self, now: float, utc: float = 1000.0, *, connected: bool = True) -> Outcome:
        """One turn; when it began a try, the turn that sees its end."""
        began = self.keeper.turn(now, utc, connected=connected)
        until = time.monotonic() + 20
        while self.keeper._process and time.monotonic() < until:
            began = self.keeper.turn(now, utc, connected=connected)
        return began

    @property
    def runs(self) -> int:
        return len(self._ran.read_text().split()) if self._ran.exists() else 0


def test_only_what_is_due_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Try(tmp_path, 0, monkeypatch)
    assert (box.turn(10), box.runs) == ("", 0)  # not enrolled with a code
    box.due_at(2000.0)
    assert (box.turn(20), box.runs) == ("", 0)
    assert (box.turn(30, 2000.0), box.runs) == ("renewed", 1)


def test_who_does_not_reach_the_broker_tries_whatever_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Try(tmp_path, 0, monkeypatch)
    box.due_at(2000.0)
    assert box.turn(keeper.UNREACHED_S, connected=False) == ""
    assert box.turn(keeper.UNREACHED_S + 2, connected=False) == "renewed"


def test_a_refusal_is_told_once_and_failures_wait_longer_up_to_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Try(tmp_path, 2, monkeypatch)
    box.due_at(0.0)
    told, now, waits = [], 1.0, list[float]()
    for _ in range(10):
        told.append(box.turn(now))
        waits.append(box.keeper._look_at - now)
        now += keeper.WAIT_CAP_S + 1
    assert (told, box.runs) == (["refused", *[""] * 9], 10)
    assert waits[0] <= keeper.FIRST_CAP_S < waits[4] and keeper.WAIT_CAP_S / 2 <= waits[-1] <= keeper.WAIT_CAP_S


def test_a_box_that_has_no_centre_yet_keeps_its_events(tmp_path: Path) -> None:
    (tmp_path / "box.toml").write_text(f'box = "b"\n[paths]\nrun = "{tmp_path}/run"\nstate = "{tmp_path}/state"\n')
    (tmp_path / "run" / "eve").mkdir(parents=True)
    dns = (
        '{"timestamp":"2026-01-02T03:04:05.000006+0000","event_type":"dns","dns":{"type":"query","rrname":"a.example"}}'
    )
    (tmp_path / "run" / "eve" / "eve.json").write_text(dns + "\n")
    argv = [sys.executable, "-I", "-m", "sekisho.telemetry.daemon", "--settings", str(tmp_path / "box.toml")]
    with subprocess.Popen(argv) as daemon:
        try:
            until = time.monotonic() + 30
            while not _waiting(tmp_path / "state" / "telemetry" / "spool.db"):
                assert daemon.poll() is None and time.monotonic() < until
                time.sleep(0.05)
        finally:
            daemon.terminate()
        assert daemon.wait(20) == 0


def _waiting(spool: Path) -> int:
    try:
        with closing(SpoolView(spool)) as view:
            return sum(lane.rows for lane in view.waiting())
    except DeviceFault:
        return 0


def test_a_box_without_a_centre_keeps_nothing() -> None:
    assert Keeper(Path("box.toml"), None, 0.0).turn(1e6, 1e9, connected=False) == ""
