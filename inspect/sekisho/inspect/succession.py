"""One inspect after the other without a gap (docs/decisions/0038-the-successor-gate.md): what the two processes say.

    predecessor                          successor, its child, of the release that the link names now
      SIGHUP: starts it ───────────────► rules read, workers ready, canary found; touches nothing of the box
      ◄───────────────────────── Hello
      reads no more packets; Estate and descriptors ►  gate, engine, ranges as they were
      ◄───────────────────────── TAKEN
      GO ──────────────────────────────► packets, files, heartbeat
      MAINPID to the service manager, MAIN ► READY; its recorder waits until the predecessor has written its last

A successor that ends, is too slow or says anything else is ended, and the predecessor goes on: before GO it has changed
nothing. After GO it touches the queue no more. Losing the other end means the same on both sides: GO was not given.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance.core.errors import PeerError
from sekisho.appliance.core.settings import Settings
from sekisho.inspect import eve, hold, ranges

PREPARE_S: Final = 100.0
STROKE_S: Final = 0.45
"""From the predecessor's last heartbeat, when all is written down, to its decision; the watchdog takes a heart that
stands still so long for beating (appliance.watchdog.BEAT_HUNG_S)."""
ROOM: Final = 1.1
"""As much free memory must be there, of what this process and its workers have for themselves."""
MEMINFO: Final = Path("/proc/meminfo")
_AT_ONCE: Final = 200
"""Descriptors in one message; the kernel takes 253 (unix(7))."""
_MESSAGE: Final = 4096
_STATE_CAP: Final = 256 << 20
_TAKEN, _GO, _MAIN = b"taken", b"go", b"main"
_FACTS_CAP: Final = 64 << 10


class Hello(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The successor is ready."""

    pid: int
    layout: int
    """Of the gate's memory (gate.layout)."""
    fail_open: bool
    """The queue was opened one way or the other, and stays so."""


class Estate(msgspec.Struct):
    """What is handed over beside the descriptors: the queue, the gate's image (`image`), files.sock, control.sock, the
    followed log at its place (`log`), the gate's spools, those of `pieces`, those of `kept`.
    """

    image: bool
    log: bool
    spools: int
    pieces: list[ranges.Piece]
    kept: list[int]
    """Tokens of cases whose content is there."""
    lengths: dict[int, int]
    forms: dict[int, str]
    paths: dict[int, str]
    engine: hold.Handed
    heard: list[eve.Key]
    unheard: list[eve.File]
    rest: bytes
    """Of the followed log: the beginning of a line."""
    rules: str
    rescan: bool


class Said(msgspec.Struct, frozen=True):
    """How the last attempt went, for who asked for it."""

    tries: int = 0
    state: Literal["", "preparing", "refused", "impossible"] = ""
    """"impossible": a restart alone would do what was asked."""
    why: str = ""


class Succession:
    """The predecessor's side: at most one successor at a time."""

    def __init__(self, settings: Settings, settings_file: Path) -> None:
        self._settings, self._file = settings, settings_file
        self.said = Said()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pidfd = -1
        self._deadline = 0.0

    def begin(self, workers: Iterable[int]) -> None:
        """Start a successor, if none is being prepared; `workers` tell how much memory it needs."""
        if self._socket is not None:
            return
        self.said = Said(self.said.tries + 1, "preparing")
        why = _lacking([os.getpid(), *workers])
        if why:
            self.end(why, state="impossible")
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = Path(self._settings.firmware.link) / "bin" / "python"
        program = str(python) if python.exists() else sys.executable
        command = [program, "-I", "-m", "sekisho.inspect.daemon", "--settings", str(self._file)]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [*command, "--predecessor", str(theirs.fileno())], pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )  # fmt: skip
        except OSError as err:
            ours.close()
            self.end(f"{program} cannot be started: {err.strerror}.")
            return
        self._socket, self._deadline = ours, time.monotonic() + PREPARE_S

    def fds(self) -> list[int]:
        """What to poll."""
        return [] if self._socket is None else [self._socket.fileno()]

    def turn(self) -> None:
        """Give up what takes too long. Call about ten times a second."""
        if self._process is not None:
            self._process.poll()  # the child itself ends at once: what it started goes on (see `Heir`)
        if self._socket is not None and time.monotonic() > self._deadline:
            self.end(f"The successor was not ready within {PREPARE_S:.0f} s.")

    def hello(self) -> Hello | None:
        """The successor has said something: that it is ready, or nothing any more (then it is ended)."""
        if self._socket is None:
            return None
        try:
            data = self._socket.recv(_MESSAGE, socket.MSG_DONTWAIT)
            if data.isdigit():
                self._pidfd = os.pidfd_open(int(data))
                return None
            if data:
                return msgspec.msgpack.decode(data, type=Hello)
            self.end("The successor ended before it was ready.")
        except BlockingIOError:
            pass
        except (OSError, msgspec.MsgspecError) as err:
            self.end(f"The successor is not understood: {err}.")
        return None

    def give(self, estate: Estate, fds: Sequence[int]) -> None:
        """Hand everything over and wait until it is taken.

        Raises:
            PeerError: it was not; the successor will do nothing with it.

        """
        link, until = self._link(), time.monotonic() + STROKE_S
        state = os.memfd_create("estate", os.MFD_CLOEXEC)
        try:
            with os.fdopen(state, "wb", closefd=False) as out:
                out.write(msgspec.msgpack.encode(estate))
            everything = [state, *fds]
            for at in range(0, len(everything), _AT_ONCE):
                left = len(everything) - at
                link.settimeout(max(0.001, until - time.monotonic()))
                socket.send_fds(link, [str(left).encode()], everything[at : at + _AT_ONCE])
            link.settimeout(max(0.001, until - time.monotonic()))
            if link.recv(_MESSAGE) != _TAKEN:
                raise PeerError("The successor did not take over.")
        except (OSError, TypeError, ValueError) as err:  # the latter two: not to be put into words
            raise PeerError(f"The successor did not take over: {err}.") from err
        finally:
            os.close(state)

    def go(self) -> None:
        """From here on the queue is the successor's.

        Raises:
            PeerError: it is gone: nothing was handed over.

        """
        try:
            self._link().send(_GO)
        except OSError as err:
            raise PeerError(f"The successor ended: {err}.") from err

    def main(self) -> None:
        """The service manager has been told whose word counts."""
        with contextlib.suppress(OSError):
            self._link().send(_MAIN)

    def end(self, why: str, *, state: Literal["refused", "impossible"] = "refused") -> None:
        """Have the successor end, if there is one; this process goes on."""
        self.said = Said(self.said.tries, state, why)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Forget the successor."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _link(self) -> socket.socket:
        if self._socket is None:
            raise PeerError("There is no successor.")
        return self._socket


