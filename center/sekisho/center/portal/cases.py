"""The pages of cases: what happened, how far it has got, who may come and until when, and the record to take away."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.appliance.core import utc
from sekisho.center import devices, tenants
from sekisho.center.cases import desk, evidence, record, steps, vendors
from sekisho.center.cases.desk import Actor, Case
from sekisho.center.cases.steps import Ask, Close, Count, Dispatch, Mark, Move, Note, Refused, Withdraw
from sekisho.center.notify import requests
from sekisho.center.notify.letter import Entry, Letter
from sekisho.center.notify.view import Block, view
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.views.alerts import ALERT

PAGE: Final = 30
_Id = Annotated[str, PathParameter(max_length=16)]
_Asked = Request[Any, Any, Any]


class Line(msgspec.Struct, frozen=True):
    """A case in the list."""

    case: Case
    customer: str
    title: str
    days_left: int
    where: str
    """The device, in the alert's words."""


def router(portal: Portal) -> Router:
    """The routes under /cases."""

    @get("/cases", right="cases.see", sync_to_thread=True)
    def listed(
        request: _Asked,
        closed: Annotated[bool, QueryParameter()] = False,
        everyone: Annotated[bool, QueryParameter()] = False,
        before: Annotated[str, QueryParameter(max_length=80)] = "",
    ) -> Response[str]:
        who = viewer(request)
        many = who.may("customers.see") and (everyone or not who.tenant)
        scope = who.scope if many else who.here
        at, _, last = before.partition("~")
        with portal.reading.reading() as db:
            cases = desk.listed(db, scope, closed=closed, before=(at, last) if last else None, limit=PAGE + 1)
            lines = [_line(db, who, case, portal.now()) for case in cases[:PAGE]]
        more = f"{cases[PAGE - 1].opened_at}~{cases[PAGE - 1].id}" if len(cases) > PAGE else ""
        values: dict[str, Any] = {"lines": lines, "closed": closed, "many": many, "more": more}
        return portal.page(request, "cases/list.html", **values)

    @get("/cases/{case:str}", right="cases.see", sync_to_thread=True)
    def one(request: _Asked, case: _Id) -> Response[str]:
        who, now = viewer(request), portal.now()
        with portal.reading.reading() as db:
            found = _found(db, who, case)
            return portal.page(request, "cases/case.html", **_shown(db, who, found, now))

    @get("/cases/{case:str}/export", right="cases.see", sync_to_thread=True)
    def export(
        request: _Asked, case: _Id, to: Annotated[str, QueryParameter(name="as", max_length=8)] = "page"
    ) -> Response[Any]:
        who, now = viewer(request), portal.now()
        with portal.reading.reading() as db:
            found = _found(db, who, case)
            made = evidence.made(db, found, utc.text(now))
            if to != "json":
                return portal.page(request, "cases/record.html", made=made, **_shown(db, who, found, now))
        body = msgspec.json.format(record.canonical(evidence.sealed(made, portal.proof_key)), indent=1)
        name = f"sekisho-case-{found.id}.json"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        return Response(body, media_type="application/json", headers=headers)

    def form(path: str, right: str, read: Callable[[Case, Fields, sa.Connection], Move]) -> Any:
        """The route of a form that makes one move."""

        @post(f"/cases/{{case:str}}/{path}", right=right, sync_to_thread=True, name=f"case-{path}")
        def act(request: _Asked, case: _Id, data: Fields) -> Response[Any]:
            who, here = viewer(request), f"/cases/{case}"
            try:
                with portal.database.transaction() as db:
                    found = _found(db, who, case)
                    move = read(found, data, db)
                    desk.move(db, who.scope, case, _actor(who), move, portal.now())
                    audit.note(db, who, f"case.{path}", case, tenant=found.tenant)
            except Refused as err:
                return portal.go(here, f"case_refused.{err.code}")
            return portal.go(here, "cases.kept")

        return act

    @post("/cases/{case:str}/call", right="cases.ask", sync_to_thread=True)
    def call(request: _Asked, case: _Id, data: Fields) -> Response[Any]:
        """Somebody of the help desk is to call."""
        who = viewer(request)
        try:
            with portal.database.transaction() as db:
                found = _found(db, who, case)
                contact = _text(data, "contact", steps.WORD_CAP)
                desk.call(db, who.scope, case, _actor(who), contact, portal.now())
                audit.note(db, who, "case.call", case, tenant=found.tenant)
        except Refused as err:
            return portal.go(f"/cases/{case}", f"case_refused.{err.code}")
        return portal.go(f"/cases/{case}", "cases.will_call")

    @post("/cases/{case:str}/called", right="cases.work", sync_to_thread=True)
    def called(request: _Asked, case: _Id, data: Fields) -> Response[Any]:
        """Somebody was called, or an answer was read."""
        who, asked = viewer(request), data.get("answer", "")
        with portal.database.transaction() as db:
            found = _found(db, who, case)
            if asked not in {answer.id for answer in desk.answers(db, found) if not answer.done_at}:
                raise NotFoundException()
            requests.finish(db, asked, who.login, portal.now())
            desk.write(db, who.scope, case, _actor(who), "called", {"answer": asked}, portal.now())
            audit.note(db, who, "case.called", case, tenant=found.tenant)
        return portal.go(f"/cases/{case}", "cases.kept")

    forms = [form(path, right, read) for path, (right, read) in _FORMS.items()]
    return Router("/", route_handlers=[listed, one, export, call, called, *forms])


