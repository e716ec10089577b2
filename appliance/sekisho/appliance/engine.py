"""The engine's life: start, prove, reload live, restart when it dies, keep the last set that was proven.

Owns the Suricata process, its configuration file, and the size of its log files. An "OK" from Suricata proves
nothing: after every start and reload the number of loaded rules is compared with the number the set holds, and
a set that does not load whole is taken back. Runs in one thread of the daemon; `request_reload` and
`request_restart` are the only calls from others.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance import control, logs, store, suricata
from sekisho.appliance.core import latency, utc
from sekisho.appliance.core.errors import DeviceFault, PeerError, SekishoError
from sekisho.appliance.core.fsio import write_atomic
from sekisho.appliance.core.settings import Settings
from sekisho.appliance.process import EngineProcess
from sekisho.telemetry.events import Event, Health

START_S: Final = 180.0
RELOAD_S: Final = 120.0
FIRST_BACK_OFF_S: Final = 0.2
MAX_BACK_OFF_S: Final = 30.0
GOOD_RUN_S: Final = 60.0
LOOK_S: Final = 0.2

log = logging.getLogger(__name__)

_ACTION = re.compile(rb"^[ \t]*(?:drop|reject(?:src|dst|both)?)(?=[ \t])", re.MULTILINE)


@dataclass(frozen=True)
class RuleSet:
    """What the engine is to load: one file by absolute path, and how many rules that makes."""

    id: str
    file: Path
    rules: int
    rejection: str = ""
    """Why a newer set is not this one; reported once."""
    policy: Path | None = None
    """The rules of the owner's policy, absolute, beside the signatures."""
    known: Path | None = None
    """The rules that refuse files by their hash, absolute."""

    @property
    def own(self) -> list[Path]:
        """The product's rules, which stand before the signatures."""
        return [suricata.steer_rules(), *(path for path in (self.known, self.policy) if path is not None)]


class EngineState(msgspec.Struct):
    """What `sekisho box status` shows of the engine."""

    phase: Literal["stopped", "starting", "running", "reloading"] = "stopped"
    pid: int = 0
    set_id: str = ""
    rules_expected: int = 0
    rules_loaded: int = 0
    rules_failed: int = 0
    starts: int = 0
    reloads: int = 0
    """Reloads answered so far, proven or refused: a requester waits for this to move."""
    refused: str = ""
    """Why the newest set is not in force; empty when it is."""


