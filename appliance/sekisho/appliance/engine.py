"""The engine's life: start, adopt, restart when it dies, end.

Owns the Suricata process, its command line, and the size of its log files; what it works with is inforce.py's. Runs in
one thread of the daemon; the `request_` calls are for others, and `account` says what the engine is to have (watch.py
looks at that, every few seconds).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from sekisho.appliance import control, logs, store, suricata
from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.core import latency, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.inforce import InForce
from sekisho.appliance.process import EngineProcess
from sekisho.appliance.proof import Prover
from sekisho.appliance.rendering import Load, RuleSet
from sekisho.telemetry.events import Event, Health

__all__ = ["Account", "Engine", "EngineState", "RuleSet"]

START_S: Final = 180.0
FIRST_BACK_OFF_S: Final = 0.2
MAX_BACK_OFF_S: Final = 30.0
GOOD_RUN_S: Final = 60.0
LOOK_S: Final = 0.2

log = logging.getLogger(__name__)


class Engine:
    """Suricata under care."""

    def __init__(self, settings: Settings, choose: Callable[[], RuleSet], report: Callable[[Event], None]) -> None:
        self.state = EngineState()
        self._settings = settings
        self._report = report
        self._dir = settings.control_socket.parent
        self._pid_file = self._dir / "suricata.pid"
        self._queues = suricata.queue_count(settings)
        self.prover = Prover(settings.control_socket, self._queues)
        self.sent_before: int | None = None
        """Canaries flown before this engine was started; None where it was found running."""
        self._process: EngineProcess | None = None
        self._rules = InForce(settings, self.state, self.prover, choose, report)
        self._reload = threading.Event()
        self._repair = threading.Event()
        self._restart = threading.Event()

    @property
    def account(self) -> Account:
        """What the engine is to have, and what became of the loads so far."""
        return self._rules.account

    @property
    def proven(self) -> RuleSet | None:
        """The set that was last seen to load whole; None before the first."""
        proven = self._rules.proven
        return proven.wanted if proven is not None else None

    def request_reload(self) -> None:
        """Choose the rule set anew and load it live."""
        self._reload.set()

    def request_repair(self) -> None:
        """Load what should be in force once more; where that does not help, start another engine with it."""
        self._repair.set()

    def request_restart(self) -> None:
        """End the engine (it hangs); it is started again at once."""
        self._restart.set()

    def run(self, stop: threading.Event) -> None:
        """Keep the engine alive until `stop`, then end it."""
        back_off = FIRST_BACK_OFF_S
        self._prepare()
        while not stop.is_set():
            try:
                started = time.monotonic()
                self._start(stop)
                if stop.is_set():
                    break
                self._attend(stop)
                if time.monotonic() - started > GOOD_RUN_S:
                    back_off = FIRST_BACK_OFF_S
            except SekishoError as err:
                log.error("engine: %s", err)
                self._health("failed", str(err))
                if self._process is not None:
                    self._process.kill()
            self._gone()
            if not stop.is_set():
                stop.wait(back_off)
                back_off = min(back_off * 2, MAX_BACK_OFF_S)
        if self._process is not None:
            self._process.stop()
        self._process = None
        self._gone()
        self._health("stopped", "")

    def _gone(self) -> None:
        self.state.phase, self.state.pid = "stopped", 0
        self._rules.gone()

    def _prepare(self) -> None:
        for path in (self._dir, self._settings.eve.parent, self._settings.files_socket.parent):
            path.mkdir(parents=True, exist_ok=True)
        if warning := store.mount(self._settings.filestore, self._settings.inspection.memory_mb):
            log.warning("%s", warning)

    def _start(self, stop: threading.Event) -> None:
        self.state.phase = "starting"
        load, new = self._rules.first()
        if self._process is None and self._adopt(load):
            return
        self._launch(load)
        if not self._answering(stop):
            return
        self._rules.begun(load, new=new)
        self.state.phase = "running"
        latency.short_slices(self.state.pid, "W-NFQ")
        self._health("started", "")

    def _launch(self, load: Load) -> None:
        if self._process is not None:
            self._process.close()
        self._rules.loader.write(load)
        # Suricata will not start over a stale pid file, nor bind its command socket over a stale one.
        self._pid_file.unlink(missing_ok=True)
        self._settings.control_socket.unlink(missing_ok=True)
        self._process = EngineProcess.spawn(
            self._rules.loader.config, self._pid_file, self._queues, self._dir / "engine.log"
        )
        self._restart.clear()  # these were meant for the former one
        self._repair.clear()
        self.sent_before = self.prover.sent
        self.state.pid = self._process.pid
        self.state.starts += 1

    def _adopt(self, load: Load) -> bool:
        """Go on with the engine of a killed predecessor; with other rules than it left they are loaded live."""
        found = EngineProcess.try_adopt(self._rules.loader.config, self._pid_file)
        if found is None:
            return False
        try:
            if self._rules.found(load):
                self._process, self.sent_before = found, None
                self.state.phase, self.state.pid = "running", found.pid
                self._health("adopted", "")
                return True
        except PeerError as err:
            log.warning("the engine found running is replaced: %s", err)
        found.stop()
        return False

    def _answering(self, stop: threading.Event) -> bool:
        deadline = time.monotonic() + START_S
        while self._process is not None and self._process.alive(0.05):
            if stop.is_set():
                return False
            try:
                control.ruleset_stats(self._settings.control_socket)
            except PeerError:
                if time.monotonic() > deadline:
                    raise
                continue
            return True
        tail = (self._dir / "engine.log").read_bytes()[-600:].decode(errors="replace")
        raise DeviceFault(f"The inspection engine ended while starting: {tail.strip()}")

    def _attend(self, stop: threading.Event) -> None:
        """Watch a running engine; returns when it has ended or is to end."""
        while self._process is not None and self._process.alive(LOOK_S):
            if stop.is_set():
                return
            if self._restart.is_set():
                self._restart.clear()
                log.error("the engine hangs, or has let go of its queues, and is restarted")
                self._process.kill()
                break
            if self._reload.is_set() or self._rules.waits():
                self._reload.clear()
                self._rules.reload()
            elif self._repair.is_set():
                self._repair.clear()
                self._rules.mend()
            elif self._rules.loader.muting_changed():
                self._rules.mute()
            self._roll_logs()
        self._health("died", "")

    def _roll_logs(self) -> None:
        eve = logs.set_aside(self._settings.eve, keep_unread=True)
        files = logs.set_aside(self._settings.files_log, keep_unread=False)
        if eve or files:
            control.ask(self._settings.control_socket, "reopen-log-files")
        if eve == "dropped":
            self._health("events_dropped", f"{logs.ROLL_BYTES >> 20} MB or more of unread events made room.")

    def _health(self, state: str, detail: str) -> None:
        log.info("engine %s %s", state, detail)
        rules = self.state.rules_loaded
        self._report(Health(at=utc.now(), part="engine", state=state, detail=detail[:500], rules=rules))
