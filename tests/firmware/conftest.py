"""What tests of the box's own software need around them: throwaway releases and a repository for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "drive"))
sys.path.insert(0, str(Path(__file__).parents[1] / "signatures" / "drive"))

from releases import Centre
from repository import Depot


@pytest.fixture
def centre(tmp_path: Path) -> Centre:
    return Centre(Depot(tmp_path / "centre"))
