"""Keeps Suricata's own log files from filling the tmpfs they live on.

A log past `ROLL_BYTES` is renamed to `NAME.1`, which its reader removes once it has read it. While one waits, the
log grows on, up to `MAX_BYTES`; then the waiting one makes room, and the caller declares the loss.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

ROLL_BYTES: Final = 32 << 20
MAX_BYTES: Final = 128 << 20


def set_aside(path: Path, *, keep_unread: bool) -> Literal["", "rolled", "dropped"]:
    """Rename `path` when it is due; the caller then has Suricata reopen its files.

    `keep_unread` is False for a log that is only ever searched backwards: its older half may go at once.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return ""
    waiting = path.with_name(path.name + ".1")
    lost = keep_unread and waiting.exists()
    if size <= (MAX_BYTES if lost else ROLL_BYTES):
        return ""
    path.rename(waiting)
    return "dropped" if lost else "rolled"
