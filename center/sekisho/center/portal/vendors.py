"""The page of the companies that come: customers read it, the centre and the chambers keep it."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated, Any

import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.cases import vendors
from sekisho.center.cases.vendors import Vendor
from sekisho.center.portal import accounts, audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer

_Asked = Request[Any, Any, Any]


def router(portal: Portal) -> Router:
    """The routes under /vendors."""

    @get("/vendors", right="cases.see", sync_to_thread=True)
    def listed(
        request: _Asked,
        area: Annotated[str, QueryParameter(max_length=80)] = "",
        change: Annotated[str, QueryParameter(max_length=16)] = "",
    ) -> Response[str]:
        who = viewer(request)
        with portal.reading.reading() as db:
            every = vendors.seen_by(db, who.here if who.tenant else who.scope, _list_of(db, who))
            mine = {one.id for one in every if _keeps(db, who, one)}
        shown = [one for one in every if area in ("", one.area)]
        values: dict[str, Any] = {
            "areas": sorted({one.area for one in every}),
            "area": area,
            "groups": [(name, list(group)) for name, group in groupby(shown, key=lambda one: one.area)],
            "mine": mine,
            "changing": next((one for one in every if one.id == change and one.id in mine), None),
        }
        return portal.page(request, "cases/vendors.html", **values)

    @post("/vendors", right="cases.work", sync_to_thread=True)
    def save(request: _Asked, data: Fields) -> Response[Any]:
        """Enter a vendor, or change one."""
        who = viewer(request)
        words = {name: " ".join(data.get(name, "").split()) for name in ("area", "name", "phone", "hours")}
        try:
            with portal.database.transaction() as db:
                id_ = data.get("vendor", "")
                before = _mine(db, who, id_) if id_ else None
                reseller = before.reseller if before else _list_of(db, who)
                if who.role == "reseller" and not reseller:
                    raise RejectedInput("The account belongs to no chamber.")
                made = vendors.save(db, Vendor(id_, reseller, **words))
                audit.note(db, who, "vendor.save", made)
        except RejectedInput:
            return portal.go("/vendors", "vendors.refused")
        return portal.go("/vendors", "vendors.kept")

    @post("/vendors/remove", right="cases.work", sync_to_thread=True)
    def remove(request: _Asked, data: Fields) -> Response[Any]:
        who = viewer(request)
        with portal.database.transaction() as db:
            gone = _mine(db, who, data.get("vendor", ""))
            vendors.remove(db, gone.id)
            audit.note(db, who, "vendor.remove", f"{gone.id} {gone.name}")
        return portal.go("/vendors", "vendors.removed")

    return Router("/", route_handlers=[listed, save, remove])


def _list_of(db: sa.Connection, who: Viewer) -> str:
    """Whose list this person keeps; empty: the centre's own."""
    if who.role != "reseller":
        return ""
    query = sa.select(accounts.ACCOUNT.c.reseller).where(accounts.ACCOUNT.c.id == who.account)
    return str(db.execute(query).scalar_one())


def _keeps(db: sa.Connection, who: Viewer, vendor: Vendor) -> bool:
    return who.may("cases.work") and (who.role != "reseller" or vendor.reseller == _list_of(db, who) != "")


def _mine(db: sa.Connection, who: Viewer, id_: str) -> Vendor:
    found = vendors.load(db, id_[:16])
    if found is None or not _keeps(db, who, found):
        raise NotFoundException()
    return found
