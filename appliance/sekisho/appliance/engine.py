"""The engine's life: start, adopt, load live, restart when it dies, keep the last set that was proven.

Owns the Suricata process, its configuration file, and the size of its log files. An "OK" from Suricata proves
nothing: after every start and load its own counts and a canary through each queue say what is in force (proof.py), and
a set that is not in force whole is taken back. Runs in one thread of the daemon; the `request_` calls are for others,
and `account` says what the engine is to have (watch.py looks at that, every few seconds).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sekisho.appliance import control, logs, store, suricata
from sekisho.appliance.account import Account, EngineState
from sekisho.appliance.core import latency, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.loading import Loader
from sekisho.appliance.process import EngineProcess
from sekisho.appliance.proof import Proof, Prover
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
        self.account = Account()
        self._settings = settings
        self._choose = choose
        self._report = report
        self._dir = settings.control_socket.parent
        self._loader = Loader(settings)
        self._pid_file = self._dir / "suricata.pid"
        self._queues = suricata.queue_count(settings)
        self.prover = Prover(settings.control_socket, self._queues)
        self._process: EngineProcess | None = None
        self._proven: Load | None = None
        self._refused = ("", "")
        """The set that was refused since the last success, and why."""
        self._seen: Proof | None = None
        self._reload = threading.Event()
        self._repair = threading.Event()
        self._restart = threading.Event()
        self._link = ""

    @property
    def proven(self) -> RuleSet | None:
        """The set that was last seen to load whole; None before the first."""
        return self._proven.wanted if self._proven is not None else None

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
        self.account = replace(self.account, load=None, proof=None, changing=False)

    def _prepare(self) -> None:
        for path in (self._dir, self._settings.eve.parent, self._settings.files_socket.parent):
            path.mkdir(parents=True, exist_ok=True)
        if warning := store.mount(self._settings.filestore, self._settings.inspection.memory_mb):
            log.warning("%s", warning)

    def _start(self, stop: threading.Event) -> None:
        self.state.phase = "starting"
        load, new = self._first()
        if self._process is None and self._adopt(load):
            return
        self._launch(load)
        if not self._answering(stop):
            return
        if not self._prove(load, new=new):
            detail = self._refuse(load)
            self._health("rules_refused", detail)
            if self._proven is not None and self._proven != load:
                self._load(self._proven)
            else:
                self._tell(load, self._seen)
        self.state.phase = "running"
        latency.short_slices(self.state.pid, "W-NFQ")
        self._health("started", "")

    def _first(self) -> tuple[Load, bool]:
        """What to start with, and whether it is new: after a crash what was proven is loaded again at once."""
        if self._proven is not None:
            try:
                return self._loader.prepare(self._proven.wanted), False
            except RejectedInput as err:
                log.error("the last proven set is gone: %s", err)
        return self._loader.prepare(self._chosen()), True

    def _launch(self, load: Load) -> None:
        if self._process is not None:
            self._process.close()
        self._loader.write(load)
        # Suricata will not start over a stale pid file, nor bind its command socket over a stale one.
        self._pid_file.unlink(missing_ok=True)
        self._settings.control_socket.unlink(missing_ok=True)
        self._process = EngineProcess.spawn(self._loader.config, self._pid_file, self._queues, self._dir / "engine.log")
        self._restart.clear()  # these were meant for the former one
        self._repair.clear()
        self.state.pid = self._process.pid
        self.state.starts += 1

    def _adopt(self, load: Load) -> bool:
        """Go on with the engine of a killed predecessor; with other rules than it left they are loaded live."""
        found = EngineProcess.try_adopt(self._loader.config, self._pid_file)
        if found is None:
            return False
        try:
            left = self._loader.left(load)
            if (left == "same" and self._prove(load, new=True)) or (left == "rules" and self._load(load, new=True)):
                self._process = found
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
            if self._reload.is_set() or self._current_link() != self._link:
                self._reload.clear()
                self._reload_live(self._chosen, new=True)
            elif self._repair.is_set():
                self._repair.clear()
                self._mend()
            elif self._loader.muting_changed():
                self._mute()
            self._roll_logs()
        self._health("died", "")

    def _reload_live(self, choose: Callable[[], RuleSet], *, new: bool) -> None:
        self.state.phase = "reloading"
        try:
            self._change(choose, new=new)
        finally:
            self.state.phase = "running"
            self.state.reloads += 1

    def _change(self, choose: Callable[[], RuleSet], *, new: bool) -> None:
        set_id = ""
        try:
            wanted = choose()
            set_id = wanted.set_id
            load = self._loader.prepare(wanted)
        except SekishoError as err:  # what runs is not touched for it
            self._refused = (set_id, str(err))
            self.state.refused = str(err)
            self._tell(self.account.load, self.account.proof)
            self._health("reload_refused", str(err))
            return
        try:
            if self._load(load, new=new):
                self._health("reloaded", "")
                return
        except PeerError as err:
            self._refuse(load, f"the engine ended or hung while it loaded it. {err}")
            raise
        except DeviceFault as err:  # its files cannot be written: what runs was not asked
            self._health("reload_refused", self._refuse(load, str(err)))
            self._tell(self.account.load, self.account.proof)
            return
        self._take_back(self._refuse(load))

    def _mute(self) -> None:
        """Other rules are muted or on trial: the same set once more, live, unless it has none of them."""
        if self._proven is None:
            return
        wanted = self._proven.wanted
        try:
            load = self._loader.prepare(wanted)
        except SekishoError as err:
            log.error("the muted rules stay as they were: %s", err)
            return
        if load != self._proven:
            self._reload_live(lambda: wanted, new=False)

    def _mend(self) -> None:
        """The engine lost its rules: give them to it again, or to another engine."""
        if self._proven is None:
            return
        try:
            load = self._loader.prepare(self._proven.wanted)
        except SekishoError as err:  # another engine would have no more to load
            log.error("the engine cannot be given its rules: %s", err)
            return
        if not self._load(load) or self.account.proof is None or not self.account.proof.whole(load):
            raise DeviceFault("The engine does not take its rules again. Another is started.")
        self._health("reloaded", "")

    def _take_back(self, detail: str) -> None:
        if self._proven is None or not self._load(self._proven):
            raise DeviceFault(f"{detail} The earlier set does not load either.")
        self._health("reload_refused", detail)

    def _load(self, load: Load, *, new: bool = False) -> bool:
        sure = self._caught()
        self.account = replace(self.account, changing=True)
        if not load.file.exists():
            load = self._loader.prepare(load.wanted)
        self._loader.reload(load)
        return self._prove(load, new=new, sure=sure)

    def _caught(self) -> bool:
        """Whether canaries are caught now: only then does one that gets through speak against the next load."""
        load = self.account.load
        return load is not None and self.prover.look(load).canary == "caught"

    def _prove(self, load: Load, *, new: bool = False, sure: bool = False) -> bool:
        proof = self.prover.prove(load)
        self.state.rules_loaded, self.state.rules_failed = proof.loaded, proof.failed
        self.state.rules_expected, self.state.set_id = load.expected, load.wanted.id
        self._seen = proof
        if not proof.counts(load) or (sure and proof.canary == "missed"):
            return False
        self._proven = load
        if new:
            self._refused = ("", load.wanted.rejection)
        self.state.refused = self._refused[1]
        self._tell(load, proof)
        self._loader.prune(load)
        return True

    def _tell(self, load: Load | None, proof: Proof | None) -> None:
        """A load has ended, so or so."""
        refused, why = self._refused
        self.account = Account(load, proof, loads=self.account.loads + 1, refused=refused, why=why)

    def _refuse(self, load: Load, why: str = "") -> str:
        state = self.state
        if not why:
            why = f"{state.rules_loaded} of {state.rules_expected} rules loaded, {state.rules_failed} failed."
            if state.rules_loaded == state.rules_expected and not state.rules_failed:
                why = "its rules were counted, but a packet that they must stop got through."
        detail = f"Rule set {load.wanted.id[:12]} was refused: {why}"
        self._refused = (load.set_id, detail)
        self.state.refused = detail
        return detail

    def _chosen(self) -> RuleSet:
        chosen = self._choose()
        self._link = self._current_link()
        if chosen.rejection and chosen.rejection != self.state.refused:
            self._health("rules_refused", chosen.rejection)
        return chosen

    def _current_link(self) -> str:
        try:
            return str((self._settings.sets / "current").readlink())
        except OSError:
            return ""

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
