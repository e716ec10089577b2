"""Our own programs in the root tree: the locked packages a box needs, and the wheel, in one virtual environment."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.build import wheels
from sekisho.firmware.content import Machine

VENV: Final = "usr/lib/sekisho/venv"
"""Where the image's own programs are; `/opt/sekisho/venv` leads there until a release of programs alone is taken."""
PYTHON_2: Final = r"/olefile2\.py$"
"""A module no Python 3 compiles, that its package ships and never imports."""


def gather(project: Path, root: Path, machine: Machine, into: Path, cache: Path) -> None:
    """Lay the wheels that a release bundle of this commit would hold into `into`, for the Python of the tree `root`.

    Raises:
        SekishoError: a package has no wheel for this machine, or ours cannot be built; the message says which.

    """
    python = _python(root)
    shutil.rmtree(into, ignore_errors=True)
    exported = wheels.export(project, into / "source")
    for wheel in wheels.whole(exported, machine, python, into / "own", cache):
        shutil.copy(wheel, into)


def _python(root: Path) -> str:
    found = [path.name.removeprefix("python") for path in (root / "usr/bin").glob("python3.[0-9]*")]
    versions = [name for name in found if re.fullmatch(r"3\.[0-9]+", name)]
    if len(versions) != 1:
        raise DeviceFault(f"The tree holds {len(versions)} Pythons; one is needed.")
    return versions[0]


def install(root: Path, wheelhouse: Path) -> None:
    """Make the environment inside the tree with the tree's own Python, so that it fits its machine.

    Raises:
        DeviceFault: the tree's Python cannot be run, or a wheel does not fit.

    """
    inside = root / "tmp/wheels"
    shutil.copytree(wheelhouse, inside)
    pip = root / "tmp/pip"
    shutil.copytree(_pip(), pip / "pip")
    venv = f"/{VENV}"
    try:
        _run(["chroot", str(root), "python3", "-m", "venv", "--without-pip", venv])
        made = [f"/tmp/wheels/{path.name}" for path in sorted(inside.glob("*.whl"))]  # noqa: S108 (of the tree)
        python = ["chroot", str(root), "env", "PYTHONPATH=/tmp/pip", f"{venv}/bin/python"]
        _run([*python, "-m", "pip", "install", "-qq", "--no-index", "--no-deps", "--no-compile", *made])
    finally:
        shutil.rmtree(inside)
        shutil.rmtree(pip)


def compile_all(root: Path) -> None:
    """Compile every module once for all time, the distribution's as well.

    Packing gives every file one date, so byte code believed by its source's date would be thrown away and made anew at
    every start of every program, on a root nobody can write to. `unchecked-hash` (PEP 552) is believed as it is, and
    dm-verity holds both.

    Raises:
        DeviceFault: a module cannot be compiled.

    """
    python = ["chroot", str(root), f"/{VENV}/bin/python", "-m", "compileall", "-q", "-f", "-x", PYTHON_2]
    places = sorted(str(path.relative_to(root)) for path in (root / "usr/lib").glob("python3*"))
    _run([*python, "--invalidation-mode", "unchecked-hash", *(f"/{path}" for path in places), f"/{VENV}/lib"])


def _pip() -> Path:
    import pip

    return Path(pip.__file__).parent


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        raise DeviceFault(f"{command[0]}: {ended.stderr[-1500:]}")
