"""What the customer decided at the centre, and the time as well as a box knows it: by both a window is open or not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from sekisho.appliance.core import orders, told_time
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.fsio import open_plain, stamp
from sekisho.appliance.core.jobs import Believed
from sekisho.appliance.core.settings import Settings
from sekisho.policy import overlay
from sekisho.policy.overlay import Overlay
from sekisho.telemetry.clocks import RELEASED

ORDERS_CAP: Final = 1 << 20

log = logging.getLogger(__name__)


class Ordered:
    """One box's. `wall` is the machine's own clock."""

    def __init__(self, settings: Settings, wall: Callable[[], float] = time.time) -> None:
        self._settings, self._wall = settings, wall
        self._stamp: tuple[int, int] | None = None
        self._overlay = overlay.EMPTY
        self._signed: tuple[tuple[int, int] | None, float] = None, RELEASED

    def now(self) -> tuple[float, bool]:
        """Unix seconds, and whether they can be believed: as the centre told, else by a clock that does not lie behind
        what the channel's keyholders signed. Never behind that, whoever says so.
        """
        signed, told = self._signed_at(), told_time.try_read(self._settings)
        said = self._wall() if told is None else told
        return max(said, signed), told is not None or said >= signed

    def _signed_at(self) -> float:
        path = self._settings.operators
        found = stamp(path)
        if found != self._signed[0]:
            at = RELEASED
            try:
                with open_plain(path, ORDERS_CAP) as source:
                    at = max(at, msgspec.json.decode(source.read(), type=Believed).at)
            except (OSError, msgspec.MsgspecError) as err:
                log.warning("when the channel was signed last cannot be read: %s", err)
            self._signed = found, at
        return self._signed[1]

    def orders(self) -> Overlay:
        """What the customer decided at the centre, as telemetry checked and kept it; the last that could be read."""
        path = self._settings.orders
        now = stamp(path)
        if now == self._stamp:
            return self._overlay
        self._stamp = now
        try:
            with open_plain(path, ORDERS_CAP) as source:
                found = orders.unchecked(source.read())
            if (found.tenant, found.box) == (self._settings.tenant, self._settings.box):
                self._overlay = overlay.parse(bytes(found.policy))
        except FileNotFoundError:
            self._overlay = overlay.EMPTY
        except (OSError, RejectedInput) as err:
            log.warning("the centre's settings cannot be read: %s", err)
        return self._overlay
