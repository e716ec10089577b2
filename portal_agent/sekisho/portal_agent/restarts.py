"""When the box restarts: the plan, its hour, and how long it took the last times, as far as that was seen.

One plan at a time, in `restart.json`: the owner's, or one that somebody else may put there later (`by`). `turn` is
called every few seconds. A plan is taken away before its wish is made, so that no restart repeats itself; one whose
hour passed while the box was off is dropped. How long a restart takes is said only from measurement: from the wish to
the first look that finds the traffic inspected again.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import write_atomic

LATE_S: Final = 3600.0
NOT_DONE_S: Final = 300.0
LONGEST_S: Final = 3600.0
"""A box that took longer was off for another reason, or its clock was set meanwhile."""
KEPT: Final = 5
_CAP_BYTES: Final = 16 << 10


class Plan(msgspec.Struct, frozen=True):
    """A restart to come."""

    at: float
    """Unix seconds."""
    by: Literal["owner", "centre"] = "owner"


class Kept(msgspec.Struct):
    """What is on the disk."""

    plan: Plan | None = None
    asked: float = 0.0
    """When the last restart was asked of root; 0 = it is accounted for."""
    asked_boot: str = ""
    took_s: list[float] = []
    """The newest last."""
    not_done: bool = False
    """The last one that was asked for did not happen."""


class Restarts:
    """Safe to call from threads."""

    def __init__(self, path: Path, wish: Callable[[], None]) -> None:
        """`wish` asks root for a restart and may raise."""
        self._path, self._wish = path, wish
        self._lock = threading.Lock()
        self._kept = _load(path)

    @property
    def kept(self) -> Kept:
        """As it is now; not to be changed."""
        return self._kept

    def plan(self, at: float) -> None:
        """Put a plan in the place of the one there may be.

        Raises:
            DeviceFault: the disk refuses; the old plan holds.

        """
        with self._lock:
            self._save(plan=Plan(at))

    def cancel(self) -> None:
        """Not now.

        Raises:
            DeviceFault: as `plan`.

        """
        with self._lock:
            self._save(plan=None)

    def turn(self, now: float, boot: str, *, inspecting: bool) -> bool:
        """Do what is due at unix time `now`; whether a restart was asked for.

        Raises:
            SekishoError: it cannot be asked for; the plan is gone, and `not_done` says so.

        """
        with self._lock:
            self._account(now, boot, inspecting)
            plan = self._kept.plan
            if plan is None or now < plan.at:
                return False
            if now - plan.at > LATE_S:
                self._save(plan=None, not_done=True)
                return False
            self._save(plan=None, asked=now, asked_boot=boot, not_done=False)
            try:
                self._wish()
            except Exception:
                self._save(asked=0.0, not_done=True)
                raise
            return True

    def _account(self, now: float, boot: str, inspecting: bool) -> None:
        kept = self._kept
        if not kept.asked:
            return
        took = now - kept.asked
        if boot == kept.asked_boot:
            if not 0 <= took <= NOT_DONE_S:
                self._save(asked=0.0, not_done=True)
        elif inspecting:
            took_s = [*kept.took_s, round(took, 1)][-KEPT:] if 0 < took <= LONGEST_S else kept.took_s
            self._save(asked=0.0, took_s=took_s)

    def _save(self, **changes: object) -> None:
        new = msgspec.structs.replace(self._kept, **changes)
        try:
            write_atomic(self._path, msgspec.json.encode(new))
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._path}: {err.strerror}.") from err
        self._kept = new


def tonight(hour: int, minute: int, now: dt.datetime) -> dt.datetime:
    """The next time the clock says so, in `now`'s zone."""
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return at if at > now else at + dt.timedelta(days=1)


def _load(path: Path) -> Kept:
    try:
        with path.open("rb") as source:
            return msgspec.json.decode(source.read(_CAP_BYTES), type=Kept)
    except (OSError, msgspec.MsgspecError):
        return Kept()
