"""What must not be forgotten about jobs: one small file, replaced whole before each side effect.

A job that has ended stays here until there are too many and its time is past by what is signed; then the floor of time
rises over its end, so that a replay of what was forgotten comes too late for ever, whatever a clock says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from sekisho.appliance.core.errors import DeviceFault
from sekisho.appliance.core.fsio import open_plain, write_atomic
from sekisho.appliance.core.jobs import LIFE_S, TERMINAL, Job, State

MAX_BYTES: Final = 8 << 20
"""More than `KEPT` and all that is open with the largest arguments there may be."""
OPEN_CAP: Final = 32
"""Jobs that are not over; more are not taken, and the centre sends them again."""
SPARE: Final = 8
"""Further places for what takes back: a full box must still be stopped."""
KEPT: Final = 200
"""Jobs that are over and remembered."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One job on this box."""

    job: Job
    """As signed, with this box alone in `boxes`."""
    digest: str
    """SHA-256 of the signed payload: another payload under the same name is no repeat."""
    signers: tuple[str, ...] = ()
    state: State = "RECEIVED"
    why: str = ""
    step: str = ""
    pct: int = 0
    by: str = ""
    detail: str = ""
    ver: int = 1
    """Grows with every change that is told."""
    told: int = 0
    """The `ver` that is known to be in the journal telemetry reads."""
    at: str = ""
    """UTC of the last change."""
    begun: float = 0.0
    """Unix seconds, as the centre told the time; 0: nothing was done yet."""
    turned: float = 0.0
    """Unix seconds, as the centre told the time, since which it is in its state; 0: the time was not known."""
    asked: bool = False
    """Who carries it out has answered. Until then it is begun anew, and only while it still may be."""
    mark: str = ""
    """What was there before it began: whoever carries it out knows by it whether it was done."""
    entries: int = 0
    """How often it was taken up again without getting further."""
    ending: State | None = None
    """It is being taken back, to end so."""
    ends_why: str = ""
    ends_by: str = ""

    @property
    def over(self) -> bool:
        return self.state in TERMINAL

    @property
    def last(self) -> float:
        """Unix seconds: it is not begun after."""
        return min(self.job.exp, self.job.nbf + LIFE_S)


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, in the order they came."""

    entries: tuple[Entry, ...] = ()
    floor: float = 0.0
    """Unix seconds: it is at least this late. Only what is signed raises it."""

    def find(self, ident: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.job.id == ident), None)


def load(path: Path) -> Book:
    """What was saved; a new one where nothing ever was.

    Raises:
        DeviceFault: it is there and cannot be read: to forget what was done would be to do it again.

    """
    try:
        with open_plain(path, MAX_BYTES) as source:
            return msgspec.json.decode(source.read(), type=Book)
    except FileNotFoundError:
        return Book()
    except (OSError, msgspec.MsgspecError) as err:
        raise DeviceFault(f"{path} cannot be read: {err}.", "Call the help desk; no jobs are taken meanwhile.") from err


def save(path: Path, book: Book) -> None:
    """Durable at return.

    Raises:
        DeviceFault: disk full or read-only; the earlier one stays.

    """
    try:
        write_atomic(path, msgspec.json.encode(book), 0o600)
    except OSError as err:
        raise DeviceFault(f"Cannot write {path}: {err.strerror}.", "Free space on the data partition.") from err


def pruned(book: Book, known: float) -> Book:
    """Without the oldest of those that are over and were told, where there are more than `KEPT`; none whose time is not
    past at `known` (unix seconds, signed): it might come again.
    """
    over = sorted((entry for entry in book.entries if entry.over and entry.told >= entry.ver), key=lambda one: one.last)
    gone = [entry for entry in over[: max(0, len(over) - KEPT)] if entry.last + 1 <= known]
    if not gone:
        return book
    names = {entry.job.id for entry in gone}
    left = tuple(entry for entry in book.entries if entry.job.id not in names)
    return Book(entries=left, floor=max(book.floor, *(entry.last + 1 for entry in gone)))
