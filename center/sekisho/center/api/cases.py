"""/v1/tenants/{tenant}/cases: important alerts that somebody works on, and until when on-site help may be had."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.center.api import problems, words
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Word, mark, place
from sekisho.center.api.words import Texts, moment
from sekisho.center.cases import desk as cases
from sekisho.center.cases.steps import CHECKS, Check, State

_Id = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9-]{1,16}$")]
_Closed = Annotated[bool, QueryParameter(description="Those that are over, instead of those that are not. 終了した件")]


class Case(msgspec.Struct, frozen=True):
    """One case."""

    id: str
    box: str
    reason: str
    """The rubric's code."""
    title: Texts
    device_address: str
    device_mac: str
    state: State
    detected_at: dt.datetime | None
    opened_at: dt.datetime | None
    last_at: dt.datetime | None
    alerts: int
    on_site_until: dt.datetime
    """駆け付け is to be had until then (30 days)."""
    checks: list[Check]
    """What was done of isolated, ours, updated, scanned."""
    finding: str
    visit_on: str
    used: bool | None
    """Whether a visit counts as a use; null: nobody has said."""
    outcome: str


class Cases(msgspec.Struct, frozen=True):
    """A page of cases, the newest first."""

    items: list[Case]
    next: str | None


class _Place(msgspec.Struct, array_like=True, frozen=True):
    opened_at: Word
    case: Word


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/cases",
        right="cases.see",
        operation_id="list_cases",
        summary="重要アラートの対応状況",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, closed: _Closed = False, limit: Limit = LIMIT, cursor: Cursor = "") -> Cases:
        """A customer's cases."""
        at = place(cursor, _Place)
        before = (at.opened_at, at.case) if at else None
        with desk.reading.reading() as db:
            found = cases.listed(db, about(tenant), closed=closed, before=before, limit=limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        return Cases([_case(one) for one in found[:limit]], mark(_Place(last.opened_at, last.id)) if last else None)

    @get(
        "/tenants/{tenant:str}/cases/{case:str}",
        right="cases.see",
        operation_id="get_case",
        summary="重要アラートの対応状況（1件）",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def one(tenant: Tenant, case: _Id) -> Case:
        """One case."""
        with desk.reading.reading() as db:
            found = cases.load(db, about(tenant), case)
        if found is None:
            raise NotFoundException()
        return _case(found)

    return Router("/", route_handlers=[overview, one])


def _case(of: cases.Case) -> Case:
    return Case(
        id=of.id,
        box=of.box,
        reason=of.why,
        title=words.title(of.why),
        device_address=of.told.device,
        device_mac=of.told.mac,
        state=of.work.state,
        detected_at=moment(of.detected_at),
        opened_at=moment(of.opened_at),
        last_at=moment(of.last_at),
        alerts=of.number,
        on_site_until=of.window.until.astimezone(dt.UTC),
        checks=[check for check in CHECKS if check in of.work.checks],
        finding=of.work.finding,
        visit_on=of.work.visit,
        used=of.work.used,
        outcome=of.work.outcome,
    )
