"""What the jobs daemon shows of itself: who asked for what, who signed, what became of it (a file on tmpfs)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.fsio import open_plain, write_atomic
from sekisho.appliance.core.jobs import State
from sekisho.appliance.core.settings import Settings
from sekisho.portal_agent.jobs.book import Book

MAX_BYTES: Final = 1 << 20
SHOWN: Final = 100


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One job, newest first."""

    id: str
    kind: str
    state: State
    why: str = ""
    step: str = ""
    pct: int = 0
    by: str = ""
    signers: tuple[str, ...] = ()
    at: str = ""
    """UTC of the last change."""
    detail: str = ""
    rollout: str = ""


def path_of(settings: Settings) -> Path:
    return settings.jobs_run / "jobs.json"


def show(settings: Settings, book: Book, before: bytes) -> bytes:
    """Publish what changed since `before`; returns what is published.

    Raises:
        OSError: tmpfs full.

    """
    newest = list(reversed(book.entries))[:SHOWN]
    made = msgspec.json.encode([
        Shown(
            id=one.job.id, kind=one.job.kind, state=one.state, why=one.why, step=one.step, pct=one.pct, by=one.by,
            signers=one.signers, at=one.at, detail=one.detail, rollout=one.job.rollout,
        )
        for one in newest
    ])  # fmt: skip
    if made != before:
        settings.jobs_run.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(path_of(settings), made, 0o644)
    return made


def try_read(settings: Settings) -> list[Shown] | None:
    """None when the daemon never ran since the box started."""
    try:
        with open_plain(path_of(settings), MAX_BYTES) as source:
            return msgspec.json.decode(source.read(), type=list[Shown])
    except (OSError, msgspec.MsgspecError):
        return None
