"""Why nothing was taken from the channel, as closed codes in the product's three families.

Whatever the code: the set in force stays in force, and inspection goes on. None of these means "stop protecting".
"""

from __future__ import annotations

from typing import Literal

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput

PeerCode = Literal["unreachable", "bad_answer", "slow"]
RefusedCode = Literal["forged", "rolled_back", "expired", "too_large", "missing", "malformed"]
DeviceCode = Literal["stale_unconfirmed", "disk_full", "disk", "floors_lost", "bad_root"]


class ChannelDown(PeerError):
    """The server or the network; try again later."""

    def __init__(self, code: PeerCode, message: str, advice: str = "", status: int = 0) -> None:
        super().__init__(message, advice)
        self.code: PeerCode = code
        self.status = status
        """HTTP's, 0 where there was no answer."""


class ChannelRefused(RejectedInput):
    """What was offered failed a check. The same offer is refused again; a later one may be good."""

    def __init__(self, code: RefusedCode, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.code: RefusedCode = code


class ChannelUnfit(DeviceFault):
    """The box cannot judge or keep what is offered: its clock, its disk, what it was given to trust."""

    def __init__(self, code: DeviceCode, message: str, advice: str = "") -> None:
        super().__init__(message, advice)
        self.code: DeviceCode = code


def disk_fault(err: OSError, what: str) -> ChannelUnfit:
    """The fault of a failed file operation."""
    full = err.errno in (28, 122)  # ENOSPC, EDQUOT
    return ChannelUnfit(
        "disk_full" if full else "disk",
        f"{what} cannot be kept: {err.strerror or err}.",
        "Free space on the box." if full else "The box's storage may be failing; have it looked at.",
    )
