"""The drivers of the inspect room's tests, on the path: tests are no packages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "inspect"))
