"""The customers somebody looks after: the list, and what the centre sets for each."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args
from urllib.parse import urlencode

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.center import customers, roster, tenants
from sekisho.center.customers import CUSTOMER
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.tenants import Tenant

_Clue = Annotated[str, QueryParameter(max_length=80)]
_Name = Annotated[str, QueryParameter(max_length=64)]
_Path = Annotated[str, PathParameter(max_length=64)]
_SETTINGS: Final[tuple[str, ...]] = ("name", "locale", "time_zone")


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/customers", right="customers.see", sync_to_thread=True)
    def overview(
        request: Request[Any, Any, Any], q: _Clue = "", contract: _Name = "", reseller: _Name = "", after: _Name = ""
    ) -> Response[Any]:
        """A page of the viewer's customers."""
        who = viewer(request)
        wanted = roster.Wanted(q.strip(), contract if contract in get_args(customers.State) else "", reseller, after)
        with portal.reading.reading() as db:
            found = roster.listed(db, who.scope, wanted)
            chambers = roster.resellers(db, who.scope) if who.may("customers.manage") else []
        kept = {"q": wanted.clue, "contract": wanted.state, "reseller": reseller}
        further = found[roster.PAGE - 1].tenant if len(found) > roster.PAGE else ""
        return portal.page(
            request,
            "customers/list.html",
            found=found[: roster.PAGE],
            wanted=wanted,
            chambers=chambers,
            states=get_args(customers.State),
            further="/customers?" + urlencode({**kept, "after": further}) if further else "",
        )

    @get("/customers/{tenant:str}", right="customers.manage", sync_to_thread=True)
    def one(request: Request[Any, Any, Any], tenant: _Path) -> Response[Any]:
        """What the centre has set for a customer."""
        with portal.reading.reading() as db:
            found = roster.one(db, viewer(request).scope, tenant)
            if found is None:
                raise NotFoundException()
            settings = tenants.load(db, tenant)
        return portal.page(request, "customers/one.html", found=found, settings=settings, wrong="")

    @post("/customers/new", right="customers.manage", status_code=200, sync_to_thread=True)
    def add(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Enter a customer whose contract was made outside of the portal."""
        who, tenant = viewer(request), data.get("tenant", "").strip()
        reseller = data.get("reseller", "").strip()
        if not is_name(tenant) or (reseller and not is_name(reseller)):
            return portal.go("/customers", "customers.bad_name")
        try:
            with portal.database.transaction() as db:
                if roster.one(db, who.scope, tenant) is not None:
                    return portal.go("/customers", "customers.taken")
                customers.add(db, tenant, reseller, at=utc.text(portal.now()))
                tenants.save(db, tenants.changed(Tenant(tenant), {"name": data.get("name", "").strip()}))
                audit.note(db, who, "customer.add", f"{tenant} {reseller}".strip(), tenant=tenant)
        except RejectedInput:
            return portal.go("/customers", "customers.bad_name")
        return portal.go(f"/customers/{tenant}", "customers.added")

    @post("/customers/{tenant:str}", right="customers.manage", status_code=200, sync_to_thread=True)
    def change(request: Request[Any, Any, Any], tenant: _Path, data: Fields) -> Response[Any]:
        """Its name, its chamber, its language and clock."""
        who, reseller = viewer(request), data.get("reseller", "").strip()
        values = {key: data[key].strip() for key in _SETTINGS if key in data}
        with portal.reading.reading() as db:
            found = roster.one(db, who.scope, tenant)
            if found is None:
                raise NotFoundException()
            before = tenants.load(db, tenant)
        try:
            if reseller and not is_name(reseller):
                raise RejectedInput("A chamber's identifier is a name.")
            with portal.database.transaction() as db:
                tenants.save(db, tenants.changed(tenants.load(db, tenant), values))
                db.execute(CUSTOMER.update().where(CUSTOMER.c.tenant == tenant).values(reseller=reseller))
                audit.note(db, who, "customer.change", f"{reseller} {values}", tenant=tenant)
        except RejectedInput:
            return portal.page(
                request, "customers/one.html", status=400, found=found, settings=before, wrong="bad_value"
            )
        return portal.go(f"/customers/{tenant}", "customers.changed")

    return Router("/", route_handlers=[overview, one, add, change])
