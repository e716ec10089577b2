"""The two places where an engine can run beside another: its queues, its files, and which binary it is.

One works, the other is empty but while an engine is renewed (renewal.py). Each has a pid file, a configuration, a
command socket, a log and a file store's directory of its own: Suricata names the files it receives by a counter that
begins at one in every process, so that two engines in one directory would write into each other's. What is finished
lands in the one store all the same, through links. `command.sock` leads to the engine that works.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sekisho.appliance import suricata
from sekisho.appliance.core import release
from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.settings import Settings

SHELVES: Final = tuple(f"{number:02x}" for number in range(256))
"""What Suricata sorts finished files into, by the first two digits of their hash."""


@dataclass(frozen=True)
class Berth:
    """One place."""

    name: Literal["a", "b"]
    first: int
    """Number of its first queue; the others follow."""
    count: int
    config: Path
    pid_file: Path
    socket: Path
    log: Path
    filestore: Path

    @property
    def queues(self) -> range:
        return range(self.first, self.first + self.count)

    def clear(self) -> None:
        """Make it ready for another engine: Suricata will not start over a stale pid file, nor bind a stale socket.

        Raises:
            DeviceFault: its directories cannot be made.

        """
        self.pid_file.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        if self.name == "b":
            try:
                self.filestore.mkdir(mode=0o770, exist_ok=True)
                for shelf in SHELVES:
                    (self.filestore.parent / shelf).mkdir(mode=0o770, exist_ok=True)
                    with suppress(FileExistsError):
                        (self.filestore / shelf).symlink_to(Path("..") / shelf)
            except OSError as err:
                raise DeviceFault(f"{self.filestore} cannot be made: {err.strerror}.") from err

    def lead_commands(self, settings: Settings) -> None:
        """Have `settings.control_socket` lead to the engine here.

        Raises:
            DeviceFault: the link cannot be written.

        """
        link, fresh = settings.control_socket, settings.control_socket.with_name(".command.tmp")
        try:
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.socket.name)
            fresh.replace(link)
        except OSError as err:
            raise DeviceFault(f"{link} cannot be written: {err.strerror}.") from err


def both(settings: Settings) -> tuple[Berth, Berth]:
    """The first is where an engine starts that has nothing beside it."""
    folder, count, store = settings.control_socket.parent, suricata.queue_count(settings), settings.filestore

    def made(name: Literal["a", "b"], first: int, suffix: str, files: Path) -> Berth:
        return Berth(
            name, first, count, folder / f"suricata{suffix}.yaml", folder / f"suricata{suffix}.pid",
            folder / f"{name}.sock", folder / f"engine{suffix}.log", files,
        )  # fmt: skip

    return made("a", 0, "", store), made("b", count, "-b", store / "b")


def led(settings: Settings) -> Literal["a", "b", ""]:
    """Where `settings.control_socket` leads; empty while nowhere."""
    with suppress(OSError):
        name = settings.control_socket.readlink().name
        return "a" if name == "a.sock" else "b" if name == "b.sock" else ""
    return ""


@dataclass(frozen=True)
class Binary:
    """The program that is to be the engine."""

    path: Path
    libraries: Path | None = None
    """Directory of the libraries that come with it."""

    @property
    def environment(self) -> dict[str, str] | None:
        """What it is started with; None: as this process."""
        return os.environ | {"LD_LIBRARY_PATH": str(self.libraries)} if self.libraries is not None else None

    def runs_as(self, pid: int) -> bool:
        """Whether that process is this program; a file that was replaced since is not."""
        try:
            return Path(f"/proc/{pid}/exe").readlink() == self.path.resolve()
        except OSError:
            return False


def at(path: Path) -> Binary:
    """The program there, with the libraries that came with it."""
    libraries = path.parent.parent / "lib"
    own = path.parent.parent.name == "engine" and libraries.is_dir()
    return Binary(path, libraries if own else None)


def program_of(pid: int) -> Binary | None:
    """What that process is; None when it ended, or its file is gone."""
    try:
        path = Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return None
    return at(path) if path.is_file() else None


def binary() -> Binary:
    """The engine of the release that this process was started from, where it has one; else the system's.

    Raises:
        DeviceFault: there is none.

    """
    own = release.home() / "engine" / "bin" / "suricata"
    if own.is_file():
        return at(own)
    found = shutil.which("suricata")
    if found is None:
        raise DeviceFault("There is no inspection engine.", "Install Suricata.")
    return Binary(Path(found))
