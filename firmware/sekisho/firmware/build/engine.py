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
    for package in apt.fetch(packages):
        _run(["dpkg-deb", "--extract", str(package), str(folder)], f"{package} cannot be unpacked")
    found = {"bin/suricata": folder / "usr/bin/suricata"}
    places = [folder / "usr/lib" / _TRIPLET[machine], folder / "lib" / _TRIPLET[machine]]
    wanted = _asks_for(found["bin/suricata"])
    while wanted:
        soname = wanted.pop()
        path = next((place / soname for place in places if (place / soname).exists()), None)
        if path is not None and f"lib/{soname}" not in found:  # else it is of the base
            found[f"lib/{soname}"] = path.resolve()
            wanted |= _asks_for(path)
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
        offered = [line.split("|") for line in told.splitlines() if line.count("|") == 2]
        fitting = [(version.strip(), where.split()) for _, version, where in offered if _at_least(version.strip())]
        if not fitting:
            raise PeerError(f"apt has no Suricata {_LEAST} for {self._machine}.", "Add backports to its sources.")
        version, where = fitting[0]
        suite = where[1].split("/")[0]  # of one suite: its Suricata may need that suite's libraries
        told = _run(
            ["apt-get", *self._options, "-s", "-t", suite, "install", f"{PACKAGE}={version}"],
            "Suricata's libraries cannot be had",
        )
        all_of_it = [line.split()[1:3] for line in told.splitlines() if line.startswith("Inst ")]
        packages = [f"{name.split(':')[0]}={exact.strip('([')}" for name, exact in all_of_it]
        return version, self._beyond_base(packages)

    def fetch(self, packages: list[str]) -> list[Path]:
        """Their .debs; apt compares each with the signed lists."""
        got = self._debs / "got"
        patterns = [
            f"{name}_{version.replace(':', '%3a')}_*.deb" for name, version in (_split(one) for one in packages)
        ]
        absent = [one for one, pattern in zip(packages, patterns, strict=True) if not list(got.glob(pattern))]
        if absent:
            _run(["apt-get", *self._options, "-qq", "download", *absent], "A package cannot be had", cwd=got)
        return [next(got.glob(pattern)) for pattern in patterns]

    def _beyond_base(self, packages: list[str]) -> list[str]:
        told = _run(["apt-cache", *self._options, "show", *packages], "apt does not know what it would install")
        base = set()
        for stanza in told.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Priority") in _BASE or fields.get("Section") in ("python", "perl", "doc"):
                base.add(fields.get("Package", ""))
        return [one for one in packages if _split(one)[0] not in base and _split(one)[0] not in _NEVER]


def _split(package: str) -> tuple[str, str]:
    name, _, version = package.partition("=")
    return name, version


def _at_least(version: str) -> bool:
    upstream = version.partition(":")[2] or version
    return subprocess.run(["dpkg", "--compare-versions", upstream, "ge", _LEAST], check=False).returncode == 0


def _asks_for(path: Path) -> set[str]:
    """Libraries that its loader looks for, by soname."""
    told = _run(["objdump", "-p", str(path)], f"{path} is no program")
    return {line.split()[1] for line in told.splitlines() if line.strip().startswith("NEEDED")}


def _run(argv: list[str], wrong: str, cwd: Path | None = None) -> str:
    if shutil.which(argv[0]) is None:
        raise DeviceFault(f"{argv[0]} is not installed here.", "Build on Debian 12 or 13.")
    env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode:
        raise PeerError(f"{wrong}: {done.stderr.strip()[-500:]}.")
    return done.stdout
