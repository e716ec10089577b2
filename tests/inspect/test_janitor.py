"""The file store is memory: nothing may stay in it for ever."""

from __future__ import annotations

import os
from pathlib import Path

from sekisho.inspect import janitor


def put(path: Path, age_s: float, now: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (now - age_s, now - age_s))
    return path


def test_only_what_nobody_waits_for_is_removed(tmp_path: Path) -> None:
    now = 1_000_000.0
    stale = put(tmp_path / "ab" / "ab12", janitor.STORED_S + 1, now)
    forgotten = put(tmp_path / "tmp" / "file.1", janitor.OPEN_S + 1, now)
    waiting = put(tmp_path / "ab" / "ab34", janitor.STORED_S - 1, now)
    growing = put(tmp_path / "tmp" / "file.2", janitor.STORED_S + 1, now)
    assert janitor.sweep(tmp_path, now) == 2
    assert not stale.exists()
    assert not forgotten.exists()
    assert waiting.exists()
    assert growing.exists()


def test_a_store_that_is_not_there_yet_is_no_error(tmp_path: Path) -> None:
    assert janitor.sweep(tmp_path / "none", 0.0) == 0
