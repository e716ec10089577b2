"""What is asked about a restart of the machine: by the jobs, the box's page and the command. And what is answered."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.settings import Settings
from sekisho.firmware.reboot.machine import Journal, Over, Wanted

USERS: Final = ("sekisho-page", "sekisho-jobs")

Job = Annotated[str, msgspec.Meta(pattern=r"^job [0-9A-HJKMNP-TV-Z]{26}\Z")]
_By = Annotated[str, msgspec.Meta(pattern=r"^(local-page|command)\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=200)]


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="show"):
    """How it is."""


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="ask"):
    """Put a restart before the customer, once per job; it leads out of `boot`."""

    job: Job
    boot: _Text
    mode: Literal["ask", "window", "asap"] = "ask"
    reason: _Text = ""


class Choose(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="choose"):
    """The customer's word: now, from `at` on (unix seconds), or in the weekly window."""

    job: Job
    by: _By
    at: Annotated[float, msgspec.Meta(ge=0)] = 0
    window: bool = False


class Refuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="refuse"):
    """The customer's no, or (`by` the job) the operators' change of mind."""

    job: Job
    by: Annotated[str, msgspec.Meta(pattern=r"^(local-page|command|job [0-9A-HJKMNP-TV-Z]{26})\Z")]


Question = Show | Ask | Choose | Refuse


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to every question. Times are unix seconds."""

    wanted: Wanted | None = None
    begins: bool = False
    """What works is being noted; the restart follows."""
    over: tuple[Over, ...] = ()
    expected_s: float = 0.0
    """Interruption to be expected: what nine of ten of this box's own took; 0: none was measured yet."""
    measured: int = 0
    window_at: float = 0.0
    """When the weekly window opens next (now, while it is open); 0: there is none."""


def socket_of(settings: Settings) -> Path:
    return settings.firmware_run / "restart.sock"


def shown(journal: Journal, *, begins: bool, window_at: float) -> Shown:
    took = sorted(journal.history)
    return Shown(
        wanted=journal.wanted, begins=begins, over=journal.over, measured=len(took), window_at=window_at,
        expected_s=took[math.ceil(0.9 * len(took)) - 1] if took else 0.0,
    )  # fmt: skip
