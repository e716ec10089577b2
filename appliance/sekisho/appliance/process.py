"""One Suricata process: spawned by us, or adopted from a predecessor of ours that was killed.

The engine must outlive the daemon that started it (traffic is inspected while the daemon restarts), so it
has its own session, and is found again through its pid file and command line.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

from sekisho.appliance.berth import Berth, Binary
from sekisho.appliance.core.errors import DeviceFault

STOP_S: Final = 5.0
MAX_LOG_BYTES: Final = 4 << 20


class EngineProcess:
    """A handle that cannot hit a stranger: signals go through a pidfd."""

    def __init__(self, pid: int, child: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self._child = child
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def spawn(cls, berth: Berth, binary: Binary) -> Self:
        """Start Suricata on its berth's queues.

        Raises:
            DeviceFault: it cannot be executed.

        """
        argv = [str(binary.path), "-c", str(berth.config), "--runmode", "workers", "--pidfile", str(berth.pid_file)]
        argv += _queues(berth)
        try:
            with berth.log.open("ab") as out:
                if out.tell() > MAX_LOG_BYTES:
                    out.truncate(0)
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                    cwd="/",
                    env=binary.environment,
                )
        except OSError as err:
            raise DeviceFault(f"The inspection engine cannot be started: {err}.", "Install Suricata.") from err
        return cls(child.pid, child)

    @classmethod
    def try_adopt(cls, berth: Berth) -> Self | None:
        """The engine a killed predecessor left running on this berth's configuration file, if there is one.

        Its pid file says which; an engine that was only just started has not written it yet, and is looked for.
        """
        with contextlib.suppress(OSError, ValueError):
            pid = int(berth.pid_file.read_text()[:16])
            if os.fsencode(berth.config) in _command(pid):
                return cls(pid)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                command = _command(int(entry.name))
                if os.fsencode(berth.config) in command and os.fsencode(berth.pid_file) in command:
                    return cls(int(entry.name))
        return None

    def serves(self, berth: Berth) -> bool:
        """Whether it has just this berth's queues: another number of them may have been set since it was started."""
        wanted = [os.fsencode(word) for word in _queues(berth)]
        try:
            command = _command(self.pid)
        except OSError:
            return False
        return command[command.index(b"-q") :][: len(wanted) + 1] == [*wanted, b""] if b"-q" in command else False

    def alive(self, wait_s: float = 0.0) -> bool:
        """False once it has ended; waits up to `wait_s` for that."""
        if self._pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        ended = bool(poll.poll(wait_s * 1000))
        if ended and self._child is not None:
            self._child.wait()
        return not ended

    def stop(self) -> None:
        """Ask it to end, insist after a few seconds (a stopped process does not hear the first)."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive():
                break
            signal.pidfd_send_signal(self._pidfd, number)
            self.alive(STOP_S)
        self.close()

    def kill(self) -> None:
        """End it at once."""
        if self.alive():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self.alive(STOP_S)
        self.close()

    def close(self) -> None:
        """Give up the handle."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _queues(berth: Berth) -> list[str]:
    return [word for number in berth.queues for word in ("-q", str(number))]


def _command(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
