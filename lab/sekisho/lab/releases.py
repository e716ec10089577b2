"""Releases as they lie on a box, made of this tree: a folder with its own copy of the product, and one link to the
folder that counts. Packages that are not the product's come from where this program has them.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Final

import sekisho.appliance
import sekisho.firmware
import sekisho.inspect
import sekisho.policy
import sekisho.portal_agent
import sekisho.signatures
import sekisho.telemetry

_ROOMS: Final = (
    sekisho.appliance, sekisho.firmware, sekisho.inspect, sekisho.policy, sekisho.portal_agent, sekisho.signatures,
    sekisho.telemetry,
)  # fmt: skip


def make(root: Path, name: str, *, engine: str | Path = "") -> Path:
    """A release called `name` (CTR-SHA) under `root`; with an engine of its own: a shell program's text, or a binary
    that is copied.
    """
    release = root / name
    site = release / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for room in _ROOMS:
        source = Path(room.__path__[0])
        shutil.copytree(source, site / "sekisho" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (site / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (release / "venv" / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    python = release / "venv" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(base)
    if engine:
        program = release / "engine" / "bin" / "suricata"
        program.parent.mkdir(parents=True)
        if isinstance(engine, Path):
            shutil.copy(engine, program)
        else:
            program.write_text(engine)
        program.chmod(0o755)
    return release


def module(release: Path, dotted: str) -> Path:
    """The file of one of the product's modules in that release, to be made another."""
    (site,) = (release / "venv" / "lib").glob("python*/site-packages")
    return site.joinpath(*dotted.split(".")).with_suffix(".py")
