"""What the web service and the CA's daemon say to each other: one JSON line each way on a Unix socket."""

from __future__ import annotations

from typing import Final

import msgspec

from sekisho.telemetry.enrolment.wire import EnrolAsk, Grant, RenewAsk

LINE_CAP_BYTES: Final = 32 << 10
TURN_S: Final = 5.0
"""How long one question may take, both ways."""


class Question(msgspec.Struct, frozen=True):
    """What a box asked, and the address it asked from."""

    source: str
    ask: EnrolAsk | RenewAsk


class Answer(msgspec.Struct, frozen=True):
    """The certificate, or the HTTP status and the sentence of a refusal."""

    grant: Grant | None = None
    status: int = 200
    error: str = ""
