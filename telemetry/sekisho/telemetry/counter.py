"""What telemetry shows to the box's own page: how the link is, what waits, and exactly what was sent (core.desk)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.settings import Settings
from sekisho.telemetry import link
from sekisho.telemetry.link import LinkStatus
from sekisho.telemetry.said import Said
from sekisho.telemetry.spool_view import LaneStatus, SentRow, SpoolView

USERS: Final = ("sekisho-page", "sekisho-firmware")
ROWS_CAP: Final = 200
ROW_CAP_BYTES: Final = 16 << 10
LINES: Final = 500


class LinkAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="link"):
    """How the link is."""


class SentAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="sent"):
    """The newest that was sent, or the newest messages that are no events."""

    of: Literal["events", "messages"] = "events"
    limit: Annotated[int, msgspec.Meta(ge=1, le=ROWS_CAP)] = 50


class AllAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="do", tag="all"):
    """Everything that was sent and is still kept, as lines of JSON after an empty object."""


Question = LinkAsk | SentAsk | AllAsk


class LinkTold(msgspec.Struct, frozen=True):
    """The link and what waits for it."""

    configured: bool
    connected: bool
    link: LinkStatus
    lanes: list[LaneStatus]
    next: int = 0
    """Number of the event that comes next, of the series `epoch`: by both one knows whether events were lost."""
    epoch: str = ""


class SentTold(msgspec.Struct, frozen=True):
    """Newest first."""

    rows: list[SentRow] = []
    said: list[Said] = []
    keep_hours: int = 0


class Counter:
    """Answers one question; called on the desk's threads, and opens the spool to read for each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def answer(self, question: bytes) -> Iterator[bytes]:
        """One frame, and of `AllAsk` many.

        Raises:
            RejectedInput: no question.
            DeviceFault: the spool cannot be read.

        """
        try:
            asked = msgspec.json.decode(question, type=Question)
        except msgspec.MsgspecError as err:
            raise RejectedInput(f"The question is not understood: {err}.") from err
        with closing(SpoolView(self._settings.spool)) as spool:
            match asked:
                case LinkAsk():
                    yield msgspec.json.encode(self._link(spool))
                case SentAsk():
                    yield msgspec.json.encode(self._sent(spool, asked))
                case AllAsk():
                    yield b"{}"
                    yield from _lines(spool)

    def _link(self, spool: SpoolView) -> LinkTold:
        known = link.read(self._settings.link_status)
        return LinkTold(
            bool(self._settings.telemetry.host),
            spool.connected(),
            known,
            spool.waiting(),
            spool.next_seq(),
            spool.epoch(),
        )

    def _sent(self, spool: SpoolView, asked: SentAsk) -> SentTold:
        keep = self._settings.telemetry.keep_hours
        if asked.of == "messages":
            day_ago = utc.of_unix(max(0.0, time.time() - 86400))
            said = [said for said in spool.said(day_ago) if len(bytes(said.message)) <= ROW_CAP_BYTES]
            return SentTold(said=said[: -asked.limit - 1 : -1], keep_hours=keep)
        rows = [row for row in spool.sent(asked.limit) if len(bytes(row.event)) <= ROW_CAP_BYTES]
        return SentTold(rows=rows[::-1], keep_hours=keep)


def _lines(spool: SpoolView) -> Iterator[bytes]:
    """Births and wills first, then events as they were acknowledged, a few hundred a frame."""
    rows = chain(spool.said(), spool.sent())
    while lines := [msgspec.json.encode(row) + b"\n" for row in islice(rows, LINES)]:
        yield b"".join(lines)
