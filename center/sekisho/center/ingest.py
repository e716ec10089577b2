"""A batch from a box becomes rows to store and an acknowledgement to send: parsing and judging, no I/O.

The box is the one in the topic (the broker's ACL ties it to the certificate); nothing in the payload
may say otherwise. A row that is no valid event is counted and accounted for, so that the box does not
repeat it for ever; a batch that is not one at all is refused whole and not acknowledged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import NAME
from sekisho.center.clock import OFF_CAP_S, corrected
from sekisho.center.store import REJECTED, NewRow
from sekisho.telemetry import batches, events
from sekisho.telemetry.events import Gap

MESSAGE_CAP: Final = 256 << 10
ROWS_CAP: Final = 5000
ACK_RUNS: Final = 256

_TOPIC = re.compile(rf"sk/1/({NAME})/({NAME})/(ev/[012]|state)")

_Seq = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
_Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
_Epoch = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")
"""RFC 3339 in UTC, as boxes write it."""


class _Header(msgspec.Struct, frozen=True):
    v: int
    e: _Epoch
    n: Annotated[int, msgspec.Meta(ge=1, le=ROWS_CAP)]
    z: Literal["", "zstd"] = ""
    off: Annotated[float, msgspec.Meta(ge=-OFF_CAP_S, le=OFF_CAP_S)] = 0.0
    """Seconds that the box's clock was behind when it wrote these rows."""
    again: bool = False
    """The centre had all of these before it was restored."""


class StateMessage(msgspec.Struct, frozen=True):
    """A box's birth ("on") or last will ("lost")."""

    st: Literal["on", "lost"]
    bd: _Number
    epoch: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16})?\Z")] = ""
    next: _Number = 0
    n: Annotated[str, msgspec.Meta(max_length=32)] = ""
    """Nonce of a birth: the answer that repeats it is fresh."""


class AckMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the centre has: everything to `upto`, and whole runs (lane, first, last) beyond it."""

    e: str
    upto: int
    have: list[tuple[int, int, int]]
    s: str
    t: int = 0
    """The centre's time, unix milliseconds; only in the answer to the birth whose nonce is `n`."""
    n: str = ""
    g: int = 0
    """Generation of the centre's store: grows when it was restored, and the box sends again what it kept."""


_header = msgspec.json.Decoder(_Header).decode
_line = msgspec.json.Decoder(tuple[_Seq, Annotated[int, msgspec.Meta(ge=0, le=2)], msgspec.Raw]).decode
_state = msgspec.json.Decoder(StateMessage).decode


@dataclass(frozen=True)
class Topic:
    """Where a message came from: tenant, box, and `lane` (None for a state message)."""

    tenant: str
    box: str
    lane: int | None


@dataclass(frozen=True)
class Batch:
    """One message of events, judged row by row."""

    epoch: str
    rows: list[NewRow]
    run: tuple[int, int, int]
    """(lane, first, last): what an acknowledgement of this batch says."""
    rejected: int


def parse_topic(topic: str) -> Topic:
    """The parts of a topic of ours.

    Raises:
        RejectedInput: not one of the topics a box may write.

    """
    match = _TOPIC.fullmatch(topic)
    if not match:
        raise RejectedInput("A message came on a topic that is none of ours.")
    tenant, box, kind = match.groups()
    return Topic(tenant, box, None if kind == "state" else int(kind[-1]))


def box_of(topic: str) -> str:
    """The box that a topic names, whatever else it says; empty when it names none."""
    levels = topic.split("/")
    return levels[3] if len(levels) > 4 and re.fullmatch(NAME, levels[3]) else ""


def parse_state(payload: bytes) -> StateMessage:
    """A birth or a last will.

    Raises:
        RejectedInput: too large or malformed.

    """
    try:
        if len(payload) > 4096:
            raise ValueError("too large")
        return _state(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise RejectedInput(f"A state message was refused: {_why(err)}.") from err


def parse_batch(lane: int, payload: bytes) -> Batch:
    """The rows of one message on the topic of `lane`.

    Raises:
        RejectedInput: too large, also when expanded; wrong version, torn, rows that are not numbered rows of this
            lane, or more than `events.BATCH_RUNS` dropped runs.

    """
    try:
        if len(payload) > MESSAGE_CAP:
            raise ValueError("larger than its cap")
        first, _, rest = payload.partition(b"\n")
        header = _header(first)
        lines = (batches.expand(rest) if header.z else rest).rstrip(b"\n").split(b"\n", ROWS_CAP + 1)
        if header.v != 1 or header.n != len(lines):
            raise ValueError("not a whole batch of version 1")
        rows = list(_rows(lane, lines, header))
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise RejectedInput(f"A batch was refused: {_why(err)}.") from err
    numbers = [row.seq for row in rows]
    rejected = sum(row.type == REJECTED for row in rows)
    return Batch(header.e, rows, (lane, min(numbers), max(numbers)), rejected)


def _why(err: Exception) -> str:
    """The reason without what the message said: a decoder quotes it, line breaks and all."""
    if isinstance(err, msgspec.ValidationError):
        return "a value is not what it should be"
    return str(err) if type(err) is ValueError else "no JSON that can be read"


def _rows(lane: int, lines: list[bytes], header: _Header) -> Iterator[NewRow]:
    declared = 0
    for line in lines:
        row = _row(lane, line, header)
        declared += len(row.dropped)
        if declared > events.BATCH_RUNS:
            raise ValueError("more dropped runs than a batch may declare")
        yield row


def _row(lane: int, line: bytes, header: _Header) -> NewRow:
    seq, row_lane, raw = _line(line)
    if row_lane != lane:
        raise ValueError("a row of another lane")
    body = bytes(raw)
    try:
        event = events.decode(body)
        if header.off:
            event = corrected(event, header.off)
            body = events.encode(event)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return NewRow(seq, lane, REJECTED, "", b"")
    if not _TIME.fullmatch(event.at):
        return NewRow(seq, lane, REJECTED, "", b"")
    dropped = event.dropped() if isinstance(event, Gap) else []
    if len(dropped) > events.GAP_RUNS or not all(1 <= first <= last < seq for first, last in dropped):
        return NewRow(seq, lane, REJECTED, "", b"")
    stars = getattr(event, "stars", 0)
    return NewRow(seq, lane, str(event.__struct_config__.tag), event.at, body, dropped, stars, header.again)


def make_ack(
    epoch: str,
    upto: int,
    runs: list[tuple[int, int, int]],
    session: str,
    nonce: str = "",
    now_ms: int = 0,
    generation: int = 0,
) -> bytes:
    """The acknowledgement: the newest runs that `upto` does not cover yet, at most `ACK_RUNS`.

    The answer to a birth repeats its `nonce` and tells the time, so that a box with a wrong clock learns it.
    """
    have = [run for run in runs if run[2] > upto][-ACK_RUNS:]
    return msgspec.json.encode(AckMessage(epoch, upto, have, session, now_ms if nonce else 0, nonce, generation))
