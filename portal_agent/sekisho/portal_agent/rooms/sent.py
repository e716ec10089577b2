"""What left the box, exactly as it was sent (REQUIREMENTS B6), and the list of all that ever may."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Response, get
from litestar.response import Stream

from sekisho.appliance.core.errors import PeerError
from sekisho.portal_agent.office import Asked, office_of
from sekisho.telemetry.counter import ROW_CAP_BYTES, AllAsk, SentAsk, SentTold

LIMIT: Final = 100
TOOL_S: Final = 20


class Line(msgspec.Struct, frozen=True):
    """One thing that was sent."""

    at: str
    kind: str
    seq: int
    text: str


class _Field(msgspec.Struct, frozen=True):
    type: str
    name: str
    ja: str
    en: str


class _Head(msgspec.Struct):
    type: str = ""
    at: str = ""


@get("/sent", right="owner", sync_to_thread=True)
def sent(request: Asked) -> Response[Any]:
    office = office_of(request)
    path = office.settings.sent_socket
    told = msgspec.json.decode(next(office.ask(path, SentAsk("events", LIMIT))), type=SentTold)
    said = msgspec.json.decode(next(office.ask(path, SentAsk("messages", 10))), type=SentTold).said
    lines = [_line(row.seq, bytes(row.event)) for row in told.rows]
    others = [Line(each.at, each.topic, 0, bytes(each.message).decode(errors="replace")) for each in said]
    return office.page(
        request, "sent.html", lines=lines, others=others, keep_hours=told.keep_hours, cap=ROW_CAP_BYTES, limit=LIMIT,
        mask=office.settings.telemetry.mask_internal,
    )  # fmt: skip


def _line(seq: int, event: bytes) -> Line:
    head = msgspec.json.decode(event, type=_Head)
    return Line(head.at, head.type, seq, event.decode(errors="replace"))


@get("/sent/all", right="owner", sync_to_thread=True)
def everything(request: Asked) -> Response[Any]:
    """All of it as a file, a line of JSON each; an answer that is cut short breaks the download off."""
    office = office_of(request)
    frames = office.ask(office.settings.sent_socket, AllAsk())
    next(frames)
    headers = {"content-disposition": 'attachment; filename="sekisho-sent.jsonl"'}
    return Stream(frames, media_type="application/octet-stream", headers=headers)


@get("/sent/fields", right="owner", sync_to_thread=True)
def listed(request: Asked) -> Response[Any]:
    by_type: dict[str, list[_Field]] = {}
    for field in _fields():
        by_type.setdefault(field.type, []).append(field)
    return office_of(request).page(request, "fields.html", by_type=by_type)


@cache
def _fields() -> list[_Field]:
    """Asked of the command line: the types themselves bring the whole way to the broker with them (20 MiB)."""
    argv = [sys.executable, "-I", "-m", "sekisho.appliance.cli", "telemetry", "fields", "--json"]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=TOOL_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise PeerError("The list of fields cannot be made.") from err
    if done.returncode != 0:
        raise PeerError("The list of fields cannot be made.")
    return [msgspec.json.decode(line, type=_Field) for line in done.stdout.splitlines()]


HANDLERS: Final = (sent, everything, listed)
