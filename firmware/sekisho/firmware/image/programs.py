"""Our own programs in the root tree: the locked packages a box needs, and the wheel, in one virtual environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault

VENV: Final = "usr/lib/sekisho/venv"
"""Where the image's own programs are; `/opt/sekisho/venv` leads there until a release of programs alone is taken."""
PYTHON_2: Final = r"/olefile2\.py$"
"""A module no Python 3 compiles, that its package ships and never imports."""
_NAME = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==")


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(pyproject: str, lock: str) -> str:
    """The entries of the lock file that the product needs without its extras, hashes and markers kept."""
    wanted = set()
    for requirement in tomllib.loads(pyproject)["project"]["dependencies"]:
        wanted.add(canonical(re.split(r"[^A-Za-z0-9._-]", requirement)[0]))
    entries = _entries(lock)
    grown = True
    while grown:
        more = {name for name, (_, via) in entries.items() if via & wanted} - wanted
        wanted |= more
        grown = bool(more)
    return "".join(text for name, (text, _) in entries.items() if name in wanted)


def _entries(lock: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> its lines, and who asks for it (the lock's `# via`)."""
    found: dict[str, tuple[str, set[str]]] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if match := _NAME.match(line):
            name = canonical(match.group(1))
            found[name] = ("", set())
        if not name:
            continue
        text, via = found[name]
        if line.strip().startswith("#"):
            word = line.strip().removeprefix("#").strip().removeprefix("via").strip()
            if word:
                via.add(canonical(word.split(" ")[0]))
        found[name] = (text + line, via)
    return found


def wheels(project: Path, into: Path) -> None:
    """Fetch the locked wheels and build ours, for this machine's processor: part of ours is C (`inspect/gate.c`).

    Raises:
        DeviceFault: a package has no wheel for this machine, or ours cannot be built.

    """
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    listed = into / "needed.txt"
    listed.write_text(needed((project / "pyproject.toml").read_text(), (project / "requirements.lock").read_text()))
    fetch = [sys.executable, "-m", "pip", "download", "-qq", "--require-hashes", "--no-deps", "-d", str(into)]
    _run([*fetch, "-r", str(listed)])
    built = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "-w", str(into)]
    _run([*built, str(project)])


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
