"""The engine of a bundle: Suricata and the libraries it needs that Debian's base has not, from the machine's own apt.

Lists and packages are apt's, in a place of their own and for the box's architecture: it asks the sources this machine
has, believes the keys this machine believes, and changes nothing of the machine. What is taken is unpacked, not
installed; a library keeps the name it is asked for by (its soname), so that no links are needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from sekisho.appliance.core.errors import DeviceFault, PeerError
from sekisho.firmware.content import Machine

PACKAGE: Final = "suricata"
_LEAST: Final = "7.0.10"
_BASE: Final = ("required", "important", "standard")
"""Packages of these priorities are in every Debian."""
_NEVER: Final = ("libc6", "libgcc-s1", "gcc-12-base", "gcc-14-base")
"""Of the box and its own loader; another beside them would break the engine."""
_TRIPLET: Final[dict[Machine, str]] = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_TIMEOUT_S: Final = 1800


def gather(machine: Machine, folder: Path, cache: Path) -> tuple[str, dict[str, Path]]:
    """Suricata's version, and what belongs below `engine/` by its name: bin/suricata, lib/SONAME, etc/....

    Raises:
        PeerError: apt has no fitting Suricata for that machine, or cannot fetch it.
        DeviceFault: apt or dpkg-deb is missing.

    """
    apt = _Apt(machine, cache)
    apt.update()
    folder.mkdir(parents=True)
    version, packages = apt.closure()
    for package in packages:
        _run(["dpkg-deb", "--extract", str(apt.fetch(package)), str(folder)], f"{package} cannot be unpacked")
    found = {"bin/suricata": folder / "usr/bin/suricata"}
    for libraries in (folder / "usr/lib" / _TRIPLET[machine], folder / "lib" / _TRIPLET[machine]):
        for path in sorted(libraries.glob("*.so.*")) if libraries.is_dir() else []:
            soname = _soname(path)
            if soname and path.name == soname:
                found[f"lib/{soname}"] = path.resolve()
    for name in ("classification.config", "reference.config", "threshold.config"):
        given = folder / "etc/suricata" / name
        if given.is_file():
            found[f"etc/{name}"] = given
    return version, found


class _Apt:
    """apt for another architecture, in a directory of its own."""

    def __init__(self, machine: Machine, cache: Path) -> None:
        self._machine = machine
        self._debs = cache.absolute()
        state = self._debs / "state"
        for path in (state / "lists" / "partial", self._debs / "archives" / "partial", self._debs / "got"):
            path.mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        self._options = [
            "-o", f"APT::Architecture={machine}", "-o", f"APT::Architectures::={machine}",
            "-o", f"Dir::State={state}", "-o", f"Dir::State::status={state / 'status'}",
            "-o", f"Dir::Cache={self._debs}", "-o", "APT::Install-Recommends=false",
            "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
        ]  # fmt: skip

    def update(self) -> None:
        _run(["apt-get", *self._options, "-qq", "update"], f"apt's lists for {self._machine} cannot be had")

    def closure(self) -> tuple[str, list[str]]:
        """Suricata's version, and the packages to take, with their versions."""
        told = _run(["apt-cache", *self._options, "madison", PACKAGE], "apt does not know Suricata")
        versions = [fields[1].strip() for line in told.splitlines() if len(fields := line.split("|")) == 3]
        fitting = [version for version in versions if _at_least(version)]
        if not fitting:
            raise PeerError(f"apt has no Suricata {_LEAST} for {self._machine}.", "Add backports to its sources.")
        wanted = f"{PACKAGE}={fitting[0]}"
        told = _run(["apt-get", *self._options, "-s", "install", wanted], "Suricata's libraries cannot be had")
        all_of_it = [line.split()[1:3] for line in told.splitlines() if line.startswith("Inst ")]
        packages = [f"{name.split(':')[0]}={version.strip('([')}" for name, version in all_of_it]
        return fitting[0], [package for package in packages if not self._in_base(package)]

    def fetch(self, package: str) -> Path:
        """Its .deb; apt compares it with the signed lists."""
        name, _, version = package.partition("=")
        got = self._debs / "got"
        pattern = f"{name}_{version.replace(':', '%3a')}_*.deb"
        if not list(got.glob(pattern)):
            _run(["apt-get", *self._options, "-qq", "download", package], f"{package} cannot be had", cwd=got)
        return next(got.glob(pattern))

    def _in_base(self, package: str) -> bool:
        if package.partition("=")[0] in _NEVER:
            return True
        told = _run(["apt-cache", *self._options, "show", package], f"apt does not know {package}")
        fields = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line and not line.startswith(" "))
        return fields.get("Priority") in _BASE or fields.get("Section") in ("python", "perl", "doc")


def _at_least(version: str) -> bool:
    upstream = version.partition(":")[2] or version
    return subprocess.run(["dpkg", "--compare-versions", upstream, "ge", _LEAST], check=False).returncode == 0


def _soname(path: Path) -> str:
    told = _run(["objdump", "-p", str(path)], f"{path} is no library")
    return next((line.split()[1] for line in told.splitlines() if line.strip().startswith("SONAME")), "")


def _run(argv: list[str], wrong: str, cwd: Path | None = None) -> str:
    if shutil.which(argv[0]) is None:
        raise DeviceFault(f"{argv[0]} is not installed here.", "Build on Debian 12 or 13.")
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise PeerError(f"{wrong}: {done.stderr.strip()[-500:]}.")
    return done.stdout
