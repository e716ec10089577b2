"""Whether the engine comes to the load that it was told to make, by what it does, not by how long it takes.

Suricata 7.0 loads in its first thread, whose loop sleeps 10 ms a turn and begins an ordered load at the next one; its
log says so. Where a signal (SIGUSR2) meets an order that has not begun, that loop goes on turning for ever and begins
neither (suricata.c, SuricataMainLoop), and who gave the order waits for ever. Packets are inspected all the while, by
the rules of before. Measured on two cores: an order begins within 13 ms, and 20,116 rules are loaded in 16 turns, since
the loop stands still meanwhile. An engine that only lacks time to run makes no turns either.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from sekisho.appliance.berth import Berth

LOST: Final = 200
"""Turns without a begun load after which there will be none; two seconds, where the engine gets its time."""
BEGINS: Final = b"rule reload starting"
MAX_LOG_BYTES: Final = 1 << 20
_DEAD: Final = re.compile(r"^State:\s*[ZX]", re.MULTILINE)
_SLEPT: Final = re.compile(r"^voluntary_ctxt_switches:\s*(\d+)$", re.MULTILINE)


class Turning:
    """One engine's first thread, from the instant on at which this is made."""

    def __init__(self, berth: Berth) -> None:
        self._berth = berth
        self._said = self._log_size()
        self._turns = self._slept()

    def lost(self) -> bool:
        """Whether it turned `LOST` times and began no load: it never will. False where that cannot be seen."""
        now = self._slept()
        if self._turns is None or now is None or now - self._turns < LOST:
            return False
        return not self.began()

    def ended(self) -> bool:
        """Whether there is no engine any more."""
        found = self._status()
        return not found or _DEAD.search(found) is not None

    def began(self) -> bool:
        """Whether a load, anybody's, began since. True where that cannot be seen."""
        try:
            with self._berth.log.open("rb") as source:
                source.seek(self._said)
                return BEGINS in source.read(MAX_LOG_BYTES)
        except OSError:
            return True

    def _slept(self) -> int | None:
        found = _SLEPT.search(self._status())
        return int(found[1]) if found is not None else None

    def _status(self) -> str:
        try:
            pid = int(self._berth.pid_file.read_text()[:16])
            return Path(f"/proc/{pid}/task/{pid}/status").read_text()
        except (OSError, ValueError):
            return ""

    def _log_size(self) -> int:
        try:
            return self._berth.log.stat().st_size
        except OSError:
            return 0
