"""What a rollout needs of whoever sends jobs, and nothing more: the one seam between the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec
import sqlalchemy as sa


class Word(msgspec.Struct, frozen=True):
    """What a box said last of a job."""

    state: str
    step: str
    why: str
    received_at: str
    """RFC 3339, the centre's clock."""


class Sender(Protocol):
    """Keeps jobs and sends those that were let go; all in the caller's transaction."""

    def submit(self, db: sa.Connection, envelope: bytes) -> None:
        """Take a signed job and hold it for every box. Twice is once."""

    def release(self, db: sa.Connection, job: str, boxes: Iterable[str]) -> None:
        """Let it go to these of its boxes."""

    def withhold(self, db: sa.Connection, job: str) -> list[str]:
        """Hold it again for those that have not said anything of it; these."""

    def words(self, db: sa.Connection, job: str) -> Mapping[str, Word]:
        """Box -> its last word; who has not said anything is not in it."""
