"""The tmpfs into which the engine extracts files, bounded so that hostile downloads cannot eat the memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

TMPFS_OPTIONS: Final = "size={megabytes}m,mode=0750"
MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8


def mount(path: Path, megabytes: int) -> str:
    """Make `path` a tmpfs of that size; returns a warning when it had to stay a plain directory.

    A mount made inside a private mount namespace (a sandboxed unit, `ip netns exec`) would be invisible to
    inspect, which reads the files: there the directory stays what the service manager or the lab made it.
    """
    path.mkdir(parents=True, exist_ok=True)
    if path.is_mount():
        return ""
    try:
        alone = Path("/proc/self/ns/mnt").readlink() != Path("/proc/1/ns/mnt").readlink()
    except OSError:
        alone = True
    if alone:
        return "" if _on_tmpfs(path) else f"{path} is not on a tmpfs: extracted files are written to disk."
    libc = ctypes.CDLL(None, use_errno=True)
    options = TMPFS_OPTIONS.format(megabytes=megabytes).encode()
    if libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", MS_NOSUID_NODEV_NOEXEC, options) == 0:
        return ""
    return f"{path} could not be made a tmpfs ({os.strerror(ctypes.get_errno())}): its size is not bounded."


def _on_tmpfs(path: Path) -> bool:
    target = path.resolve()
    best, kind = "", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, filesystem, *_ = line.split(" ")
        inside = mounted == "/" or target == Path(mounted) or Path(mounted) in target.parents
        if inside and len(mounted) >= len(best):
            best, kind = mounted, filesystem
    return kind in {"tmpfs", "ramfs"}
