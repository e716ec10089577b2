r"""One session of help at a time: asked for by a signed job, open only while the office allows it.

    asked --allow(minutes)--> open --time over, "end", restart of the box--> over
      \--refuse, end--> refused

Kept in one file of the jobs daemon. How long it is open counts on the monotonic clock and within one boot: no clock
that is set makes it longer, and a restart of the box ends it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.fsio import open_plain, write_atomic

CAP_BYTES: Final = 16 << 10
MINUTES: Final = (5, 240)
"""The shortest and the longest that can be allowed."""

REMEMBERED: Final = 50

State = Literal["asked", "open", "refused", "over"]


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The newest session."""

    job: str
    """Of the job that asked for it."""
    reason: str
    minutes: int
    """What was asked for, and what was allowed once it is open."""
    state: State = "asked"
    at: str = ""
    """UTC of the last change."""
    by: str = ""
    """Who allowed, refused or ended it."""
    opened: float = 0.0
    """Monotonic clock, seconds; only in the boot named `boot`."""
    boot: str = ""
    looks: int = 0
    """Reports that were made for it; after a kill in the middle of one it may say one more, never one less."""
    before: tuple[tuple[str, str, int], ...] = ()
    """Of the sessions before: job, `by` at its end, reports; newest first, at most `REMEMBERED`."""

    def left_s(self, mono: float) -> float:
        """Seconds it is still open."""
        return self.opened + self.minutes * 60 - mono if self.state == "open" else 0.0


class Allow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="word", tag="allow"):
    """The office agrees, for so many minutes at most."""

    job: str
    minutes: Annotated[int, msgspec.Meta(ge=MINUTES[0], le=MINUTES[1])]
    by: Annotated[str, msgspec.Meta(max_length=64)]


class Refuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="word", tag="refuse"):
    """The office does not, or no longer."""

    job: str
    by: Annotated[str, msgspec.Meta(max_length=64)]


class Show(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="word", tag="show"):
    """What there is."""


Word = Allow | Refuse | Show


class Sessions:
    """Reads and writes the file; whoever has it is the only writer. Not for several threads."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path, self._boot = path, boot
        self._newest = _load(path)

    def newest(self, mono: float, at: str) -> Session | None:
        """The newest session as it is now; one whose time is over is noted as such."""
        one = self._newest
        if one is not None and one.state == "open" and (one.boot != self._boot or not 0 < one.left_s(mono)):
            self._save(
                msgspec.structs.replace(one, state="over", at=at, by="time" if one.boot == self._boot else "boot")
            )
        return self._newest

    def ask(self, session: Session, mono: float, at: str) -> Session:
        """Put it before the office, unless it was before; another that is not over stays where it is.

        What was asked for once is never put before the office again, also after others.

        Raises:
            RejectedInput: another session is not over.
            DeviceFault: the disk refuses.

        """
        one = self.newest(mono, at)
        if one is None:
            return self._save(msgspec.structs.replace(session, state="asked", at=at))
        if one.job == session.job:
            return one
        for job, by, looks in one.before:
            if job == session.job:
                return msgspec.structs.replace(session, state="over", by=by, looks=looks)
        if one.state in ("asked", "open"):
            raise RejectedInput("Another session of help is not over.", "End it first.")
        before = ((one.job, one.by, one.looks), *one.before)[:REMEMBERED]
        return self._save(msgspec.structs.replace(session, state="asked", at=at, before=before))

    def hear(self, word: Word, mono: float, at: str) -> Session | None:
        """Do what the office says.

        Raises:
            RejectedInput: it is about another session, or too late.
            DeviceFault: the disk refuses; nothing has changed.

        """
        one = self.newest(mono, at)
        match word:
            case Show():
                return one
            case Allow(job, minutes, by) if one is not None and one.job == job and one.state == "asked":
                return self._save(
                    msgspec.structs.replace(
                        one, state="open", minutes=min(minutes, one.minutes), at=at, by=by, opened=mono, boot=self._boot
                    )
                )
            case Refuse(job, by) if one is not None and one.job == job and one.state in ("asked", "open"):
                return self._save(
                    msgspec.structs.replace(one, state="refused" if one.state == "asked" else "over", at=at, by=by)
                )
            case _:
                raise RejectedInput("This session of help is not waiting for an answer any more.", "Look again.")

    def looked(self) -> None:
        """A report is about to be made for it."""
        if self._newest is not None:
            self._save(msgspec.structs.replace(self._newest, looks=self._newest.looks + 1))

    def _save(self, session: Session) -> Session:
        try:
            write_atomic(self._path, msgspec.json.encode(session), 0o640)
        except OSError as err:
            raise DeviceFault(f"Cannot write {self._path}: {err.strerror}.") from err
        self._newest = session
        return session


def _load(path: Path) -> Session | None:
    """None also where it is damaged: then nothing is open."""
    try:
        with open_plain(path, CAP_BYTES) as source:
            return msgspec.json.decode(source.read(), type=Session)
    except (OSError, msgspec.MsgspecError):
        return None