def _mark(_case: Case, data: Fields, _db: sa.Connection) -> Move:
    try:
        values: dict[str, Any] = {
            "check": data.get("check", ""),
            "done": data.get("done") == "yes",
            "finding": data.get("finding", ""),
        }
        return msgspec.convert(values, Mark)
    except msgspec.ValidationError as err:
        raise Refused("empty") from err


def _dispatch(case: Case, data: Fields, db: sa.Connection) -> Move:
    chosen = next((one for one in vendors.of_tenant(db, case.tenant) if one.id == data.get("vendor")), None)
    if chosen is None:
        raise Refused("no_vendor")
    try:
        visit = dt.date.fromisoformat(data.get("visit", "")[:10])
    except ValueError as err:
        raise Refused("no_day") from err
    return Dispatch(f"{chosen.name} ({chosen.phone})", visit)


def _close(_case: Case, data: Fields, _db: sa.Connection) -> Move:
    try:
        return msgspec.convert({"outcome": data.get("outcome", ""), "why": _text(data, "why", steps.TEXT_CAP)}, Close)
    except msgspec.ValidationError as err:
        raise Refused("empty") from err


def _count(_case: Case, data: Fields, _db: sa.Connection) -> Move:
    if data.get("used") not in ("yes", "no"):
        raise Refused("empty")
    return Count(data["used"] == "yes")


_FORMS: Final[dict[str, tuple[str, Callable[[Case, Fields, sa.Connection], Move]]]] = {
    "check": ("cases.ask", _mark),
    "ask": ("cases.ask", lambda _case, data, _db: Ask(_text(data, "contact", steps.WORD_CAP))),
    "withdraw": ("cases.ask", lambda _case, _data, _db: Withdraw()),
    "note": ("cases.ask", lambda _case, data, _db: Note(_text(data, "text", steps.TEXT_CAP))),
    "dispatch": ("cases.work", _dispatch),
    "count": ("cases.work", _count),
    "close": ("cases.work", _close),
}


def _text(data: Fields, name: str, cap: int) -> str:
    """One paragraph, in characters that every database holds."""
    text = " ".join(data.get(name, "").encode("utf-8", "replace").decode().replace("\x00", " ").split())
    if not text:
        raise Refused("empty")
    if len(text) > cap:
        raise Refused("long")
    return text


def _found(db: sa.Connection, who: Viewer, case: str) -> Case:
    found = desk.load(db, who.scope, case)
    if found is None:
        raise NotFoundException()
    return found


def _actor(who: Viewer) -> Actor:
    return Actor(who.login, who.role)


def _line(db: sa.Connection, who: Viewer, case: Case, now: dt.datetime) -> Line:
    customer = tenants.load(db, case.tenant).name or case.tenant
    block = _block(db, who, case)
    where = block.rows[0].value if block.rows and case.told.device else ""
    return Line(case, customer, block.title, case.window.days_left(now), where)


def _shown(db: sa.Connection, who: Viewer, case: Case, now: dt.datetime) -> dict[str, Any]:
    """What the pages of one case show."""
    tenant = tenants.load(db, case.tenant)
    year, used = desk.uses(db, case.tenant, now.astimezone(tenant.zone).date(), None)
    return {
        "case": case,
        "block": _block(db, who, case),
        "customer": tenant.name or case.tenant,
        "log": record.read(db, case.id, desk.LOG_CAP + 1),
        "alerts": desk.alerts(db, case),
        "alert": _alert_page(db, case),
        "answers": desk.answers(db, case),
        "vendors": vendors.of_tenant(db, case.tenant),
        "checks": steps.CHECKS,
        "demanded": steps.DEMANDED,
        "findings": steps.FINDINGS,
        "outcomes": [one for one in steps.OUTCOMES if one != "helped" or case.work.state == "dispatched"],
        "until": utc.text(case.window.until),
        "days_left": case.window.days_left(now),
        "year": year,
        "used": used,
        "today": now.astimezone(tenant.zone).date().isoformat(),
    }


def _alert_page(db: sa.Connection, case: Case) -> int:
    """The number of the first alert's page; 0 where it is past its time."""
    which = (ALERT.c.tenant == case.tenant, ALERT.c.box == case.box, ALERT.c.epoch == case.epoch)
    return int(db.execute(sa.select(ALERT.c.id).where(*which, ALERT.c.seq == case.seq)).scalar() or 0)


def _block(db: sa.Connection, who: Viewer, case: Case) -> Block:
    """The alert in the words of its mail."""
    known = devices.known(db, case.tenant, case.box, case.told.mac) if case.told.mac else devices.Known()
    entry = Entry(case.told, case.number, case.detected_at, case.last_at, known.name, known.kind)
    letter = Letter(
        kind="alert",
        tenant=case.tenant,
        at=case.opened_at,
        locale=who.locale,
        time_zone=who.zone,
        entries=[entry],
        sites=tenants.sites(db, case.tenant),
    )
    return view(letter).blocks[0]
