"""/v1/tenants/{tenant}/alerts: what people are told of, and that it was dealt with."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal

import msgspec
import sqlalchemy as sa
from litestar import Request, Router, get, put
from litestar.exceptions import NotFoundException
from litestar.params import JSONBody, PathParameter, QueryParameter

from sekisho.appliance.core import utc
from sekisho.center import protection
from sekisho.center.api import problems, words
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Number, mark, place
from sekisho.center.api.words import Texts, moment
from sekisho.center.cases import desk as cases
from sekisho.center.notify.told import tell
from sekisho.center.portal import alert_work
from sekisho.center.portal.alert_work import NOTE_CAP, State
from sekisho.center.portal.viewer import viewer
from sekisho.center.scope import Scope
from sekisho.center.views import alert_list
from sekisho.center.views.alert_list import Line, Whole
from sekisho.telemetry import events

MAC: Final = r"^([0-9a-f]{2}:){5}[0-9a-f]{2}$"
_ID_CAP: Final = (1 << 62) - 1

_Number = Annotated[int, PathParameter(ge=1, le=_ID_CAP)]
_Stars = Annotated[Literal[1, 2, 3] | None, QueryParameter(description="★の数")]
_State = Annotated[State | None, QueryParameter(name="state", description="open: 未対応 / done: 対応済み")]
_Device = Annotated[str | None, QueryParameter(pattern=MAC, description="MAC address, lower case. 機器")]
_Time = Annotated[dt.datetime | None, QueryParameter(description="Received then or later; until: before. 受信日時")]


class Device(msgspec.Struct, frozen=True):
    """The LAN device it is about; all empty: the UTM itself, or not known."""

    mac: str
    address: str
    name: str


class Alert(msgspec.Struct, frozen=True):
    """One alert."""

    id: int
    box: str
    detected_at: dt.datetime | None
    """By the UTM's clock."""
    received_at: dt.datetime | None
    stars: int
    type: str
    reason: str
    """The rubric's code."""
    title: Texts
    device: Device
    function: str
    rule: int
    """The signature's number; 0: none."""
    outcome: str
    """What the UTM did: blocked, file_blocked, neutralised, passed, released, found_later, or empty."""
    count: int
    state: State
    seen_at: dt.datetime | None
    """When somebody of the customer's opened it."""


class Alerts(msgspec.Struct, frozen=True):
    """A page of alerts, the newest first."""

    items: list[Alert]
    next: str | None


class Fact(msgspec.Struct, frozen=True):
    """What is known of it; the value is what was seen on the wire, so treat it as a stranger's text."""

    label: str
    value: str


class Note(msgspec.Struct, frozen=True):
    """What somebody did or wrote."""

    at: dt.datetime | None
    who: str
    kind: str
    text: str


class Detail(msgspec.Struct, frozen=True):
    """One alert with all that is kept of it."""

    alert: Alert
    matters: Texts
    advice: Texts
    facts: list[Fact]
    case: str | None
    handled_by: str
    handled_at: dt.datetime | None
    notes: list[Note]


class Standing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an alert is to stand from now on, and why."""

    state: State
    reason: Annotated[
        str,
        msgspec.Meta(min_length=1, max_length=NOTE_CAP, pattern="[!-~ぁ-ヿ一-鿿]", description="Kept as a note. 理由"),
    ]


class _Place(msgspec.Struct, array_like=True, frozen=True):
    before: Number


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/alerts",
        right="alerts.see",
        operation_id="list_alerts",
        summary="お知らせの一覧",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(
        tenant: Tenant,
        stars: _Stars = None,
        standing: _State = None,
        device: _Device = None,
        since: _Time = None,
        until: _Time = None,
        limit: Limit = LIMIT,
        cursor: Cursor = "",
    ) -> Alerts:
        """A customer's alerts, the newest first.

        A page may be shorter than its limit although `next` says that there are more: with several filters at once
        only so many alerts are looked through for one page.
        """
        scope, before = about(tenant), place(cursor, _Place)
        wanted = alert_list.Wanted(
            stars=stars or 0,
            state=standing or "",
            mac=device or "",
            since=words.stored(since),
            until=words.stored(until),
            before=before.before if before else 0,
        )
        with desk.reading.reading() as db:
            found = alert_list.listed(db, scope, wanted, limit)
            items = _alerts(db, scope, found.lines)
        return Alerts(items, mark(_Place(found.next)) if found.next else None)

    @get(
        "/tenants/{tenant:str}/alerts/{alert:int}",
        right="alerts.see",
        operation_id="get_alert",
        summary="お知らせ",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def one(tenant: Tenant, alert: _Number) -> Detail:
        """One alert: what happened, why it matters, what to do, and what people did."""
        with desk.reading.reading() as db:
            return _detail(db, about(tenant), _find(db, about(tenant), alert))

    @put(
        "/tenants/{tenant:str}/alerts/{alert:int}/state",
        right="alerts.act",
        operation_id="put_alert_state",
        summary="対応済みにする、未対応に戻す",
        responses=problems.responses(413),
        sync_to_thread=True,
    )
    def handle(request: Request[Any, Any, Any], tenant: Tenant, alert: _Number, data: JSONBody[Standing]) -> Detail:
        """It was dealt with, or it has to be again. The reason is kept with the partner's name."""
        who, scope = viewer(request), about(tenant)
        with desk.database.transaction() as db:
            whole = _find(db, scope, alert)
            alert_work.handle(db, who, whole.line, data.state, utc.text(desk.now()), alert_work.clean(data.reason))
            return _detail(db, scope, _find(db, scope, alert))

    return Router("/", route_handlers=[overview, one, handle])


def _find(db: sa.Connection, scope: Scope, alert: int) -> Whole:
    whole = alert_list.find(db, scope, alert)
    if whole is None:
        raise NotFoundException()
    return whole


def _alerts(db: sa.Connection, scope: Scope, lines: list[Line]) -> list[Alert]:
    names = protection.names(db, scope, {(line.box, line.mac) for line in lines if line.mac})
    return [_alert(line, names.get((line.box, line.mac), "")) for line in lines]


def _alert(line: Line, name: str) -> Alert:
    return Alert(
        id=line.id,
        box=line.box,
        detected_at=moment(line.at),
        received_at=moment(line.received_at),
        stars=line.stars,
        type=line.type,
        reason=line.why,
        title=words.title(line.why),
        device=Device(line.mac, line.device, name),
        function=line.function,
        rule=line.sid,
        outcome=line.done,
        count=line.count,
        state="done" if line.state == "done" else "open",
        seen_at=moment(line.seen_at),
    )


def _detail(db: sa.Connection, scope: Scope, whole: Whole) -> Detail:
    line = whole.line
    told = tell(line.box, events.decode(whole.body))
    notes = alert_list.notes(db, scope, line.id)
    return Detail(
        alert=_alerts(db, scope, [line])[0],
        matters=words.matters(line.why),
        advice=words.advice(line.why),
        facts=[Fact(*fact) for fact in told.facts] if told else [],
        case=cases.case_of(db, scope, line.box, whole.epoch, whole.seq),
        handled_by=whole.handled_by,
        handled_at=moment(whole.handled_at),
        notes=[Note(moment(note.at), note.who, note.kind, note.text) for note in notes],
    )
