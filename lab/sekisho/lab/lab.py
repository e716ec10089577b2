"""One lab, brought up, used and removed. The demo, the end-to-end tests and the benches all go through `Lab`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.appliance.core.settings import load
from sekisho.appliance.status import try_read
from sekisho.lab import layout, net, product, remains, servers, toml
from sekisho.lab.channel import Channel
from sekisho.lab.layout import ENV_MARK, ROOT, Layout, Place
from sekisho.lab.program import Plan, Program, Reply, Request, Running
from sekisho.telemetry.events import Event
from sekisho.telemetry.events import decode as decode_event

ROOT_MB = 1536
POLL_S = 0.02
LOCK_WITHIN_S = 150
TRIES = 12


class Stored(msgspec.Struct, frozen=True):
    """One event as the centre keeps it."""

    box: str
    epoch: str
    seq: int
    lane: int
    received_at: str
    event: Event


class Lab:
    """A lab by its name. As a context manager it is removed at the end, whatever happened."""

    def __init__(self, name: str = "sk") -> None:
        self.lay = Layout(name)
        self.channel = Channel(self.lay)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(
        self,
        settings: toml.Table | None = None,
        *,
        with_product: bool = True,
        portal: bool = False,
        channel: bool = False,
        firmware: bool = False,
        stopped: Collection[str] = (),
        timeout_s: float = 90,
    ) -> None:
        """Build everything and wait until every program is ready and the box inspects; `settings` go over its own.

        Without the product the box is a plain bridge, which is what the benches compare with. With the portal the
        box is not enrolled yet (`enrol`). With the channel the centre publishes signatures (`self.channel`); with
        `firmware` also releases, and both come along. The programs named in `stopped` wait for `start`.

        Raises:
            DeviceFault: not root, already up, or a program did not get ready; the lab is removed again.

        """
        if os.geteuid() != 0:
            raise DeviceFault("The lab makes network namespaces, and only root may.", "Run it with sudo.")
        with _locked(self.lay.name):
            if self.is_up():
                raise DeviceFault(f"Lab {self.lay.name} is already up.", f"`sekisho lab down --name {self.lay.name}`")
            self._remove()
            try:
                self._build(settings or {}, with_product, portal or firmware, channel or firmware, firmware, stopped)
                self.wait_ready(timeout_s)
                if with_product and not {"appliance", "inspect"} & set(stopped):
                    self.wait(self.inspecting, "the box does not inspect", timeout_s)
            except BaseException:
                self._remove()
                raise

    def down(self) -> None:
        """Leave nothing behind: no process, namespace, mount or file. Safe to call at any time."""
        with _locked(self.lay.name):
            self._remove()

    def is_up(self) -> bool:
        try:
            return bool(self.status())
        except PeerError:
            return False

    def run(
        self,
        place: Place,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60,
        check: bool = False,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command in a namespace and return when it ended.

        Raises:
            subprocess.TimeoutExpired: it took longer than `timeout_s`.
            subprocess.CalledProcessError: with `check`, it failed.

        """
        return subprocess.run(
            self.inside(place, argv), input=stdin, capture_output=True, timeout=timeout_s, check=check, env=self.env()
        )

    def popen(self, place: Place, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start one command in a namespace and go on; its output is piped."""
        return subprocess.Popen(
            self.inside(place, argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.env(),
        )

    def inside(self, place: Place, argv: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.lay.netns(place), *argv]

    def env(self) -> dict[str, str]:
        return os.environ | {ENV_MARK: self.lay.name}

    def status(self) -> list[Running]:
        """What runs now.

        Raises:
            PeerError: the lab is not up.

        """
        return self._ask(Request("status"))

    def start(self, name: str) -> None:
        """Start a program that was stopped; returns at once, see `wait_ready`."""
        self._ask(Request("start", name))

    def stop(self, name: str, timeout_s: float = 15) -> None:
        """Stop a program (SIGTERM) and keep it stopped until `start`."""
        self._ask(Request("stop", name))
        self.wait(lambda: self._named(name).state == "stopped", f"{name} does not stop", timeout_s)

    def pid(self, name: str) -> int:
        """Process id of a program of the lab, or of "suricata"; 0 while it does not run."""
        if name != "suricata":
            return self._named(name).pid
        engines = []
        for pid in remains.processes(self.lay):
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip().lower().startswith("suricata"):
                    engines.append(pid)
        status = try_read(load(self.lay.box_settings)) if len(engines) > 1 else None
        if status is not None and status.engine.pid in engines:
            return status.engine.pid  # the other one is only just being started, or ended
        return engines[0] if engines else 0

    def kill(self, name: str, sig: int = signal.SIGKILL) -> int:
        """Send a running program of the lab, or "suricata", a signal; returns the process id it had."""
        found = 0

        def runs() -> bool:
            nonlocal found
            found = self.pid(name)
            return found != 0  # which would be every process of ours

        self.wait(runs, f"{name} does not run")
        os.kill(found, sig)
        return found

    def wait(self, fact: Callable[[], bool], otherwise: str, timeout_s: float = 30) -> None:
        """Return when `fact` is true.

        Raises:
            PeerError: it did not become true in time; the message is `otherwise`.

        """
        deadline = time.monotonic() + timeout_s
        while not fact():
            if time.monotonic() > deadline:
                raise PeerError(f"Lab {self.lay.name}: {otherwise} within {timeout_s:g} s.")
            time.sleep(POLL_S)

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Return when every program that is wanted is ready.

        Raises:
            DeviceFault: some are not; the message ends in the last lines of the first one's log.

        """
        late: list[str] = []

        def settled() -> bool:
            nonlocal late
            known = self.status()
            late = [program.name for program in known if program.state in ("starting", "dead")]
            # Something dies as fast as it is started: waiting on is of no use.
            return not late or any(program.starts >= TRIES and program.state != "ready" for program in known)

        try:
            self.wait(settled, "its supervisor says nothing", timeout_s)
        except PeerError:
            if not late:
                raise
        if late:
            raise DeviceFault(f"{', '.join(late)} not ready after {timeout_s:g} s: {self.log_tail(late[0])}")

    def inspecting(self) -> bool:
        """The engine runs with its rules, the gate with its workers, and neither is led around."""
        status = try_read(load(self.lay.box_settings))
        return (
            status is not None
            and status.fresh
            and status.engine.phase == "running"
            and status.engine.pid == self.pid("suricata")
            and not (status.engine_bypass.reason or status.gate_bypass.reason)
        )

    def events(self, after: int = 0) -> list[Stored]:
        """Everything the centre has stored, in the order of its arrival; `after` so many, which are passed over."""
        if not self.lay.center_store.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.lay.center_store}?mode=ro", uri=True, timeout=10)) as store:
            try:
                rows = store.execute(
                    "SELECT box, epoch, seq, lane, received_at, body FROM event ORDER BY rowid LIMIT -1 OFFSET ?",
                    (after,),
                ).fetchall()
            except sqlite3.OperationalError:
                return []  # the centre is only just making its store
        return [Stored(box, epoch, seq, lane, at, decode_event(body)) for box, epoch, seq, lane, at, body in rows]

    def wait_event(self, wanted: Callable[[Event], bool], timeout_s: float = 10) -> Stored:
        """The first stored event that fits, waiting for it if it is not there yet.

        Raises:
            PeerError: none came in time.

        """
        found: list[Stored] = []
        seen = 0

        def look() -> bool:
            nonlocal seen
            new = self.events(seen)
            seen += len(new)
            found.extend(row for row in new if wanted(row.event))
            return bool(found)

        self.wait(look, "the centre has no such event", timeout_s)
        return found[0]

    def enrol(self, code: str) -> None:
        """Make the box a member with a code, as its owner does, and have its telemetry begin.

        Raises:
            PeerError: the box refuses the code, or the centre does.

        """
        centre = f"https://{layout.CENTER4}:{layout.ENROLMENT}"
        program = [str(Path(sys.executable).with_name("sekisho")), "box", "enrol", "--centre", centre]
        done = self.run("box", [*program, "--settings", str(self.lay.box_settings)], stdin=code.encode() + b"\n")
        if done.returncode:
            raise PeerError(f"Lab {self.lay.name}: the box was not enrolled: {done.stderr.decode()[-300:]}")
        self.stop("telemetry")
        self.start("telemetry")

    def log_tail(self, name: str, lines: int = 15) -> str:
        path = self.lay.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def _build(
        self,
        settings: toml.Table,
        with_product: bool,
        portal: bool,
        channel: bool,
        firmware: bool,
        stopped: Collection[str],
    ) -> None:
        self.lay.root.mkdir(parents=True)
        net.command(["mount", "-t", "tmpfs", "-o", f"size={ROOT_MB}m,mode=755", "sekisho-lab", str(self.lay.root)])
        self.lay.logs.mkdir()
        net.build(self.lay, bridge=not with_product)
        programs: list[Program] = servers.prepare(self.lay)
        if with_product:
            published = self.channel if channel else None
            programs += product.prepare(self.lay, settings, portal=portal, channel=published, firmware=firmware)
        self.lay.programs.write_bytes(msgspec.json.encode(Plan(self.lay.name, programs, sorted(stopped))))
        with (self.lay.logs / "supervisor.log").open("ab") as out:
            supervisor = subprocess.Popen(
                [sys.executable, "-I", "-m", "sekisho.lab.supervisor", str(self.lay.programs)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.env(),
                cwd="/",
                start_new_session=True,
            )
        self.lay.pidfile.write_text(str(supervisor.pid))
        self.wait(lambda: self.is_up() or supervisor.poll() is not None, "the supervisor does not answer")
        if supervisor.poll() is not None:
            raise DeviceFault(f"The lab's supervisor ended: {self.log_tail('supervisor')}")

    def _remove(self) -> None:
        with suppress(OSError, ValueError):
            pid = int(self.lay.pidfile.read_text())
            if pid in remains.processes(self.lay):
                remains.end({pid}, signal.SIGTERM, 15)
        remains.end_all(self.lay)
        net.remove(self.lay)
        for folder in sorted(_mounts_below(self.lay.root), reverse=True):
            net.command(["umount", "-l", folder])
        shutil.rmtree(self.lay.root, ignore_errors=True)
        with suppress(OSError):
            ROOT.rmdir()  # the last lab takes the common folder along

    def _named(self, name: str) -> Running:
        for program in self.status():
            if program.name == name:
                return program
        raise RejectedInput(f"Lab {self.lay.name} has no program called {name!r}.")

    def _ask(self, request: Request) -> list[Running]:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(5)
                link.connect(str(self.lay.control))
                link.sendall(msgspec.json.encode(request) + b"\n")
                with link.makefile("rb") as answer:
                    reply = msgspec.json.decode(answer.readline(1 << 16), type=Reply)
        except (OSError, msgspec.DecodeError) as err:
            raise PeerError(f"Lab {self.lay.name} is not up.") from err
        if reply.error:
            raise RejectedInput(f"Lab {self.lay.name}: {reply.error}.")
        return reply.programs


def names() -> list[str]:
    """Labs that exist on this machine, up or broken."""
    return sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir()) if ROOT.is_dir() else []


def _mounts_below(root: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(root)]


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One `up` or `down` of a lab at a time. The lock is an abstract socket's name: it cannot be left behind."""
    deadline = time.monotonic() + LOCK_WITHIN_S
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0sekisho-lab/{name}")
                break
            except OSError as err:
                if time.monotonic() > deadline:
                    raise PeerError(f"Lab {name} is being brought up or removed by someone else.") from err
                time.sleep(POLL_S)
        yield
