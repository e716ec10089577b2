"""Wherever between two operations on the disk a kill or a power cut comes: nothing is lost, nothing invented."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from sekisho.telemetry import blocks
from sekisho.telemetry.events import Gap, Health, decode
from sekisho.telemetry.spool_view import SpoolView

HERE = Path(__file__).parent / "crash"
sys.path.insert(0, str(HERE))

import crash_load  # noqa: E402
from crash_disk import Disk, Op, read_log  # noqa: E402

SAMPLED = 250
"""Operations looked at by `make test`; all of them by `make test-full`."""


@dataclass(frozen=True)
class Recording:
    """What the process did, and what was true after each of its steps."""

    ops: list[Op]
    states: list[crash_load.State]
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("shim") / "crash_shim.so"
    source = HERE / "crash_shim.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source, "-ldl"], check=True)
    return built


def run(shim: Path, root: Path, at: int = 0, load: str = "life") -> tuple[int, str]:
    """The load, recorded into `root`.log, dying before its `at`-th operation."""
    root.mkdir()
    env = {**os.environ, "LD_PRELOAD": str(shim), "CRASH_DIR": str(root), "CRASH_LOG": f"{root}.log"}
    env |= {"CRASH_AT": str(at)} if at else {}
    argv = [sys.executable, "-I", str(HERE / "crash_load.py"), str(root), load]
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def recording(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    root = tmp_path_factory.mktemp("crash") / "disk"
    code, told = run(shim, root)
    assert code == 0
    files = {str(path): path.read_bytes() for path in root.iterdir() if path.suffix != ".reserve"}
    ops = list(read_log(Path(f"{root}.log").read_bytes()))
    return Recording(ops, [json.loads(line) for line in told.splitlines()], files)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BATCH_ROWS", 20)
    monkeypatch.setattr(blocks, "PACK_BEYOND", 30)


def put(files: dict[str, bytes], root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name, data in files.items():
        (root / Path(name).name).write_bytes(data)
    return root


def after(files: dict[str, bytes], root: Path) -> crash_load.State:
    """What a spool opened on such a disk says; the file must be sound and must not have been set aside."""
    path = put(files, root) / "spool.db"
    made = crash_load.open_spool(path)
    try:
        assert made._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not list(root.glob("*.bad-*"))
        return crash_load.logical(path, made)
    finally:
        made.close()


def honoured(found: crash_load.State, recording: Recording, steps: int) -> bool:
    """It is what was true after the steps that had returned, or after the one that was under way."""
    if not steps and (found["next"], found["offset"]) == (1, 0):
        return True
    return found in recording.states[max(0, steps - 1) : steps + 1]


def replayed(ops: list[Op]) -> Disk:
    disk = Disk()
    for op in ops:
        disk.apply(op)
    return disk


def test_the_recording_is_all_that_happened_and_all_that_is_to_be_tested(recording: Recording, tmp_path: Path) -> None:
    assert replayed(recording.ops).killed() == recording.files
    assert {op.kind for op in recording.ops} >= set("CWSDTU")
    assert len(recording.states) == crash_load.STEPS
    assert len({str(state["folded"]) for state in recording.states}) > 10, "repeats are counted all the time"
    after(recording.files, tmp_path / "disk")
    with closing(sqlite3.connect(tmp_path / "disk" / "spool.db")) as db:
        packed, had = db.execute("SELECT COUNT(*), COUNT(had_at) FROM block").fetchone()
    assert packed > had > 0
    with closing(SpoolView(tmp_path / "disk" / "spool.db")) as view:
        whys = {event.why for row in view.pending() if isinstance(event := decode(row.event), Gap)}
    assert whys == {"spool_full", "not_kept"}


def crash_everywhere(recording: Recording, root: Path, stride: int, cuts: int) -> int:
    dice = random.Random(8)
    disk, steps, looked = Disk(), 0, 0
    start = dice.randrange(stride)
    for number, op in enumerate(recording.ops):
        if number % stride == start:
            assert honoured(after(disk.killed(), root), recording, steps), f"killed before {number}: {op.kind}"
            for _ in range(cuts):
                found = after(disk.power_cut(dice), root)
                assert honoured(found, recording, steps), f"power cut before {number}: {op.kind}"
            looked += 1
        disk.apply(op)
        steps += op.kind == "W" and op.path.endswith("marks")
    return looked


@pytest.mark.protocol("P7")
def test_a_kill_or_power_cut_at_sampled_operations_loses_and_invents_nothing(
    recording: Recording, tmp_path: Path
) -> None:
    stride = max(1, len(recording.ops) // SAMPLED)
    assert crash_everywhere(recording, tmp_path / "disk", stride, cuts=1) >= SAMPLED


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_kill_or_power_cut_at_every_operation_loses_and_invents_nothing(recording: Recording, tmp_path: Path) -> None:
    assert crash_everywhere(recording, tmp_path / "disk", 1, cuts=3) == len(recording.ops)


def test_a_process_that_is_really_killed_leaves_what_its_recording_says(
    recording: Recording, shim: Path, tmp_path: Path
) -> None:
    dice = random.Random(9)
    for number in dice.sample(range(1, len(recording.ops)), 6):
        root = tmp_path / str(number)
        code, _ = run(shim, root, at=number)
        ops = list(read_log(Path(f"{root}.log").read_bytes()))
        files = {str(path): path.read_bytes() for path in root.iterdir() if path.suffix not in (".reserve", ".db-shm")}
        assert (code, len(ops)) == (-signal.SIGKILL, number - 1)
        assert files == replayed(ops).killed()


def test_a_damaged_spool_is_replaced_once_whatever_happens_meanwhile(shim: Path, tmp_path: Path) -> None:
    code, _ = run(shim, tmp_path / "disk", load="damaged")
    assert code == 0
    ops = list(read_log((tmp_path / "disk.log").read_bytes()))
    dice, disk, damaged = random.Random(1), Disk(), False
    for number, op in enumerate(ops):
        if damaged and (op.kind != "W" or number % 8 == 0):
            for files in (disk.killed(), disk.power_cut(dice)):
                root = put(files, tmp_path / "after")
                made = crash_load.open_spool(root / "spool.db")
                made.close()
                with closing(SpoolView(root / "spool.db")) as view:
                    told = [event for row in view.pending() if isinstance(event := decode(row.event), Health)]
                assert [event.detail for event in told] == ["set aside as spool.db.bad-1"], (
                    f"before {number}: {op.kind}"
                )
                assert [path.name for path in root.glob("*.bad-*")] == ["spool.db.bad-1"]
        disk.apply(op)
        damaged |= op.path.endswith("marks")
