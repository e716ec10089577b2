"""The time as the centre told it, between two processes."""

from __future__ import annotations

import time
from pathlib import Path

from sekisho.appliance.core import told_time
from sekisho.appliance.core.settings import Paths, Settings


def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run" / "telemetry").mkdir(parents=True)
    return Settings(box="b", paths=Paths(run=str(tmp_path / "run"), state=str(tmp_path / "state")))


def test_what_the_centre_told_goes_on_by_the_monotonic_clock(tmp_path: Path) -> None:
    box = settings(tmp_path)
    assert told_time.try_read(box) is None
    told_time.write(box, 1_800_000_000.0, time.monotonic() - 3600)
    now = told_time.try_read(box)
    assert now is not None
    assert 0 <= now - 1_800_003_600.0 < 60


def test_what_is_damaged_or_of_another_boot_tells_nothing(tmp_path: Path) -> None:
    box = settings(tmp_path)
    told_time.write(box, 1_800_000_000.0, time.monotonic() + 3600)
    assert told_time.try_read(box) is None
    for data in (b"", b"[1,2]", b'{"true":1}', b"x" * 5000):
        told_time.path_of(box).write_bytes(data)
        assert told_time.try_read(box) is None
