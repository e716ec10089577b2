"""Notices that the settings file says something else about who this box is or how it reaches the centre.

Enrolment writes it, from the command line or for the box's own page; the daemon then ends and is started anew.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from sekisho.appliance.core import settings
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import stamp
from sekisho.appliance.core.settings import Settings

LOOK_S: Final = 2.0


class Changed:
    """One look every `LOOK_S` at most; a file that is refused changes nothing."""

    def __init__(self, path: Path, config: Settings) -> None:
        self._path, self._was, self._stamp = path, _of(config), stamp(path)
        self._look_at = 0.0

    def turn(self, now: float) -> bool:
        """Whether it is so."""
        if now < self._look_at:
            return False
        self._look_at = now + LOOK_S
        found = stamp(self._path)
        if found == self._stamp:
            return False
        self._stamp = found
        with suppress(RejectedInput):
            return _of(settings.load(self._path)) != self._was
        return False


def _of(config: Settings) -> tuple[object, ...]:
    return config.box, config.tenant, config.telemetry
