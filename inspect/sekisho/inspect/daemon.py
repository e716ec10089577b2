"""The inspect daemon: wires gate, engine events, scan workers, recorder. One loop, one thread for packets.

    gate.run -> (Hearing: the engine's files; workers' results; the gate's notes) -> HoldEngine -> Effects

The loop never touches a disk or waits for anything but the gate; outcomes go to the recorder's thread.
Every 100 ms it writes its heartbeat; appliance bypasses the gate when that stops. On SIGHUP it has a successor started,
hands it the queue with everything known, finishes what is its own and ends (`succession`).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal

import msgspec

from sekisho.appliance.core import known, latency, muting, sdnotify, utc
from sekisho.appliance.core.desk import Desk
from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput, SekishoError
from sekisho.appliance.core.journal import JournalWriter
from sekisho.appliance.core.settings import Inspection, Settings, load
from sekisho.inspect import counter, gate, hold, pages, retro
from sekisho.inspect.effects import Belongings, Effects
from sekisho.inspect.fleet import Published
from sekisho.inspect.hearing import Hearing
from sekisho.inspect.janitor import Janitor
from sekisho.inspect.kept import Entry
from sekisho.inspect.ledger import Ledger
from sekisho.inspect.quarantine import Quarantine
from sekisho.inspect.recorder import Bad, NewFleet, NewRules, Recorder, Stores
from sekisho.inspect.refused import Refused
from sekisho.inspect.scan import Pool
from sekisho.inspect.succession import Estate, Heir, Hello, Succession
from sekisho.inspect.telling import Telling
from sekisho.telemetry import events

log = logging.getLogger(__name__)

BEAT_S = 0.1
DEPTH = 1 << 20
"""Bytes of a response stream that Suricata reassembles (appliance.suricata sets the same)."""
CHECK_S = 1.0
TELL_SHED_S = 60.0
BUSY = 32
"""Scans waiting for a worker from which on only what is held is looked at."""
FINISH_S = 10.0
"""So long a process that was succeeded takes for what it still looks at."""
PAUSE_US = 10_000
"""A response that says nothing for this long has its unfinished content looked at. Shorter looks more often."""


class Inspect:
    """Everything the daemon owns; `step` is one turn of the loop."""

    def __init__(self, settings: Settings, settings_file: Path, heir: Heir | None = None) -> None:
        """`heir`: prepare everything and touch nothing of the box's before the predecessor has handed it over."""
        self.settings = settings
        inspection = settings.inspection
        self.engine = hold.HoldEngine(block=inspection.mode == "block", block_reasons=_block_reasons(inspection))
        self.rules = settings.sets / "current" / "yara.compiled"
        self._again: dict[int, Entry] = {}
        self._next_again = 0
        self.fleet = Published(settings.fleet_bad)
        self.pool = Pool(inspection.scan_workers, 512, self._rules_file(), self.fleet.fd)
        self._muting: tuple[tuple[int, int], ...] = ()
        self._mute()
        self._pages = pages.pages(settings.help_desk)
        self.effects = Effects(inspection, self.engine, self.pool, lambda record: self.recorder.put(record))
        self._housekeeping = 0.0
        self._checked = time.monotonic()
        self._told_shed = -TELL_SHED_S
        self._shed: Counter[str] = Counter()
        self.succession = Succession(settings, settings_file)
        self.stopping = False
        self.succeed = False
        """A successor is asked for."""
        self.succeeded = False
        """It has the queue."""
        self._heir = self._unannounced = heir
        if heir is None:
            self._enter(
                _bind(settings.files_socket, socket.SOCK_DGRAM), _bind(settings.inspect_socket, socket.SOCK_STREAM)
            )
            self.engine.known.update(_refused_before(settings, self._rules_file().parent.name))
            self.hearing.look_back()

    def _enter(self, files: socket.socket, control: socket.socket, log_at: tuple[int, bytes] | None = None) -> None:
        """Take the places that one process has at a time."""
        settings, inspection, kept = self.settings, self.settings.inspection, self.settings.quarantine
        self.control = control
        self.beat = _Beat(settings.gate_beat)
        self.hearing = Hearing(settings, files, self.effects, log_at)
        for folder in (settings.quarantine_dir, settings.state / "recent"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = settings.run / "inspect" / "recording.lock"
        self.recorder = Recorder(self._stores, lock, settings.inventory, inspection.home_networks)
        self.rescan = retro.Rescan(_recent(settings, writer=False))
        self.telling = Telling(settings, self.pool)
        self.janitor = Janitor(settings.filestore)
        shown = Quarantine(settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days, writer=False)
        answering = counter.Counter(shown, kept.keep_days, inspection.scan_limit_mb << 20, self.recorder.put)
        self.desk = Desk(settings.quarantine_socket, counter.USERS, answering.answer)

    def _stores(self) -> Stores:
        """Opened by the recorder, when no other process has them."""
        settings, kept = self.settings, self.settings.quarantine
        return Stores(
            JournalWriter(settings.journals / "inspect.jsonl"),
            Quarantine(settings.quarantine_dir, max_bytes=kept.max_mb << 20, keep_days=kept.keep_days),
            _recent(settings, writer=True),
            Ledger(settings.state / "inspect" / "ledger.db"),
            Refused(settings.known_files, self._rules_file().parent.name),
        )

    def _rules_file(self) -> Path:
        """The compiled rules of the set in force, through the link, so that a new set is a new path."""
        return self.rules.resolve()

    def _config(self) -> gate.Config:
        inspection = self.settings.inspection
        return gate.Config(
            queue=gate.QUEUE,
            fail_open=inspection.fail_mode == "open",
            max_flows=16384,
            max_held=16384,
            spool_limit=inspection.scan_limit_mb << 20,
            spool_total=inspection.memory_mb << 20,
            depth=DEPTH,
            deadline_ms=int(inspection.scan_timeout_s * 1000),
            pause_us=PAUSE_US,
        )

    def open_gate(self, *, dry: bool = False) -> gate.Gate:
        """Bind the queue; from here on packets wait for us. `dry`: it comes later, from a predecessor."""
        opened = gate.Gate(self._config(), dry=dry)
        for why, page in self._pages.items():
            opened.set_page(why, page)
        latency.short_slice(0)
        return opened

    def step(self) -> None:
        """Move packets for at most a heartbeat and act on what came up."""
        if self._heir is not None:
            self._prepare(self._heir)
            return
        now = time.monotonic()
        if now - self._housekeeping >= BEAT_S:
            self._housekeeping = now
            self._keep_house()
        if self.effects.gate is None:
            if self.pool.ready:
                self.effects.gate = self.open_gate()
                self.hearing.replay()
                sdnotify.notify("READY=1")
                log.info("the gate is open")
            else:
                self._wait_for_workers()
            return
        successor = self.succession.fds()
        fds = [self.hearing.files.fileno(), self.control.fileno(), *successor, *self.pool.fds()]
        ready, notes = self.effects.gate.run(fds, BEAT_S)
        if fds[0] in ready:
            self.hearing.listen()
        if fds[1] in ready:
            self._answer()
        for fd in ready:
            self.pool.handle(fd)
        self._collect()
        for note in notes:
            ends = None if note.kind is gate.Kind.GONE else self.effects.gate.ends(note.flow)
            self.effects.handle(hold.NoteRaised(note, ends))
        if successor and successor[0] in ready and (hello := self.succession.hello()) is not None:
            self._hand_over(hello)

    def _prepare(self, heir: Heir) -> None:
        """Become ready while the predecessor works, then go on in its place.

        Raises:
            PeerError: it goes on itself, or it ended: then nothing is done here.

        """
        now = time.monotonic()
        if now - self._housekeeping >= BEAT_S:
            self._housekeeping = now
            self._mute()
            self.fleet.refresh()
            self.pool.rules = self._rules_file()
            self.pool.tick()
        if heir.gone():
            raise PeerError("The process that was to be succeeded went on, or has ended.")
        if not self.pool.proven:
            self._wait_for_workers()
            return
        hello = Hello(os.getpid(), gate.layout(), self.settings.inspection.fail_mode == "open")
        fresh = self.open_gate(dry=True)
        self._take_over(fresh, heir, *heir.receive(hello))
        log.info("the gate was taken over")

    def _take_over(self, fresh: gate.Gate, heir: Heir, estate: Estate, fds: list[int]) -> None:
        given = iter(fds)
        queue, image = next(given), next(given) if estate.image else -1
        files, control = (socket.socket(fileno=next(given)) for _ in range(2))
        log_at = (next(given) if estate.log else -1, estate.rest)
        try:
            fresh.adopt(gate.Former(queue, image, tuple(itertools.islice(given, estate.spools))))
            heir.taken()
        except SekishoError:
            fresh.leave()
            raise
        self.effects.gate, self._heir = fresh, None
        self._enter(files, control, log_at)
        held = Belongings(estate.pieces, estate.kept, estate.lengths, estate.forms, estate.paths)
        self.effects.take_over(held, given)
        self.hearing.take_over(estate.heard, estate.unheard)
        self.engine.take_over(estate.engine)
        for flow, direction in estate.engine.on_its_way:
            self.effects.gate.again(flow, direction, gate.Kind.FRAME)
        if image >= 0:
            os.close(image)
        if estate.rescan:
            self.rescan.begin()
        if estate.rules != str(self.pool.rules):
            self._other_rules()

    def _hand_over(self, hello: Hello) -> None:
        """The successor is ready: it has the queue from here on, or everything goes on as it was."""
        if self.effects.gate is None:
            return
        if hello.fail_open != (self.settings.inspection.fail_mode == "open"):
            self.succession.end("The queue was opened with another fail mode.", state="impossible")
            return
        began = time.monotonic()
        whole = hello.layout == gate.layout()
        self.beat.write()
        self.hearing.listen()  # what the engine said about packets that are about to be judged
        try:
            former = self.effects.gate.freeze()
            self.beat.write()  # alive: on a slow machine writing it all down is the longest part of the stroke
        except DeviceFault as err:
            self.succession.end(str(err), state="impossible")
            return
        try:
            self.succession.give(*self._estate(former, whole=whole))
            self.succession.go()
        except PeerError as err:
            self.succession.end(str(err))
            return
        finally:
            os.close(former.image)
        sdnotify.notify(f"MAINPID={hello.pid}")
        self.succession.main()
        log.info("handed over in %.0f ms", (time.monotonic() - began) * 1000)
        commands = self.engine.leave(time.monotonic(), whole=whole)
        self.effects.gate.leave(drop=not whole)
        self.effects.gate, self.succeeded = None, True
        self.effects.do(commands)

    def _estate(self, former: gate.Former, *, whole: bool) -> tuple[Estate, list[int]]:
        """What the successor gets: words, and descriptors in their order."""
        handed = self.engine.hand_over()
        held, held_fds = self.effects.hand_over({case.token for case in handed.cases})
        heard, unheard, log_fd, rest = self.hearing.hand_over()
        spools = former.spools if whole else ()
        estate = Estate(
            image=whole,
            log=log_fd >= 0,
            spools=len(spools),
            **held._asdict(),
            engine=handed if whole else handed.without_flows(),
            heard=heard,
            unheard=unheard,
            rest=rest,
            rules=str(self.pool.rules),
            rescan=self.rescan.going or bool(self._again),
        )
        sockets = [former.queue, *([former.image] if whole else []), self.hearing.files.fileno(), self.control.fileno()]
        log_fds = [log_fd] if log_fd >= 0 else []
        return estate, [*sockets, *log_fds, *spools, *held_fds]

    def finish(self) -> None:
        """After a successor has taken over: what was being looked at without holding anything up is told by us."""
        deadline = time.monotonic() + FINISH_S
        while self.engine.cases and not self.stopping and time.monotonic() < deadline:
            ready, _, _ = select.select(self.pool.fds(), (), (), BEAT_S)
            for fd in ready:
                self.pool.handle(fd)
            self.pool.tick()
            self._collect()

    def _wait_for_workers(self) -> None:
        if not self.pool.fds():
            time.sleep(0.05)
        for fd in self.pool.fds():
            self.pool.handle(fd)
        time.sleep(0.01)

    def _keep_house(self) -> None:
        self.beat.write()
        if self._unannounced is not None and self._unannounced.is_main():
            self._unannounced = None
            sdnotify.notify("READY=1")
        sdnotify.notify("WATCHDOG=1")
        if self.succeed and self.effects.gate is not None:
            self.succeed = False
            self.succession.begin(self.pool.pids())
        self.succession.turn()
        current = self._rules_file()
        if current != self.pool.rules or self._mute():
            self.pool.rules = current
            self._other_rules()
        if self.fleet.refresh():
            self.engine.fleet_changed()
            self.recorder.put(NewFleet(self.settings.fleet_bad))
        if self.pool.idle:
            self._look_again()
        self.pool.tick()
        self.telling.turn()
        self.engine.overloaded = self.pool.waiting > BUSY
        if time.monotonic() - self._checked >= CHECK_S and self.effects.gate is not None:
            self._checked = time.monotonic()
            self.hearing.cross_check()
            self._tell_shed()
            self.effects.do(self.engine.due(time.monotonic()))

    def _other_rules(self) -> None:
        self.engine.forget_verdicts()
        self.recorder.put(NewRules(self.pool.rules.with_name("known.bin")))
        self.rescan.begin()

    def _mute(self) -> bool:
        """Whether other rules are muted than before; the workers hear of it with their next job."""
        stamps = muting.stamps(self.settings)
        if stamps == self._muting:
            return False
        self._muting, before = stamps, self.pool.muted
        self.pool.muted = muting.both(self.settings).yara
        return self.pool.muted != before

    def _look_again(self) -> None:
        """One file that was delivered before the rules changed."""
        again = self.rescan.take()
        if again is None:
            return
        self._next_again -= 1
        self._again[self._next_again] = again.entry
        what: Literal["file", "stream"] = "file" if again.entry.form == "file" else "stream"
        job = self.effects.job(self._next_again, what, again.length, again.entry.file_name[-128:])
        job.app, job.to_server = again.entry.app, again.entry.app == "smtp"
        self.pool.submit(job, again.fd)

    def _tell_shed(self) -> None:
        """Once a minute: what was not looked at, if anything."""
        now = time.monotonic()
        if now - self._told_shed < TELL_SHED_S or self.engine.shed == self._shed:
            return
        fresh = self.engine.shed - self._shed
        self._told_shed, self._shed = now, self.engine.shed.copy()
        detail = " ".join(f"{kind}={count}" for kind, count in sorted(fresh.items()))
        self.recorder.put(events.Health(at=utc.now(), part="inspect", state="shed", detail=detail))

    def _collect(self) -> None:
        for result in self.pool.results():
            if result.id in self._again:
                entry = self._again.pop(result.id)
                rules = next((seen.rules for seen in result.objects if seen.rules), [])
                if rules:
                    self.recorder.put(Bad(entry.sha256, rules, "rules"))
                continue
            self.effects.handle(hold.ScanDone(result.id, result))

    def status(self) -> dict[str, object]:
        """Facts for `sekisho box status` and tests."""
        stats = self.effects.gate.stats() if self.effects.gate else gate.Stats()
        facts: dict[str, object] = {field[0]: getattr(stats, field[0]) for field in gate.Stats._fields_}
        return facts | {
            "open": self.effects.gate is not None,
            "workers": self.pool.pids(),
            "workers_ready": self.pool.ready,
            "workers_lost": self.pool.lost,
            "scans": self.pool.submitted,
            "rules": str(self.pool.rules),
            "open_cases": len(self.engine.cases),
            "not_looked_at": dict(self.engine.shed),
            "succession": msgspec.to_builtins(self.succession.said),
        }

    def _answer(self) -> None:
        try:
            peer, _ = self.control.accept()
        except OSError:
            return
        with peer:
            peer.settimeout(0.05)
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(self.status()).encode() + b"\n")

    def close(self) -> None:
        """Release what is held, write what waits; what a successor has taken over is left alone."""
        if self.succeeded:
            self.succession.close()
        else:
            self.succession.end("It was ended with the one that it was to succeed.")
        if self.effects.gate is not None:
            self.effects.gate.close()
        if self._heir is not None:  # nothing was ours
            self.pool.close()
            return
        if not self.succeeded:  # at once: what comes later may be of a process that was started since
            self.settings.files_socket.unlink(missing_ok=True)
            self.settings.inspect_socket.unlink(missing_ok=True)
        self.janitor.stop()
        self.desk.close(succeeded=self.succeeded)
        self.rescan.close()
        self.effects.close()
        self.pool.close()
        self.recorder.close()


