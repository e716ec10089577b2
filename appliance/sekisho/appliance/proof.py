"""Whether the engine works with the rules it was given: its own counts, and the canaries. Its replies prove nothing."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sekisho.appliance import canary, control
from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.rendering import Load

TRIES: Final = 12
ANSWERS: Final = 3
"""An engine that reads rules on a busy machine may miss an answer's time; one that misses so many hangs."""
TRY_S: Final = 0.25
"""After a start the queues are bound, and the packet rules lead into them, some tenths of a second later."""


@dataclass(frozen=True)
class Proof:
    """What was seen of one load at one instant."""

    loaded: int
    """Rules the engine counts, the product's own among them; -1: it did not answer."""
    failed: int
    canary: canary.Word
    at: float
    """Monotonic clock, seconds."""

    def counts(self, load: Load) -> bool:
        """Whether it has all rules, and none that failed."""
        return self.loaded == load.expected and not self.failed

    def whole(self, load: Load) -> bool:
        return self.counts(load) and self.canary == "caught"


class Prover:
    """Asks and flies; calls may come from two threads."""

    def __init__(self, control_socket: Path, queues: int, first: int = 0) -> None:
        self._socket = control_socket
        self._canaries = canary.Canaries(queues, first)
        self._lock = threading.Lock()

    @property
    def sent(self) -> int:
        """Canaries flown so far: as many packets were to be stopped, and as many to pass."""
        return self._canaries.sent

    def look(self, load: Load) -> Proof:
        """One trial; never raises."""
        with self._lock:
            try:
                stats = control.ruleset_stats(self._socket)
                loaded, failed = stats.rules_loaded, stats.rules_failed
            except PeerError:
                loaded, failed = -1, 0
            flown = self._canaries.fly(load.word)
        return Proof(loaded, failed, flown, time.monotonic())

    def prove(self, load: Load) -> Proof:
        """After a load: tries for some seconds, as long as only the canaries are missing.

        Raises:
            PeerError: the engine does not answer.

        """
        silent = 0
        for left in reversed(range(TRIES)):
            proof = self.look(load)
            if proof.loaded < 0:
                silent += 1
                if silent == ANSWERS or not left:
                    raise PeerError("The inspection engine does not say which rules it has.")
            elif not proof.counts(load) or proof.canary != "missed" or not left:
                break
            time.sleep(TRY_S)
        return proof
