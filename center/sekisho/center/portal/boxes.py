"""Boxes join and leave: codes for new ones, the certificates each has had, taking them back.

A code is shown on the page that made it and nowhere again: what is stored is its digest.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Final

import segno
import sqlalchemy as sa
from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter, QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.center import belonging, tenants
from sekisho.center.ca import coding, lookup, registry, revoking
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer

VALID: Final = dt.timedelta(days=7)
OPEN_CAP: Final = 20
"""Codes of one customer that wait to be used."""
PROPOSALS: Final = 200
REASON_CAP: Final = 200
_BoxName = Annotated[str, PathParameter(max_length=64)]
_Before = Annotated[str, QueryParameter(max_length=40)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/boxes/enrol", right="boxes.enrol", sync_to_thread=True)
    def enrol(request: Request[Any, Any, Any], before: _Before = "") -> Response[Any]:
        """The form for a new code, the boxes there are, the codes made before."""
        if not viewer(request).tenant:
            return portal.go("/customers", "boxes.choose")
        return _page(portal, request, before=before)

    @post("/boxes/enrol", right="boxes.enrol", status_code=200, sync_to_thread=True)
    def make(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """A code for the box that is named; it is on this answer only."""
        who, box, site = viewer(request), data.get("box", "").strip(), data.get("site", "").strip()
        if not who.tenant:
            return portal.go("/customers", "boxes.choose")
        now = portal.now()
        try:
            with portal.database.transaction() as db:
                if wrong := _wrong(db, who, box, site, now):
                    return _page(portal, request, status=400, wrong=wrong, box=box, site=site)
                ca, services = Path(portal.settings.broker.ca), portal.settings.services
                made = coding.make(db, ca, box, who.tenant, who.login, now, VALID, services)
                if site:
                    tenants.name_site(db, who.tenant, box, site)
                audit.note(db, who, "box.code", box)
        except RejectedInput:
            return _page(portal, request, status=400, wrong="refused", box=box, site=site)
        qr = segno.make(made.text, error="m", micro=False).svg_data_uri(scale=6, border=4, light="#fff", dark="#000")
        return portal.page(
            request, "boxes/code.html", code=made.text, qr=qr, box=box, until=(now + VALID).isoformat(), site=site
        )

    @get("/boxes/{box:str}/certificates", right="boxes.enrol", sync_to_thread=True)
    def certificates(request: Request[Any, Any, Any], box: _BoxName) -> Response[Any]:
        """What this box was given, renewed, and what was taken back."""
        who = viewer(request)
        with portal.reading.reading() as db:
            found = lookup.box(db, who.scope, box)
            if found is None:
                raise NotFoundException()
            given = lookup.certificates(db, who.scope, box, portal.now())
        return portal.page(request, "boxes/certificates.html", box=found, certificates=given)

    @post("/boxes/{box:str}/revoke", right="fleet.act", fresh="/fleet", sync_to_thread=True)
    def revoke(request: Request[Any, Any, Any], box: _BoxName, data: Fields) -> Response[Any]:
        """Take the box's certificates and codes back; nothing of it is believed from now on."""
        who, why = viewer(request), data.get("why", "").strip()[:REASON_CAP]
        if not why:
            return portal.go(f"/boxes/{box}/certificates", "boxes.needs_reason")
        with portal.database.transaction() as db:
            found = lookup.box(db, who.scope, box)
            if found is None:
                raise NotFoundException()
            revoking.revoke(db, box, who.login, why, portal.now())
            audit.note(db, who, "box.revoke", f"{box}: {why}", tenant=found.tenant)
        return portal.go(f"/boxes/{box}/certificates", "boxes.revoked")

    return Router("/", route_handlers=[enrol, make, certificates, revoke])


def _wrong(db: sa.Connection, who: Viewer, box: str, site: str, now: dt.datetime) -> str:
    """Why there is no code for this: the key of a sentence, empty where there is one."""
    if not is_name(box):
        return "bad_name"
    if len(site) > tenants.NAME_CAP or not site.isprintable():
        return "bad_site"
    known = registry.identities(db, [box]).get(box)
    if known is not None and known.tenant != who.tenant:
        return "taken"
    if belonging.heard_for(db, box) not in ("", who.tenant):  # it came with a certificate made elsewhere
        return "taken"
    if lookup.open_codes(db, who.scope, who.tenant, now) >= OPEN_CAP:
        return "too_many"
    return ""


def _page(
    portal: Portal, request: Request[Any, Any, Any], *, status: int = 200, wrong: str = "", before: str = "",
    box: str = "", site: str = "",
) -> Response[Any]:  # fmt: skip
    who = viewer(request)
    with portal.reading.reading() as db:
        values = {
            "boxes": lookup.boxes(db, who.scope, who.tenant),
            "sites": tenants.sites(db, who.tenant),
            "codes": lookup.codes(db, who.scope, who.tenant, portal.now(), before),
            "box": box or _proposed(db, who.tenant),
        }
    return portal.page(
        request, "boxes/enrol.html", status=status, wrong=wrong, site=site, page=lookup.PAGE, first=not before, **values
    )


def _proposed(db: sa.Connection, tenant: str) -> str:
    """A name that no box has."""
    names = [f"{tenant[:56]}-{number}" for number in range(1, PROPOSALS)]
    taken = registry.identities(db, names)
    return next((name for name in names if name not in taken), "")