def _recent(settings: Settings, *, writer: bool) -> Quarantine:
    """What was delivered lately, to be looked at again."""
    folder = settings.state / "recent"
    return Quarantine(folder, max_bytes=retro.STORE_BYTES, keep_days=retro.KEEP_DAYS, writer=writer)


def _refused_before(settings: Settings, set_id: str) -> list[tuple[str, tuple[str, ...]]]:
    """Files found malicious under this set before, and what by."""
    with contextlib.suppress(RejectedInput):  # `Refused` says so, and begins anew
        return [(file.sha256, tuple(file.rules)) for file in known.read(settings.known_files, set_id)]
    return []


def _block_reasons(inspection: Inspection) -> frozenset[str]:
    """The outcomes that policy does not let pass."""
    reasons = {"unparsable"} if inspection.on_unparsable == "block" else set()
    if inspection.on_encrypted == "block":
        reasons |= {"encrypted"}
    if inspection.on_unscanned == "block":
        reasons |= {"too_large", "timeout", "damaged", "worker_lost", "memory", "not_stored", "depth", "bomb", "range"}
    return frozenset(reasons)


class _Beat:
    """CLOCK_MONOTONIC in ms, 8 bytes little endian, rewritten in place."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.write()

    def write(self) -> None:
        os.pwrite(self._fd, struct.pack("<Q", int(time.monotonic() * 1000)), 0)


def _bind(path: Path, kind: int) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # The engine does not wait for a full queue, and ten datagrams (the default) are three busy browsers.
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text("4096")
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: an unheard file is an unscanned one
    sock.bind(str(path))
    path.chmod(0o660)
    if kind == socket.SOCK_STREAM:
        sock.listen(8)
    return sock


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sekisho.inspect.daemon")
    parser.add_argument("--settings", type=Path, default=Path("/etc/sekisho/box.toml"))
    parser.add_argument("--predecessor", type=int, default=-1, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        heir = Heir(options.predecessor) if options.predecessor >= 0 else None
        inspect = Inspect(load(options.settings), options.settings, heir)
    except SekishoError as err:
        log.error("%s", err)
        return 2

    def stop(signum: int, frame: object) -> None:
        inspect.stopping = True

    def hang_up(signum: int, frame: object) -> None:
        inspect.succeed = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGHUP, hang_up)
    try:
        while not (inspect.stopping or inspect.succeeded):
            inspect.step()
        if inspect.succeeded:
            inspect.finish()
    except SekishoError as err:
        log.error("%s", err)
        return 3
    finally:
        inspect.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
