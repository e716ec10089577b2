"""Makes the drive and the wrong clock importable."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("chaos/drive", "wrong_clock"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
