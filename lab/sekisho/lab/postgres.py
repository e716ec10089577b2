"""A PostgreSQL of its own from the distribution's package: on a Unix socket, thrown away at the end.

The server refuses to be root; it runs as the package's user then. Nothing of the machine's own clusters is touched.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sekisho.appliance.core.errors import DeviceFault

START_S: Final = 30.0
SETTINGS: Final = {"listen_addresses": "", "max_connections": "100", "fsync": "off"}
"""What tests want; a bench asks for fsync."""


def programs() -> Path | None:
    """Where the newest installed server's programs are; None when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """One cluster: made and started by `start`, stopped and deleted by `stop`."""

    def __init__(self, settings: Mapping[str, str] = SETTINGS) -> None:
        self._settings = settings
        self._programs = programs() or Path("/usr/bin")
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self.root = Path(tempfile.mkdtemp(prefix="sekisho-pg-"))

    def start(self) -> None:
        """Make the cluster if it is not there yet, and start it.

        Raises:
            DeviceFault: not installed, or it does not start.

        """
        if self._user:
            os.chown(self.root, self._user.pw_uid, self._user.pw_gid)
        data = self.root / "data"
        try:
            if not data.exists():
                self._run("initdb", "-D", str(data), "-U", "sekisho", "-A", "trust", "-E", "UTF8", "--no-sync")
            argv = [str(self._programs / "postgres"), "-D", str(data), "-k", str(self.root)]
            argv += [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
            with (self.root / "log").open("ab") as log:
                self._process = subprocess.Popen(argv, stdout=log, stderr=log, cwd="/", **self._as())
        except (OSError, subprocess.CalledProcessError) as err:
            raise DeviceFault(f"PostgreSQL cannot be set up: {err}.") from err
        until = time.monotonic() + START_S
        while subprocess.run([self._programs / "pg_isready", "-q", "-h", self.root]).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise DeviceFault(f"PostgreSQL did not start: {(self.root / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def database(self) -> str:
        """Make an empty database; returns its URL."""
        self._made += 1
        name = f"center_{self._made}"
        self._run("createdb", "-h", str(self.root), "-U", "sekisho", name)
        return f"postgresql://sekisho@/{name}?host={quote(str(self.root), safe='')}"

    def kill(self) -> None:
        """End it at once, without a checkpoint; `start` brings it back."""
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(START_S)
            self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def _run(self, program: str, *args: str) -> None:
        subprocess.run([self._programs / program, *args], check=True, capture_output=True, cwd="/", **self._as())

    def _as(self) -> dict[str, Any]:
        who = self._user
        return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": ()} if who else {}
