"""One engine in its berth: what starts it, gives it rules and asks it. Who is led to it is leading.py's business."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from sekisho.appliance import berth as berths
from sekisho.appliance import control
from sekisho.appliance.berth import Berth, Binary
from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.loading import Loader
from sekisho.appliance.process import EngineProcess
from sekisho.appliance.proof import Prover
from sekisho.appliance.rendering import Load

START_S: Final = 180.0


class Post:
    """A berth, and the engine in it if there is one."""

    def __init__(self, settings: Settings, berth: Berth) -> None:
        self.berth = berth
        self.loader = Loader(settings, berth)
        self.prover = Prover(berth.socket, berth.count, berth.first)
        self.process: EngineProcess | None = None
        self.program: Binary | None = None
        """What the engine here is, or was; None where it was found running and its file is gone."""
        self.sent_before: int | None = None
        """Canaries flown before this engine was started; None where it was found running."""

    def launch(self, load: Load, binary: Binary) -> None:
        """Start an engine with `load`; returns at once.

        Raises:
            DeviceFault: it cannot be started.

        """
        if self.process is not None:
            self.process.close()
        self.loader.write(load)
        self.berth.clear()
        self.program = binary
        self.process = EngineProcess.spawn(self.berth, binary)
        self.sent_before = self.prover.sent

    def try_adopt(self) -> bool:
        """Take over the engine that a killed predecessor of ours left here; one with other queues is ended."""
        found = EngineProcess.try_adopt(self.berth)
        if found is None:
            return False
        if not found.serves(self.berth):
            found.stop()
            return False
        self.process, self.sent_before = found, None
        self.program = berths.program_of(found.pid)
        return True

    def answers(self, going: Callable[[], bool]) -> bool:
        """Wait until it answers; False when `going` says no before.

        Raises:
            DeviceFault: it ended; the message is its last words.
            PeerError: it did not answer in `START_S`.

        """
        deadline = time.monotonic() + START_S
        while self.process is not None and self.process.alive(0.05):
            if not going():
                return False
            try:
                control.ruleset_stats(self.berth.socket)
            except PeerError:
                if time.monotonic() > deadline:
                    raise
                continue
            return True
        tail = self.berth.log.read_bytes()[-600:].decode(errors="replace")
        raise DeviceFault(f"The inspection engine ended while starting: {tail.strip()}")

    def alive(self, wait_s: float = 0.0) -> bool:
        """Whether there is an engine; waits up to `wait_s` for its end."""
        return self.process is not None and self.process.alive(wait_s)

    def stop(self) -> None:
        """End the engine, if there is one."""
        if self.process is not None:
            self.process.stop()
        self.process = None

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
