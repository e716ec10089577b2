"""Makes the drive importable."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))

from jobsbox import Box, Hands


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, Hands())
