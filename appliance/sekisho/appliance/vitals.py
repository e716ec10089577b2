"""The box's vital signs for the monitoring centre, every ten minutes: temperature, disk, memory, uptime, version."""

from __future__ import annotations

import importlib.metadata
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sekisho.appliance.core import utc
from sekisho.telemetry.events import Event, Vitals

EVERY_S: Final = 600.0
_HOT_CAP: Final = 200.0
"""Degrees Celsius; what says more is no thermometer."""


def run(stop: threading.Event, state: Path, report: Callable[[Event], None]) -> None:
    """Measure now and every ten minutes until `stop`."""
    while True:
        report(measure(state))
        if stop.wait(EVERY_S):
            return


def measure(state: Path, sensors: Path = Path("/sys/class/thermal"), proc: Path = Path("/proc")) -> Vitals:
    """What can be measured; the rest is 0. `state` is a folder on the disk in question."""
    free, size = _disk(state)
    memory = _memory(proc / "meminfo")
    uptime = _text(proc / "uptime").partition(" ")[0]
    return Vitals(
        at=utc.now(),
        temperature=_temperature(sensors),
        disk_free=free,
        disk_size=size,
        memory_free=memory.get("MemAvailable", 0),
        memory_size=memory.get("MemTotal", 0),
        uptime=int(float(uptime)) if uptime.replace(".", "", 1).isdigit() else 0,
        version=_version(),
    )


def _temperature(sensors: Path) -> float:
    """Of the hottest zone; the kernel tells thousandths of a degree (Documentation/driver-api/thermal/sysfs-api)."""
    texts = (_text(zone / "temp").strip() for zone in sensors.glob("thermal_zone*"))
    degrees = (int(text) / 1000 for text in texts if text.isdigit())
    return round(max((one for one in degrees if one < _HOT_CAP), default=0.0), 1)


def _disk(folder: Path) -> tuple[int, int]:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0, 0
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _memory(path: Path) -> dict[str, int]:
    """Bytes by name; the file counts in kB, which are KiB (proc_meminfo(5))."""
    lines = (line.split() for line in _text(path).splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in lines if len(parts) == 3 and parts[1].isdigit()}


def _text(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as source:
            return source.read(1 << 16)
    except OSError:
        return ""


def _version() -> str:
    try:
        return importlib.metadata.version("sekisho")
    except importlib.metadata.PackageNotFoundError:
        return ""
