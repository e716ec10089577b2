"""Which start of the machine this is."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another one at each start of the machine (random(4)); empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""
