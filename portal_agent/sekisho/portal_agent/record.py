"""What was done on the page, by whom (which address), when: one JSON line each, kept on the box, shown to the owner.

Two files of at most `ROLL_BYTES`, so that it cannot fill the disk. Never holds a password or a code.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance.core import utc

ROLL_BYTES: Final = 512 << 10
SHOWN: Final = 50
_TAIL_BYTES: Final = 64 << 10

Deed = Literal[
    "signed_in", "signed_out", "wrong_password", "password_changed", "released", "downloaded", "enrol_asked",
    "restart_planned", "restart_cancelled", "restart_asked", "restart_agreed", "restart_denied",
    "support_allowed", "support_ended",
    "update_fetched", "update_chosen", "update_put_off",
]  # fmt: skip

log = logging.getLogger(__name__)


class Line(msgspec.Struct, frozen=True):
    """One deed."""

    at: str
    deed: Deed
    source: str = ""
    about: str = ""


class Record:
    """The file; safe to call from threads. A disk that refuses does not stop the deed, and the log says so."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def note(self, deed: Deed, source: str = "", about: str = "") -> None:
        """Write it down, durably."""
        data = msgspec.json.encode(Line(utc.now(), deed, source[:64], about[:400])) + b"\n"
        try:
            with self._lock:
                if self._path.exists() and self._path.stat().st_size > ROLL_BYTES:
                    self._path.replace(self._old)
                with self._path.open("ab") as out:
                    out.write(data)
                    out.flush()
                self._path.chmod(0o600)
        except OSError as err:
            log.error("what was done on the page is not written down: %s (%s)", deed, err.strerror)

    def newest(self) -> list[Line]:
        """The last `SHOWN`, newest first; what cannot be read is passed over."""
        found: list[Line] = []
        for path in (self._old, self._path):
            with contextlib.suppress(OSError), path.open("rb") as source:
                source.seek(max(0, source.seek(0, 2) - _TAIL_BYTES))
                for line in source:
                    with contextlib.suppress(msgspec.MsgspecError):
                        found.append(msgspec.json.decode(line, type=Line))
        return found[: -SHOWN - 1 : -1]

    @property
    def _old(self) -> Path:
        return self._path.with_name(self._path.name + ".1")