class Heir:
    """The successor's side. Made before any thread: it goes on in a process of its own, nobody's child.

    The service manager then hears itself of its end, as of that of every main process it started.
    """

    def __init__(self, fd: int) -> None:
        if os.fork():
            os._exit(0)
        self._socket = socket.socket(fileno=fd)
        self._socket.send(str(os.getpid()).encode())

    def gone(self) -> bool:
        """The predecessor has ended, or gave this up."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def receive(self, hello: Hello) -> tuple[Estate, list[int]]:
        """Say that all is ready, and take what is handed over; the descriptors become ours.

        Raises:
            PeerError: the predecessor goes on by itself, or has ended.

        """
        fds: list[int] = []
        try:
            self._socket.settimeout(PREPARE_S)
            self._socket.send(msgspec.msgpack.encode(hello))
            left = 1
            while left > 0:
                data, some, _, _ = socket.recv_fds(self._socket, _MESSAGE, _AT_ONCE)
                if not data or not some:
                    raise PeerError("The predecessor goes on.")
                fds += some
                left = int(data) - len(some)
            with os.fdopen(fds[0], "rb") as source:
                source.seek(0)
                estate = msgspec.msgpack.decode(source.read(_STATE_CAP), type=Estate)
        except (OSError, ValueError) as err:  # msgspec's errors are ValueErrors
            raise PeerError(f"What was handed over is not understood: {err}.") from err
        for fd in fds[1:]:
            os.set_inheritable(fd, False)
        return estate, fds[1:]

    def taken(self) -> None:
        """Everything is as it was there; on return the queue is ours.

        Raises:
            PeerError: the predecessor went on, or ended: nothing is ours.

        """
        try:
            self._socket.send(_TAKEN)
            if self._socket.recv(_MESSAGE) != _GO:
                raise PeerError("The predecessor goes on.")
        except OSError as err:
            raise PeerError(f"The predecessor went on: {err}.") from err

    def is_main(self) -> bool:
        """Whether the service manager takes our word by now.

        Raises:
            PeerError: the predecessor ended before it could say so: the manager starts another one.

        """
        try:
            told = self._socket.recv(_MESSAGE, socket.MSG_DONTWAIT) == _MAIN
        except BlockingIOError:
            return False
        except OSError:
            told = False
        self._socket.close()
        if not told:
            raise PeerError("The predecessor ended before it had named its successor.")
        return True


def said(settings: Settings) -> Said:
    """What the inspect at work tells of its last attempt; nothing where none answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(2)
            link.connect(str(settings.inspect_socket))
            with link.makefile("rb") as answer:
                return msgspec.convert(json.loads(answer.readline(_FACTS_CAP))["succession"], Said)
    except (OSError, ValueError, KeyError):
        return Said()


def _lacking(pids: Iterable[int]) -> str:
    """Why there is no room for as many processes once more; empty where there is."""
    try:
        needed = sum(_own(pid) for pid in pids) * os.sysconf("SC_PAGE_SIZE") / 1024 * ROOM
        lines = MEMINFO.read_text().splitlines()
        free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration) as err:
        return f"How much memory is free cannot be read: {err}."
    if free >= needed:
        return ""
    return f"Two gates at once need {int(needed) >> 10} MB of free memory, and {free >> 10} MB are free."


def _own(pid: int) -> int:
    """Pages a process has for itself; those of files and of spools are shared."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except FileNotFoundError:
        return 0
    return int(resident) - int(shared)
