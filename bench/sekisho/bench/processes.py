"""Memory and processor time of the lab's processes, from /proc."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from sekisho.lab import remains
from sekisho.lab.lab import Lab

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
ROOMS = ("appliance", "inspect", "telemetry", "portal_agent", "center")


def name_of(pid: int) -> str:
    """The room of a Python process of ours, otherwise the program's name; empty when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    modules = [word.split(".")[1] for word in words if word.startswith("sekisho.") and word.count(".") >= 1]
    return modules[0] if modules else Path(words[0]).name.split(":")[0].lower()


def cpu_seconds(lab: Lab) -> Counter[str]:
    """Processor time so far, by name of process. Work the kernel does for packets counts for whoever it interrupts."""
    found: Counter[str] = Counter()
    for pid in remains.processes(lab.lay):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[name_of(pid)] += (int(fields[11]) + int(fields[12])) * _TICK_S  # type: ignore[assignment]
    return found


def kernel_seconds() -> float:
    """Time the whole machine has spent in interrupts, hard and soft: the bridge's own work is in there."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[6]) + int(fields[7])) * _TICK_S


def rss_mb(lab: Lab) -> dict[str, float]:
    """Resident megabytes by name of process, children included; shared pages count in each."""
    found: dict[str, float] = {}
    for pid in remains.processes(lab.lay):
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        name = name_of(pid)
        found[name] = found.get(name, 0.0) + pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return found
