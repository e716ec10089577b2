"""Makes the drive importable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))
sys.path.insert(0, str(Path(__file__).parents[1] / "signatures" / "drive"))

from jobsbox import Box, Hands


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel has outlives a process: only processes die here, so that no test waits for a disk."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, Hands())
