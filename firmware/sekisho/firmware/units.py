"""Makes a Debian machine a box: its users, units, folders, settings, and the link to the programs it starts with.

The files come with the programs (`lib/` of their environment). A system image has them in its own tree and does the
same when it is built (`image.build`). May be repeated: settings and a link that are there stay.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from sekisho.appliance.core import release
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.appliance.core.settings import DEFAULTS

KINDS: Final = ("systemd/system", "sysusers.d", "tmpfiles.d", "sysctl.d")
FOLDER: Final = Path("usr/local/lib")
"""Where systemd looks for all of them besides Debian's own packages (systemd.unit(5), sysusers.d(5))."""

ENGINE: Final = "suricata.service"
"""Debian's own, which knows nothing of our bridge and would be a second engine beside ours."""


def lay(source: Path, into: Path) -> None:
    """The box's part of `source`, which holds `KINDS`, below `into`.

    Raises:
        DeviceFault: they are not there, or the disk refuses.

    """
    try:
        for kind in KINDS:
            (into / kind).mkdir(parents=True, exist_ok=True)
            for path in sorted((source / kind).iterdir()):
                if kind != "systemd/system":
                    (into / kind / path.name).write_text(of_box(path.read_text()))
                elif "sekisho-" in path.name and not path.name.startswith("sekisho-center"):
                    shutil.copyfile(path, into / kind / path.name)
    except OSError as err:
        raise DeviceFault(f"The units cannot be put into {into}: {err.strerror} ({err.filename}).") from err


def of_box(text: str) -> str:
    """The lines of a sysusers or tmpfiles file that a box needs: the centre's users and folders stay out."""
    return "".join(line for line in text.splitlines(keepends=True) if "sekisho-center" not in line)


def started(units: Path) -> list[str]:
    """Our units that say by themselves when they are to be started."""
    return [path.name for path in sorted(units.glob("sekisho-*")) if "\n[Install]\n" in path.read_text()]


def set_up(box: str, root: Path = Path("/")) -> list[str]:
    """Do it, below `root`, from the programs that run this; what is started with the machine from now on.

    Raises:
        RejectedInput: that is no name of a box.
        DeviceFault: a step failed; it may be repeated.

    """
    if not is_name(box):
        raise RejectedInput(f"{box!r} is no name for a box.")
    if release.name():
        raise RejectedInput("A release is no system's own programs: they would be removed with it.")
    own = root / FOLDER
    lay(Path(sys.prefix) / "lib", own)
    _run("systemd-sysusers", f"--root={root}")
    settings, link = root / "etc/sekisho/box.toml", root / "opt/sekisho/venv"
    try:
        for folder in (settings.parent, link.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text(DEFAULTS.replace("{box}", box))
        if not link.is_symlink():
            link.symlink_to(sys.prefix)
    except OSError as err:
        raise DeviceFault(f"{err.filename}: {err.strerror}.") from err
    _run("systemd-tmpfiles", f"--root={root}", "--create", "sekisho.conf")
    units = started(own / "systemd/system")
    _run("systemctl", f"--root={root}", "--quiet", "enable", *units)
    _run("systemctl", f"--root={root}", "--quiet", "mask", ENGINE)
    return units


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise DeviceFault(f"{argv[0]}: {done.stderr.strip()[-500:]}")
