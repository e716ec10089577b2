"""What a rollout needs of whoever sends jobs, and nothing more: the one seam between the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec
import sqlalchemy as sa

from sekisho.center.jobs import book
from sekisho.center.jobs.tables import JOB


class Word(msgspec.Struct, frozen=True):
    """What a box said last of a job."""

    state: str
    step: str
    why: str
    received_at: str
    """RFC 3339, the centre's clock."""
    at: str
    """The same by the box's."""


class Sender(Protocol):
    """Keeps jobs and sends those that were let go; all in the caller's transaction."""

    def submit(self, db: sa.Connection, envelope: bytes) -> None:
        """Take a signed job and hold it for every box. Twice is once."""

    def release(self, db: sa.Connection, job: str, boxes: Iterable[str]) -> None:
        """Let it go to these of its boxes."""

    def withhold(self, db: sa.Connection, job: str) -> list[str]:
        """Hold it again for those that have not said anything of it; those of them for which it never left."""

    def words(self, db: sa.Connection, job: str, boxes: Iterable[str] | None = None) -> Mapping[str, Word]:
        """Box -> its last word, of all or of `boxes`; who has not said anything is not in it."""

    def expires(self, db: sa.Connection, job: str) -> float:
        """When it may not begin any more, unix seconds; 0: there is none of this name."""


class _Jobs:
    """The centre's book of jobs, which `sekisho.center.jobs` sends from."""

    def submit(self, db: sa.Connection, envelope: bytes) -> None:
        book.submit(db, envelope, by="rollout", hold=True)

    def release(self, db: sa.Connection, job: str, boxes: Iterable[str]) -> None:
        book.release(db, job, boxes)

    def withhold(self, db: sa.Connection, job: str) -> list[str]:
        return book.withhold(db, job)

    def words(self, db: sa.Connection, job: str, boxes: Iterable[str] | None = None) -> Mapping[str, Word]:
        found = book.states(db, job, boxes=boxes)
        return {
            box: Word(one.state, one.step, one.why, one.received_at, one.at) for box, one in found.items() if one.ver
        }

    def expires(self, db: sa.Connection, job: str) -> float:
        return float(db.scalar(sa.select(JOB.c.exp).where(JOB.c.id == job)) or 0)


JOBS: Final[Sender] = _Jobs()
