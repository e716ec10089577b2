"""A wall clock that is wrong for whoever is started with it, while monotonic time goes on as it is (wrong_clock.c)."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("wrong_clock.c")


class WrongClock:
    """A clock `off` seconds from the true one; every process started with `env` follows it."""

    def __init__(self, root: Path) -> None:
        library = root / "wrong_clock.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
        self._file = root / "wrong_clock"
        self.env = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}
        self.off = 0.0
        self.move(0.0)

    def set(self, unix_s: float) -> None:
        """It is this time now, and goes on."""
        self.move(unix_s - time.time())

    def move(self, off: float) -> None:
        """It is so many seconds before the true time, or behind it."""
        self.off = off
        aside = self._file.with_suffix(".new")
        aside.write_text(repr(off))
        aside.rename(self._file)

    def stamp(self) -> str:
        """Now, as Suricata writes it on this box."""
        return dt.datetime.fromtimestamp(time.time() + self.off, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+0000")
