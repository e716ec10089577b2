"""The wheels of a bundle: our own from a commit, and the locked ones as the machine's own configuration gives them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.firmware.build.lock import PROCESSOR, Pin, canonical, needed
from sekisho.firmware.content import Machine

GLIBC: Final = 36
"""glibc 2.36, Debian 12's: wheels made for a later one would not load."""
_SHORTEST_GLIBC: Final = 17
_TIMEOUT_S: Final = 1800
_CROSS: Final = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
_PACKAGE: Final = {"amd64": "gcc-x86-64-linux-gnu", "arm64": "gcc-aarch64-linux-gnu"}
_LINKED: Final = {"libmnl": "libmnl.so.0", "libnetfilter_queue": "libnetfilter_queue.so.1"}
"""Of which the gate needs the name alone to be built for another processor: the box has them."""


class Commit(msgspec.Struct, frozen=True):
    """The source as it is in the repository; what was changed since in the work tree is no part of it."""

    directory: Path
    id: str
    epoch: int
    """Unix seconds: when it was made, and so how old every file built from it says it is."""


def export(source: Path, into: Path, commit: str = "HEAD") -> Commit:
    """Write the files of a commit to `into`.

    Raises:
        RejectedInput: `source` is no git repository, or has no such commit.

    """
    git = ["git", "-C", str(source)]
    told = _run([*git, "log", "-1", "--format=%H %ct", commit, "--"], f"{source} is no git repository with {commit}")
    name, epoch = told.split()
    into.mkdir(parents=True)
    packed = into.with_name(f"{into.name}.tar")
    _run([*git, "archive", "--format=tar", f"--output={packed.absolute()}", name], f"{source} cannot be read")
    _run(["tar", "-xf", str(packed), "-C", str(into)], f"{source} cannot be read")
    packed.unlink()
    return Commit(into, name, int(epoch))


def own(commit: Commit, machine: Machine, into: Path) -> Path:
    """Our wheel for `machine`, with the gate compiled for it.

    Raises:
        DeviceFault: the compiler for that machine is not installed, or the build fails; the message says what to do.

    """
    processor = PROCESSOR[machine]
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C.UTF-8",
        "SOURCE_DATE_EPOCH": str(commit.epoch),
        "_PYTHON_HOST_PLATFORM": f"linux-{processor}",
    }
    if processor != os.uname().machine:
        compiler = _CROSS[machine]
        if shutil.which(compiler) is None:
            raise DeviceFault(
                f"{compiler} is not installed, which compiles the gate for {machine}.",
                f"Install the package {_PACKAGE[machine]} (and libc6-dev-{machine}-cross), or build on {machine}.",
            )
        env |= {"CC": compiler, "LDFLAGS": f"-L{_stand_ins(compiler, into.with_name('linked'))}"}
    argv = [sys.executable, "-I", "-m", "hatchling", "build", "-t", "wheel", "-d", str(into.absolute())]
    into.mkdir(parents=True, exist_ok=True)
    for left in commit.directory.glob("inspect/sekisho/inspect/_gate.so"):
        left.unlink()
    try:
        _run(argv, "Our wheel cannot be built", cwd=commit.directory, env=env)
    except RejectedInput as err:
        raise DeviceFault(str(err)) from err
    [made] = into.glob("sekisho-*.whl")
    return made


def whole(commit: Commit, machine: Machine, python: str, into: Path, cache: Path) -> list[Path]:
    """Every wheel a box needs: ours, made in `into`, and the locked ones, kept in `cache`.

    Raises:
        As `own`, `lock.needed` and `gather`.

    """
    locked, product = ((commit.directory / name).read_text() for name in ("requirements.lock", "pyproject.toml"))
    ours = own(commit, machine, into)
    return [ours, *gather(needed(locked, product, machine, python), machine, python, cache)]


def gather(pins: Sequence[Pin], machine: Machine, python: str, cache: Path) -> list[Path]:
    """A wheel for each pin, each with a locked hash; what is in `cache` already is not fetched again.

    Where they come from is this machine's configuration of pip. Nothing is ever built here.

    Raises:
        PeerError: there is no wheel for a package, or none can be had.

    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in pins if _held(cache, pin) is None]
    if missing:
        asked = cache / "wanted.txt"
        asked.write_text("".join(requirement(pin.name, pin.version, sorted(pin.hashes)) for pin in missing))
        platforms = [f"manylinux_2_{minor}" for minor in range(_SHORTEST_GLIBC, GLIBC + 1)] + ["manylinux2014", "linux"]
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        argv += ["--require-hashes", "--implementation", "cp", "--python-version", python, "--dest", str(cache)]
        for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
            argv += ["--abi", abi]
        for platform in platforms:
            argv += ["--platform", f"{platform}_{PROCESSOR[machine]}"]
        try:
            _run([*argv, "--platform", "any", "-r", str(asked)], f"Not every wheel for {machine} can be had")
        except RejectedInput as err:
            raise PeerError(str(err)) from err
        finally:
            asked.unlink()
    found = [_held(cache, pin) for pin in pins]
    if absent := [pin.name for pin, path in zip(pins, found, strict=True) if path is None]:
        raise PeerError(f"No wheel with a locked hash was found of {', '.join(absent)}.")
    return [path for path in found if path is not None]


def requirement(name: str, version: str, hashes: Sequence[str]) -> str:
    """A line as pip reads it."""
    return " ".join([f"{name}=={version}", *(f"--hash=sha256:{digest}" for digest in hashes)]) + "\n"


def named(wheel: Path) -> tuple[str, str]:
    """Name and version that a wheel's file name tells (PEP 427)."""
    name, version = wheel.name.split("-")[:2]
    return canonical(name), version


def digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _held(cache: Path, pin: Pin) -> Path | None:
    of_it = (path for path in sorted(cache.glob("*.whl")) if named(path)[0] == pin.name)
    return next((path for path in of_it if digest(path) in pin.hashes), None)


def _stand_ins(compiler: str, folder: Path) -> Path:
    """Empty libraries with the names that the gate is to ask for on the box."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, called in _LINKED.items():
        argv = [compiler, "-shared", "-nostdlib", f"-Wl,-soname,{called}", "-o", str(folder / f"{name}.so")]
        _run([*argv, "-x", "c", "/dev/null"], f"{compiler} does not work")
    return folder


def _run(argv: Sequence[str], wrong: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceFault(f"{wrong}: {err}.") from err
    if done.returncode:
        raise RejectedInput(f"{wrong}: {done.stderr.strip()[-500:]}.")
    return done.stdout
