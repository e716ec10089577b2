"""A repository of one's own for each test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "drive"))
sys.path.insert(0, str(Path(__file__).parents[2] / "telemetry" / "crash"))

from repository import Depot


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path)