class Engine:
    """Suricata under care."""

    def __init__(self, settings: Settings, choose: Callable[[], RuleSet], report: Callable[[Event], None]) -> None:
        self.state = EngineState()
        self._settings = settings
        self._choose = choose
        self._report = report
        self._dir = settings.control_socket.parent
        self._config = self._dir / "suricata.yaml"
        self._pid_file = self._dir / "suricata.pid"
        self._queues = suricata.queue_count(settings)
        self._process: EngineProcess | None = None
        self._proven: RuleSet | None = None
        self._reload = threading.Event()
        self._restart = threading.Event()
        self._link = ""

    @property
    def proven(self) -> RuleSet | None:
        """The set that was last seen to load whole; None before the first."""
        return self._proven

    def request_reload(self) -> None:
        """Choose the rule set anew and load it live."""
        self._reload.set()

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
            if not stop.is_set():
                self.state.phase, self.state.pid = "stopped", 0
                stop.wait(back_off)
                back_off = min(back_off * 2, MAX_BACK_OFF_S)
        if self._process is not None:
            self._process.stop()
        self._process = None
        self.state.phase, self.state.pid = "stopped", 0
        self._health("stopped", "")

    def _prepare(self) -> None:
        for path in (self._dir, self._settings.eve.parent, self._settings.files_socket.parent):
            path.mkdir(parents=True, exist_ok=True)
        if warning := store.mount(self._settings.filestore, self._settings.inspection.memory_mb):
            log.warning("%s", warning)

    def _start(self, stop: threading.Event) -> None:
        self.state.phase = "starting"
        # After a crash what was proven is loaded again at once: choosing anew may take long.
        wanted = self._proven or self._chosen()
        if self._process is None and self._adopt(wanted):
            return
        self._launch(wanted)
        if not self._answering(stop):
            return
        if not self._prove(wanted):
            detail = self._refusal(wanted)
            self._health("rules_refused", detail)
            if self._proven is not None and self._proven != wanted:
                self.state.refused = detail
                self._load(self._proven)
        self.state.phase = "running"
        latency.short_slices(self.state.pid, "W-NFQ")
        self._health("started", "")

    def _launch(self, wanted: RuleSet) -> None:
        if self._process is not None:
            self._process.close()
        self._write_config(wanted)
        # Suricata will not start over a stale pid file, nor bind its command socket over a stale one.
        self._pid_file.unlink(missing_ok=True)
        self._settings.control_socket.unlink(missing_ok=True)
        self._process = EngineProcess.spawn(self._config, self._pid_file, self._queues, self._dir / "engine.log")
        self._restart.clear()  # was meant for the former one
        self.state.pid = self._process.pid
        self.state.starts += 1

    def _adopt(self, wanted: RuleSet) -> bool:
        found = EngineProcess.try_adopt(self._config, self._pid_file)
        if found is None:
            return False
        try:
            same = self._config.read_text() == self._render(wanted)
            if same and self._prove(wanted):
                self._process = found
                self.state.phase, self.state.pid = "running", found.pid
                self._health("adopted", "")
                return True
        except (OSError, PeerError) as err:
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
                self._reload_live()
            self._roll_logs()
        self._health("died", "")

    def _reload_live(self) -> None:
        self.state.phase = "reloading"
        try:
            wanted = self._chosen()
            if self._load(wanted):
                self._health("reloaded", "")
            else:
                detail = self._refusal(wanted)
                self._take_back(detail)
        finally:
            self.state.phase = "running"
            self.state.reloads += 1

    def _take_back(self, detail: str) -> None:
        self.state.refused = detail
        if self._proven is None or not self._load(self._proven):
            raise DeviceFault(f"{detail} The earlier set does not load either.")
        self.state.refused = detail
        self._health("reload_refused", detail)

    def _load(self, wanted: RuleSet) -> bool:
        self._write_config(wanted)
        reply = control.ask(self._settings.control_socket, "reload-rules", RELOAD_S)
        log.info("reload answered %s %s", reply.result, reply.message)
        return self._prove(wanted)

    def _prove(self, wanted: RuleSet) -> bool:
        expected = wanted.rules + sum(count_rules(path) for path in wanted.own)
        stats = control.ruleset_stats(self._settings.control_socket)
        self.state.rules_loaded, self.state.rules_failed = stats.rules_loaded, stats.rules_failed
        self.state.rules_expected, self.state.set_id = expected, wanted.id
        if stats.rules_loaded != expected or stats.rules_failed:
            return False
        self._proven = wanted
        self.state.refused = wanted.rejection
        return True

    def _refusal(self, wanted: RuleSet) -> str:
        state = self.state
        return (
            f"Rule set {wanted.id[:12]} was refused: {state.rules_loaded} of {state.rules_expected} rules loaded, "
            f"{state.rules_failed} failed."
        )

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

    def _render(self, wanted: RuleSet) -> str:
        return suricata.model(self._settings, [*wanted.own, self._rule_file(wanted)]).render()

    def _rule_file(self, wanted: RuleSet) -> Path:
        """In detect mode a copy in which every rule only reports."""
        if self._settings.inspection.mode == "block":
            return wanted.file
        path = self._dir / "detect.rules"
        try:
            write_atomic(path, _ACTION.sub(b"alert", wanted.file.read_bytes()))
        except OSError as err:
            raise DeviceFault(f"The rules cannot be copied for detect mode: {err}.") from err
        return path

    def _write_config(self, wanted: RuleSet) -> None:
        try:
            write_atomic(self._config, self._render(wanted).encode())
        except OSError as err:
            raise DeviceFault(f"{self._config} cannot be written: {err.strerror}.") from err

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


def count_rules(path: Path) -> int:
    """Rules in a file: lines that are neither empty nor a comment."""
    return sum(1 for line in path.read_bytes().splitlines() if line.strip() and not line.lstrip().startswith(b"#"))
