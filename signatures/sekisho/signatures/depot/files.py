"""Reads files that others put somewhere: plain ones, whole, under a cap."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sekisho.appliance.core.errors import RejectedInput


def read(path: Path, cap: int) -> bytes:
    """The content, at most `cap` bytes.

    Raises:
        RejectedInput: not there, not a plain file, or larger.

    """
    return read_with_mode(path, cap)[0]


def read_with_mode(path: Path, cap: int) -> tuple[bytes, int]:
    """`read`, and the mode of the very file that was read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would keep us waiting
        with os.fdopen(fd, "rb") as source:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise RejectedInput(f"{path} is not a plain file.")
            data = source.read(cap + 1)
    except OSError as err:
        raise RejectedInput(f"Cannot read {path}: {err.strerror}.") from err
    if len(data) > cap:
        raise RejectedInput(f"{path} is larger than the {cap} bytes that are allowed.")
    return data, mode
