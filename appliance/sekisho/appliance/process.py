"""One Suricata process: spawned by us, or adopted from a predecessor of ours that was killed.

The engine must outlive the daemon that started it (traffic is inspected while the daemon restarts), so it
has its own session, and is found again through its pid file and command line.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Final, Self

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
    def spawn(cls, config: Path, pid_file: Path, queues: int, log_file: Path) -> Self:
        """Start Suricata on its queues.

        Raises:
            DeviceFault: it cannot be executed.

        """
        argv = ["suricata", "-c", str(config), "--runmode", "workers", "--pidfile", str(pid_file)]
        for number in range(queues):
            argv += ["-q", str(number)]
        try:
            with log_file.open("ab") as out:
                if out.tell() > MAX_LOG_BYTES:
                    out.truncate(0)
                child = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/"
                )
        except OSError as err:
            raise DeviceFault(f"The inspection engine cannot be started: {err}.", "Install Suricata.") from err
        return cls(child.pid, child)

    @classmethod
    def try_adopt(cls, config: Path, pid_file: Path) -> Self | None:
        """The engine a killed predecessor left running on this configuration file, if there is one."""
        try:
            pid = int(pid_file.read_text()[:16])
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(config) not in command:
                return None
            found = cls(pid)
        except (OSError, ValueError):
            return None
        return found

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
