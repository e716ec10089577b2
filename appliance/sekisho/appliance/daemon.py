"""The box's own daemon: puts the bridge and the rules up, then runs its threads until SIGTERM.

Main thread: the bypass watchdog, ten looks a second, never blocked by the others. `engine`: Suricata's life. `proof`:
whether it works with its rules. `inventory`: the LAN's devices. `responder`: tells whoever is refused. `packets`:
reports what packet rules hit. `coverage`: which bytes were looked at. SIGHUP chooses the rule set anew, SIGUSR1 puts
another engine in the place of this one, SIGUSR2 does so by a restart where there is no room for two. When the daemon
ends the bridge and its rules stay: traffic goes on, uninspected where the engine ended with it (handover.py: it need
not). A thread that fails unexpectedly ends the daemon, which the service manager starts again; a killed daemon's engine
goes on and is adopted.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sekisho.appliance import (
    bridge,
    doorway,
    engine_desk,
    express,
    handover,
    netfilter,
    preflight,
    status,
    suricata,
    vitals,
)
from sekisho.appliance.core import utc
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault, RejectedInput, SekishoError
from sekisho.appliance.core.sdnotify import notify
from sekisho.appliance.core.settings import Settings, load
from sekisho.appliance.coverage import Away
from sekisho.appliance.covering import Covering
from sekisho.appliance.engine import Engine, RuleSet
from sekisho.appliance.findings import Findings
from sekisho.appliance.inventory import Listener
from sekisho.appliance.known import KnownFiles
from sekisho.appliance.leading import Lead
from sekisho.appliance.packetfilter import PacketFilter
from sekisho.appliance.refusal import Responder
from sekisho.appliance.watch import Watch
from sekisho.appliance.watchdog import BypassWatchdog, Part, Report, RestartEngine, SetMode, observe
from sekisho.policy.live import Live
from sekisho.signatures import compiler
from sekisho.telemetry.events import Bypass, Health

LOOK_S: Final = 0.1
PUBLISH_S: Final = 1.0
INTACT_S: Final = 10.0
FULL: Final = 500
"""Packets waiting in a queue from which on it may be passing some by."""

log = logging.getLogger(__name__)


def choose_rules(settings: Settings) -> RuleSet:
    """The signature set to load, built first where its sources are newer."""
    chosen = compiler.ensure(settings)
    return RuleSet(chosen.id, chosen.suricata_file, chosen.suricata_rules, chosen.rejection)


class Daemon:
    """Joins the watchdog, the engine and the inventory."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.findings = Findings(settings.journals / "appliance.jsonl")
        self.packets = PacketFilter(settings.bridge.lan, self.findings.report)
        self.policy = Live(settings, self.findings.report, self.packets.apply)
        self.known = KnownFiles(settings)
        self.listener = Listener(
            settings.bridge.lan,
            settings.inventory,
            settings.device_kinds,
            settings.state / "inventory.json",
            self.findings.report,
        )
        self.responder = Responder()
        self.covering = Covering(settings, self.findings.report)
        closed = settings.inspection.fail_mode == "closed"
        self.watchdog = BypassWatchdog(suricata.queue_count(settings), closed, self._saved_accounts())
        self.lead = Lead(settings, self.watchdog.mode)
        self.engine = Engine(settings, self._choose, self.findings.report, self.lead)
        self.watch = Watch(settings, self.engine, self.findings.report, self._excused)
        self.stop = threading.Event()
        self.failed = False

    def _choose(self) -> RuleSet:
        return self.known.choose(self.policy.choose(choose_rules(self.settings)))

    def _excused(self) -> bool:
        """Whether canaries may miss the engine now: it is absent or hangs, or its queue is full and passes packets."""
        full = any(queue.waiting > FULL for queue in observe(self.settings.gate_beat).queues.values())
        return full or bool(self.watchdog.engine.reason) or not netfilter.canaries_led()

    def _saved_accounts(self) -> tuple[Part, ...]:
        try:
            last = status.try_read(self.settings)
        except RejectedInput as err:
            log.warning("%s", err)
            last = None
        return (last.engine_bypass, last.gate_bypass) if last is not None else ()

    def up(self) -> None:
        """Bridge and rules, as they must be before anything is watched.

        Raises:
            DeviceFault: the machine is not fit; the message is for the owner.

        """
        problems = preflight.check(self.settings)
        for problem in problems:
            log.warning("preflight: %s", problem.text)
        if fatal := [problem.text for problem in problems if not problem.waits]:
            raise DeviceFault(" ".join(fatal))
        bridge.up(self.settings)
        self.lead.find()
        self.lead.install()
        self._board()
        self._doorway()

    def _doorway(self) -> None:
        """Without its rule the page stays shut, and everything else goes on."""
        try:
            if self.settings.page.enabled:
                doorway.install(self.settings)
        except (DeviceFault, OSError) as err:
            log.error("The box's page stays shut: %s", err)

    def _board(self) -> None:
        """The express lane saves time, nothing else: without it everything takes the normal path."""
        try:
            express.install(self.settings.bridge.lan, self.settings.bridge.wan)
        except DeviceFault as err:
            log.warning("%s", err)
            self.findings.report(Health(at=utc.now(), part="rules", state="no_express", detail=str(err)[:200]))

    def run(self) -> int:
        """Watch until stopped; the exit code."""
        threads = [
            threading.Thread(target=self._guarded, args=(work,), name=name)
            for name, work in (
                ("engine", self.engine.run),
                ("proof", self.watch.run),
                ("policy", lambda stop: self.policy.run(stop, self.engine)),
                ("known", lambda stop: self.known.run(stop, self.engine)),
                ("inventory", self.listener.run),
                ("responder", self.responder.run),
                ("coverage", self.covering.run),
                ("vitals", lambda stop: vitals.run(stop, self.settings.state, self.findings.report)),
                ("packets", self.packets.reader.run),
            )
        ]
        for thread in threads:
            thread.start()
        desk = self._open_desk()
        notify("READY=1")
        published = checked = time.monotonic()
        try:
            while not self.stop.wait(LOOK_S):
                now = time.monotonic()
                self.look(now)
                if now - published >= PUBLISH_S:
                    published = now
                    self._publish(now)
                if now - checked >= INTACT_S:
                    checked = now
                    self._mend()
        finally:
            notify("STOPPING=1")
            self.stop.set()
            if desk is not None:
                desk.close()
            for thread in threads:
                thread.join()
            self._publish(time.monotonic())
        return 1 if self.failed else 0

    def _open_desk(self) -> Desk | None:
        """Without it no job renews the engine, and everything else goes on."""
        where, answer = engine_desk.socket_of(self.settings), engine_desk.Counter(self.engine).answer
        try:
            return Desk(where, engine_desk.USERS, answer)
        except OSError as err:
            log.error("Jobs cannot ask for another engine: %s", err)
            return None

    def end(self) -> None:
        """Have `run` return; whether a successor is to have the engine is decided now, however long that takes."""
        if handover.wanted(self.settings):
            self.engine.leaves = self.covering.leaves = True
        self.stop.set()

    def look(self, now: float) -> None:
        """One look of the watchdog and what follows from it."""
        runs = self.engine.state.phase == "running"
        seen = observe(self.settings.gate_beat, engine_runs=runs, first=self.lead.now.first)
        for command in self.watchdog.handle(seen, now):
            match command:
                case SetMode(mode):
                    self._set_mode(mode)
                case RestartEngine():
                    self.engine.request_restart()
                case Report(part, state, reason, seconds, total):
                    log.warning("%s bypass %s: %s (%.1f s, %.1f s in all)", part, state, reason, seconds, total)
                    self.findings.report(
                        Bypass(
                            at=utc.now(),
                            part=part,
                            state=state,
                            reason=reason,
                            seconds=round(seconds, 3),
                            total_seconds=round(total, 3),
                        )
                    )
        self.covering.note(Away(self.watchdog.engine.reason, self.watchdog.gate.reason), seen.queues)

    def _set_mode(self, mode: netfilter.Mode) -> None:
        try:
            self.lead.set_mode(mode)
        except DeviceFault as err:
            log.error("%s", err)
            self.watchdog.retry_mode()

    def _mend(self) -> None:
        """Put back rules or switches that somebody else's firewall program swept away."""
        try:
            if self.lead.unsure:
                self.lead.install()
                log.warning("the packet rules, of which a change had been refused, are loaded again")
            mended = self.packets.mend()
            if self.settings.page.enabled and not doorway.present():
                self._doorway()
            if netfilter.intact():
                if not express.present():
                    self._board()
                if not mended:
                    return
            else:
                netfilter.write_sysctls(dict(netfilter.SYSCTLS))
                self.lead.install()
        except DeviceFault as err:
            log.error("%s", err)
            return
        detail = f"Packet rules were missing for up to {INTACT_S:.0f} s and have been put back."
        log.warning("%s", detail)
        self.findings.report(Health(at=utc.now(), part="rules", state="mended", detail=detail))

    def _publish(self, now: float) -> None:
        notify("WATCHDOG=1")
        self.findings.flush()
        mode = self.watchdog.mode
        words = [w for w, on in (("engine_bypass", mode.engine_bypass), ("gate_bypass", mode.gate_bypass)) if on]
        seen = observe(self.settings.gate_beat)
        try:
            status.write(
                self.settings,
                status.Status(
                    pid=os.getpid(), at_mono=now, mode="+".join(words) or "normal",
                    fail_mode=self.settings.inspection.fail_mode, engine=self.engine.state,
                    engine_bypass=self.watchdog.engine, gate_bypass=self.watchdog.gate, queues=seen.queues,
                    devices=self.listener.count,
                ),
            )  # fmt: skip
        except OSError as err:
            log.warning("status not written: %s", err)

    def _guarded(self, work: Callable[[threading.Event], None]) -> None:
        try:
            work(self.stop)
        except Exception:  # the boundary: a broken thread ends the daemon, which is started afresh
            log.exception("%s failed", threading.current_thread().name)
            self.failed = True
            self.stop.set()


def main(argv: list[str] | None = None) -> int:
    """Run the daemon; 2 for settings that were refused, 3 for a machine that is not fit."""
    parser = argparse.ArgumentParser(prog="sekisho.appliance.daemon")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        daemon = Daemon(load(args.settings))
        signal.signal(signal.SIGTERM, lambda *_: daemon.end())
        signal.signal(signal.SIGINT, lambda *_: daemon.end())
        signal.signal(signal.SIGHUP, lambda *_: daemon.engine.request_reload())
        signal.signal(signal.SIGUSR1, lambda *_: daemon.engine.request_renew())
        signal.signal(signal.SIGUSR2, lambda *_: daemon.engine.request_renew(may_restart=True))
        daemon.up()
        return daemon.run()
    except SekishoError as err:
        log.error("%s", err)
        notify(f"STATUS={err}")
        return 2 if isinstance(err, RejectedInput) else 3


if __name__ == "__main__":
    sys.exit(main())
