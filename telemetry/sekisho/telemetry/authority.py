"""Shows the box's other daemons whose certificates to believe: after enrolment that lies beside the key, hidden."""

from __future__ import annotations

from pathlib import Path

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic
from sekisho.telemetry.enrolment.files import FILE_CAP_BYTES


def show(ca: Path, shown: Path) -> None:
    """Make `shown`, readable by the group, say what `ca` says; nothing is written when it does, or `ca` is not there.

    Raises:
        DeviceFault: it cannot be written.

    """
    try:
        with ca.open("rb") as source:
            data = source.read(FILE_CAP_BYTES)
    except OSError:
        return
    try:
        if shown.is_file() and shown.read_bytes() == data:
            return
        shown.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(shown, data, 0o640)
    except OSError as err:
        raise DeviceFault(f"Cannot write {shown}: {err.strerror}.") from err
