"""The web service's routes for boxes: the CA's certificate, enrolment, renewal. Passes on; decides only how often.

The CA's daemon decides and signs (`granting`). A source may ask `BURST` times at once and then every `PACE_S`;
an IPv6 source is its /64. Codes of 80 bits need no such bound against guessing: it keeps the CA from being busy.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.params import JSONBody

from sekisho.appliance.core.errors import PeerError
from sekisho.center.ca.wire import LINE_CAP_BYTES, TURN_S, Answer, Question
from sekisho.center.settings import CenterSettings
from sekisho.center.web.sources import source_of
from sekisho.telemetry.enrolment.wire import (
    CA_PATH,
    ENROL_PATH,
    RENEW_PATH,
    CaAnswer,
    EnrolAsk,
    Grant,
    Refusal,
    RenewAsk,
)

BURST: Final = 20
PACE_S: Final = 3.0
SOURCES_KEPT: Final = 20_000


class Pace:
    """How often each source may ask."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """When a source has its whole burst again; what is not here has it now."""

    def wait_s(self, source: str, now: float) -> float:
        """0 and counted when `source` may ask now, otherwise how long it has to wait."""
        full_at = max(self._full_at.pop(source, 0.0), now) + PACE_S
        over = full_at - now - BURST * PACE_S
        self._full_at[source] = full_at if over <= 0 else full_at - PACE_S
        while len(self._full_at) > SOURCES_KEPT:
            self._full_at.popitem(last=False)
        return max(0.0, over)


def router(settings: CenterSettings) -> Router:
    """The three routes."""
    pace, socket_path = Pace(), settings.ca.socket

    @get(CA_PATH)
    async def ca() -> Response[CaAnswer | Refusal]:
        try:
            return Response(CaAnswer(await asyncio.to_thread(Path(settings.broker.ca).read_text)))
        except OSError:
            return Response(Refusal("The centre cannot answer now."), status_code=503)

    @post(ENROL_PATH, status_code=200)
    async def enrol(data: JSONBody[EnrolAsk], request: Request[Any, Any, Any]) -> Response[Grant | Refusal]:
        return await pass_on(data, request)

    @post(RENEW_PATH, status_code=200)
    async def renew(data: JSONBody[RenewAsk], request: Request[Any, Any, Any]) -> Response[Grant | Refusal]:
        return await pass_on(data, request)

    async def pass_on(ask: EnrolAsk | RenewAsk, request: Request[Any, Any, Any]) -> Response[Grant | Refusal]:
        source = source_of(request.client.host if request.client else "")
        if wait_s := pace.wait_s(source, time.monotonic()):
            headers = {"retry-after": str(int(wait_s) + 1)}
            return Response(Refusal("Too many attempts; please wait."), status_code=429, headers=headers)
        try:
            answer = await _ask(socket_path, Question(source, ask))
        except PeerError as err:
            return Response(Refusal(str(err)), status_code=503)
        if answer.grant:
            return Response(answer.grant)
        return Response(Refusal(answer.error), status_code=answer.status)

    return Router("/", route_handlers=[ca, enrol, renew])


async def _ask(path: str, question: Question) -> Answer:
    try:
        async with asyncio.timeout(TURN_S):
            reader, writer = await asyncio.open_unix_connection(path, limit=LINE_CAP_BYTES)
            try:
                writer.write(msgspec.json.encode(question) + b"\n")
                await writer.drain()
                return msgspec.json.decode(await reader.readline(), type=Answer)
            finally:
                writer.close()
    except (OSError, ValueError, msgspec.DecodeError) as err:
        raise PeerError("The centre cannot give certificates now.", "Please try again in a minute.") from err
