"""Which of the locked packages a box needs: what the product depends on without its extras, and what those need.

The lock says of every package on whose account it is there ("via"), so nothing is resolved anew here: a bundle holds
exactly what was tested.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.firmware.content import Machine

PROCESSOR: Final[dict[Machine, str]] = {"amd64": "x86_64", "arm64": "aarch64"}
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_VIA: Final = re.compile(r"^\s+#\s+(?:via\s+)?([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?:\s+\(.*\))?$")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


class Pin(msgspec.Struct, frozen=True):
    """One package of the lock."""

    name: str
    version: str
    marker: str
    """For which machines and Pythons (PEP 508); empty: for all."""
    hashes: frozenset[str]
    via: frozenset[str]


def needed(lock: str, project: str, machine: Machine, python: str) -> list[Pin]:
    """What a box with this processor and Python needs, by name.

    Raises:
        RejectedInput: a dependency of `project` (the text of pyproject.toml) is not in the lock.
        DeviceFault: what judges markers is not installed.

    """
    pins = {pin.name: pin for pin in read(lock) if _fits(pin.marker, machine, python)}
    wanted = {
        canonical(found[0])
        for line in tomllib.loads(project)["project"]["dependencies"]
        if (found := _NAME.match(line)) and _fits(line.partition(";")[2], machine, python)
    }
    if missing := wanted - pins.keys():
        raise RejectedInput(f"Not in the lock: {', '.join(sorted(missing))}.", "Run make lock, then the tests.")
    while more := {name for name, pin in pins.items() if name not in wanted and pin.via & wanted}:
        wanted |= more
    return [pins[name] for name in sorted(wanted)]


def read(lock: str) -> list[Pin]:
    """Every package of the lock."""
    blocks: list[list[str]] = []
    for line in lock.splitlines():
        if _PIN.match(line):
            blocks.append([line])
        elif blocks:
            blocks[-1].append(line)
    found = []
    for block in blocks:
        pin = _PIN.match(block[0])
        if pin is None:
            continue
        hashes = frozenset(_HASH.findall("\n".join(block)))
        via = frozenset(canonical(match[1]) for line in block[1:] if (match := _VIA.match(line)))
        found.append(Pin(canonical(pin[1]), pin[2], pin[3] or "", hashes, via))
    return found


def canonical(name: str) -> str:
    """A package's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _fits(marker: str, machine: Machine, python: str) -> bool:
    if not marker.strip():
        return True
    try:
        from packaging.markers import Marker
    except ImportError as err:
        raise DeviceFault("Python's packaging is not installed here.", "Build in the development setup.") from err
    environment: dict[str, Any] = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": PROCESSOR[machine],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    return Marker(marker.strip()).evaluate(environment)
