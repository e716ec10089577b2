"""Where telemetry leaves what came by the broker, one file per job's name, and the jobs daemon takes it from.

Nothing in it is believed: whoever could write here could as well have been the broker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sekisho.appliance.core.fsio import open_plain
from sekisho.appliance.core.jobs import ENVELOPE_CAP
from sekisho.telemetry.jobs import INBOX_CAP, is_name


def waiting(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of what lies there; what is no plain file, or too large, has no content."""
    try:
        names = sorted(path.name for path in folder.iterdir() if is_name(path.name))[: 2 * INBOX_CAP]
    except OSError:
        return
    for name in names:
        data = b""
        with contextlib.suppress(OSError), open_plain(folder / name, ENVELOPE_CAP) as source:
            data = source.read()
        yield name, data


def done(folder: Path, name: str) -> None:
    """Take it away; it was judged, and what became of it is on the disk."""
    with contextlib.suppress(OSError):
        (folder / name).unlink()
