"""When the certificate is to be renewed, kept beside it in a few bytes."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Due(msgspec.Struct, frozen=True):
    """Unix seconds, and the certificate's whole life in seconds, by which pauses are measured."""

    renew_at: float
    life_s: float


def due_file(identity: Path) -> Path:
    return identity.with_name("renewal.json")


def try_read(identity: Path) -> Due | None:
    """None where the identity was not got by enrolment."""
    try:
        return msgspec.json.decode(due_file(identity).read_bytes(), type=Due)
    except (OSError, msgspec.DecodeError):
        return None
