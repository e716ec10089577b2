"""A repository whose keys are all at hand, and boxes that believe its first root."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "drive"))

from forge import Forge


@pytest.fixture
def forge() -> Forge:
    return Forge()
