"""Finds and ends every process of a lab, wherever it went: in its namespaces or out of them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault
from sekisho.lab.layout import ENV_MARK, PLACES, Layout
from sekisho.lab.net import existing


def processes(lay: Layout) -> set[int]:
    """Ids of all processes that live in the lab's namespaces or carry its mark, except our own."""
    found: set[int] = set()
    for name in {lay.netns(place) for place in PLACES} & existing():
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, timeout=10, check=False)
        found.update(int(word) for word in done.stdout.split())
    mark = f"{ENV_MARK}={lay.name}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and mark in _environment(entry):
            found.add(int(entry.name))
    return found - {os.getpid()}


def end(pids: set[int], number: signal.Signals, timeout_s: float) -> None:
    """Send a signal and wait until every one of them is gone, or the time is over."""
    deadline = time.monotonic() + timeout_s
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(handle, number)
            gone = select.poll()  # select(2) knows no descriptor above 1023
            gone.register(handle, select.POLLIN)
            gone.poll(max(0.0, deadline - time.monotonic()) * 1000)
        except ProcessLookupError:
            continue
        finally:
            os.close(handle)


def end_all(lay: Layout) -> None:
    """Kill what is left of a lab.

    Raises:
        DeviceFault: some process does not die (it hangs in the kernel).

    """
    for _ in range(20):
        left = processes(lay)
        if not left:
            return
        end(left, signal.SIGKILL, 2.0)
    raise DeviceFault(f"Processes {sorted(processes(lay))} of lab {lay.name} do not end.")


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
