"""What inspect shows of its quarantine to the box's own page, and how an owner's release gets into it (core.desk).

Content is given out only after its release was noted with a reason; a release is an event that the centre hears of,
without the reason, which is the owner's own word and stays on the box.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.inspect import unwrap
from sekisho.inspect.kept import Entry, Kept, List, Question, Read, Release, Show
from sekisho.inspect.quarantine import Quarantine
from sekisho.telemetry import events

USERS: Final = ("sekisho-page", "sekisho-jobs")
SHOWN: Final = 200
"""Of the newest entries; the rest is told as a number."""


class Counter:
    """Answers one question; called on the desk's threads."""

    def __init__(
        self, quarantine: Quarantine, keep_days: int, limit: int, report: Callable[[events.Health], None]
    ) -> None:
        """`quarantine` is no writer: it is the daemon's second hand. `limit`: bytes of the largest file."""
        self._quarantine, self._keep_days, self._limit, self._report = quarantine, keep_days, limit, report

    def answer(self, question: bytes) -> Iterator[bytes]:
        """Frames.

        Raises:
            RejectedInput: no question, no such entry, or it is not released.
            DeviceFault: the disk refuses.

        """
        try:
            asked = msgspec.json.decode(question, type=Question)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        match asked:
            case List():
                yield msgspec.json.encode(self._list())
            case Show():
                yield msgspec.json.encode(self._quarantine.show(asked.id))
            case Release():
                yield msgspec.json.encode(self._release(asked))
            case Read():
                entry = self._quarantine.show(asked.id)
                if not entry.released:
                    raise RejectedInput(f"Quarantine entry {asked.id} is not released.")
                yield from self._content(entry)

    def _content(self, entry: Entry) -> Iterator[bytes]:
        """The entry and its content; the file itself where it was kept as it travelled and can be told apart in it."""
        if entry.form != "transfer":
            yield msgspec.json.encode(entry)
            yield from self._quarantine.read(entry.id)
            return
        transfer = os.memfd_create("released", os.MFD_CLOEXEC)
        try:
            for chunk in self._quarantine.read(entry.id):
                os.write(transfer, chunk)
            file = unwrap.content(transfer, entry.app, entry.sha256, self._limit)
            yield msgspec.json.encode(msgspec.structs.replace(entry, form="file") if file else entry)
            yield from file if file is not None else self._quarantine.read(entry.id)
        finally:
            os.close(transfer)

    def _list(self) -> Kept:
        entries, damaged, more = self._quarantine.newest(SHOWN)
        return Kept(entries, more, damaged, self._keep_days)

    def _release(self, asked: Release) -> Entry:
        reason = asked.reason.strip()
        if not reason:
            raise RejectedInput("A release needs a reason.")
        entry = self._quarantine.note_release(asked.id, reason)
        detail = f"{entry.id} {entry.sha256}"[:200]
        self._report(events.Health(at=utc.now(), part="quarantine", state="released", detail=detail))
        return entry
