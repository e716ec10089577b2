"""Applying at a chamber, open to everyone; and the list on which the chamber or the centre approves."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.contracts import applying
from sekisho.center.portal import accounts, audit
from sekisho.center.portal.access import mails, onetime
from sekisho.center.portal.accounts import ACCOUNT
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.rights import OF_STAFF
from sekisho.center.portal.viewer import Viewer, viewer
from sekisho.center.web.sources import source_of

_Id = Annotated[str, PathParameter(max_length=64)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/apply/{reseller:str}", right="public", sync_to_thread=True)
    def form(request: Request[Any, Any, Any], reseller: _Id) -> Response[Any]:
        """The form of a chamber."""
        return _form(portal, request, reseller)

    @post("/apply/{reseller:str}", right="public", status_code=200, sync_to_thread=True)
    def send(request: Request[Any, Any, Any], reseller: _Id, data: Fields) -> Response[Any]:
        """Keep what an applicant says, for a person to look at."""
        source = source_of(request.client.host if request.client else "")
        try:
            given = applying.read(data)
        except RejectedInput:
            return _form(portal, request, reseller, wrong="wrong", typed=data)
        try:
            with portal.database.transaction() as db:
                if not applying.reseller_name(db, reseller):
                    raise NotFoundException()
                applying.apply(db, reseller, given, source, portal.now())
        except RejectedInput:
            return _form(portal, request, reseller, wrong="too_many", typed=data)
        return _form(portal, request, reseller, done=True)

    @get("/applications", right="customers.approve", sync_to_thread=True)
    def waiting(request: Request[Any, Any, Any]) -> Response[Any]:
        """Who waits for an answer."""
        who = viewer(request)
        with portal.reading.reading() as db:
            found = applying.waiting(db, _chamber(db, who))
            chambers = applying.resellers(db) if who.may("customers.manage") else []
        return portal.page(request, "apply/waiting.html", found=found, chambers=chambers, origin=portal.origin)

    @post("/applications/{application:str}/approve", right="customers.approve", sync_to_thread=True)
    def approve(request: Request[Any, Any, Any], application: _Id) -> Response[Any]:
        """The contract begins; its first administrator is invited where mails go out."""
        who, now = viewer(request), portal.now()
        with portal.database.transaction() as db:
            made = applying.approve(db, application, _chamber(db, who), now)
            if made is None:
                raise NotFoundException()
            tenant, given = made
            audit.note(db, who, "customer.approve", tenant, tenant=tenant)
            invited = portal.mails and _invite(portal, db, tenant, given)
        return portal.go("/applications", "apply.invited" if invited else "apply.approved")

    @post("/applications/{application:str}/decline", right="customers.approve", sync_to_thread=True)
    def decline(request: Request[Any, Any, Any], application: _Id) -> Response[Any]:
        """Nothing of it is kept."""
        who = viewer(request)
        with portal.database.transaction() as db:
            if not applying.decline(db, application, _chamber(db, who)):
                raise NotFoundException()
            audit.note(db, who, "customer.decline", application, tenant="")
        return portal.go("/applications", "apply.declined")

    @post("/applications/chamber", right="customers.manage", sync_to_thread=True)
    def chamber(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Let customers apply at a chamber."""
        who, reseller = viewer(request), data.get("reseller", "").strip()
        try:
            with portal.database.transaction() as db:
                applying.name_reseller(db, reseller, data.get("name", "").strip())
                audit.note(db, who, "chamber.name", reseller, tenant="")
        except RejectedInput:
            return portal.go("/applications", "apply.bad_chamber")
        return portal.go("/applications", "apply.chamber_saved")

    return Router("/", route_handlers=[form, send, waiting, approve, decline, chamber])


def _form(
    portal: Portal, request: Request[Any, Any, Any], reseller: str, *, wrong: str = "",
    typed: dict[str, str] | None = None, done: bool = False,
) -> Response[Any]:  # fmt: skip
    with portal.reading.reading() as db:
        name = applying.reseller_name(db, reseller)
    if not name:
        raise NotFoundException()
    given = {field: (typed or {}).get(field, "") for field in applying.Form.__struct_fields__}
    values = {"reseller": reseller, "chamber": name, "typed": given, "wrong": wrong, "done": done}
    return portal.page(request, "apply/form.html", status=422 if wrong else 200, **values)


def _chamber(db: sa.Connection, who: Viewer) -> str | None:
    """Whose applications somebody sees; None: everyone's."""
    if who.role in OF_STAFF:
        return None
    return str(db.scalar(sa.select(ACCOUNT.c.reseller).where(ACCOUNT.c.id == who.account)) or "-")


def _invite(portal: Portal, db: sa.Connection, tenant: str, given: applying.Form) -> bool:
    """Whether a mail with a way in is on its way: not where the address has an account already."""
    now = portal.now()
    if accounts.by_login(db, given.mail.lower()) is not None:
        return False
    account = accounts.make(db, given.mail, "admin", name=given.person, tenant=tenant, state="invited", now=now)
    row = db.execute(sa.select(ACCOUNT).where(ACCOUNT.c.id == account)).one()
    mails.post(db, "invite", row, portal.origin + onetime.make(db, account, "invite", now), now)
    return True
