"""The product's errors, in three families by who must act.

`PeerError`: the other side or the network; retry with back-off.
`RejectedInput`: something failed a check; never retried, counted and reported.
`DeviceFault`: this machine (disk, kernel, cabling, settings); a person must act.
"""

from __future__ import annotations


class SekishoError(Exception):
    """Root of the product's errors. `advice` is one sentence an owner can act on, or empty."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice

    def __str__(self) -> str:
        base = super().__str__()
        return f"{base} {self.advice}".strip()


class PeerError(SekishoError):
    """The broker, server or network did not answer as it should."""


class RejectedInput(SekishoError):
    """Input failed a check and was refused; what was in force stays in force."""


class DeviceFault(SekishoError):
    """The machine itself is not fit: a missing interface, a full disk, a kernel without a feature."""
