"""What the box's programs take of memory, and the most they ever took, from the kernel's own accounts."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final, Self

from sekisho.lab.lab import Lab

EVERY_S: Final = 0.1


def box_pss_mb(lab: Lab) -> float:
    """Megabytes of all programs in the box's namespace and their children; a page shared by n counts 1/n in each."""
    return sum(_pss_kb(pid) for pid in _box(lab)) / 1e3


class Watch:
    """Looks ten times a second inside a `with` block. `peak_mb` is the highest sum seen, `looks` their number."""

    def __init__(self, lab: Lab) -> None:
        self.peak_mb = 0.0
        self.looks = 0
        self._lab = lab
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(EVERY_S):
            self.peak_mb = max(self.peak_mb, box_pss_mb(self._lab))
            self.looks += 1


def at_rest_mb(lab: Lab, looks: int = 20) -> float:
    """The median of some looks, while nothing changes."""
    found = []
    for _ in range(looks):
        found.append(box_pss_mb(lab))
        time.sleep(EVERY_S)
    return sorted(found)[looks // 2]


def _box(lab: Lab) -> set[int]:
    """In the namespace, or below one that is: a confined child may have a namespace of its own."""
    inside = Path("/run/netns", lab.lay.netns("box")).stat().st_ino
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        try:
            parents[pid] = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
            if Path(entry.path, "ns/net").stat().st_ino == inside:
                found.add(pid)
        except OSError:
            continue
    grew = True
    while grew:
        below = {pid for pid, parent in parents.items() if parent in found} - found
        found |= below
        grew = bool(below)
    return found


def _pss_kb(pid: int) -> int:
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open() as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return 0
