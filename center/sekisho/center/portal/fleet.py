"""The fleet's pages for the centre's staff: boxes by state, what is noisy across them, certificates by any clue."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, get
from litestar.params import QueryParameter

from sekisho.center import fleet, roster, rulesets
from sekisho.center.ca import lookup
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer

DAYS = (2, 7)
_Text = Annotated[str, QueryParameter(max_length=lookup.CLUE_CAP)]
_Days = Annotated[int, QueryParameter(ge=1, le=366)]
_Name = Annotated[str, QueryParameter(max_length=64)]
_Mark = Annotated[str, QueryParameter(max_length=70)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/fleet", right="fleet.see", sync_to_thread=True)
    def overview(request: Request[Any, Any, Any], show: _Name = "", reseller: _Name = "", after: _Name = "") -> Any:
        """How many boxes are in each state, and those of one."""
        scope = viewer(request).scope
        wanted: fleet.State = next((state for state in fleet.STATES if state == show), "offline")
        with portal.reading.reading() as db:
            counts = fleet.counted(db, scope, reseller)
            found = fleet.listed(db, scope, wanted, reseller, after)
            chambers = roster.resellers(db, scope)
        last = found[fleet.PAGE - 1].box if len(found) > fleet.PAGE else ""
        further = "/fleet?" + urlencode({"show": wanted, "reseller": reseller, "after": last}) if last else ""
        return portal.page(
            request,
            "fleet/states.html",
            counts=counts,
            wanted=wanted,
            found=found[: fleet.PAGE],
            chambers=chambers,
            reseller=reseller,
            further=further,
        )

    @get("/fleet/noise", right="fleet.see", sync_to_thread=True)
    def noise(request: Request[Any, Any, Any], days: _Days = DAYS[0]) -> Response[Any]:
        """Which rules and functions report most."""
        span = days if days in DAYS else DAYS[0]
        with portal.reading.reading() as db:
            found = fleet.noisy(db, span, portal.now().date())
        return portal.page(request, "fleet/noise.html", found=found, days=span, spans=DAYS)

    @get("/fleet/versions", right="fleet.see", sync_to_thread=True)
    def versions(request: Request[Any, Any, Any], after: _Name = "") -> Response[Any]:
        """Which boxes are behind."""
        scope = viewer(request).scope
        with portal.reading.reading() as db:
            known = fleet.versions(db, scope)
            newest = known[0].version if known else ""
            found = fleet.behind(db, scope, newest, after) if newest else []
        last = found[fleet.PAGE - 1][0].box if len(found) > fleet.PAGE else ""
        further = "/fleet/versions?" + urlencode({"after": last}) if last else ""
        shown = found[: fleet.PAGE]
        return portal.page(request, "fleet/versions.html", versions=known, found=shown, further=further)

    @get("/fleet/sets", right="fleet.see", sync_to_thread=True)
    def sets(request: Request[Any, Any, Any], after: _Mark = "") -> Response[Any]:
        """Which boxes' rules need a look."""
        scope, now = viewer(request).scope, portal.now()
        with portal.reading.reading() as db:
            found = rulesets.troubled(db, scope, now, after)
            values: dict[str, Any] = {
                "counts": rulesets.counted(db, scope, now),
                "newest": rulesets.newest(db),
                "running": rulesets.running(db, scope),
                "muted": rulesets.muted(db, scope),
            }
        last = rulesets.mark(found[fleet.PAGE - 1]) if len(found) > fleet.PAGE else ""
        further = "/fleet/sets?" + urlencode({"after": last}) if last else ""
        return portal.page(request, "fleet/sets.html", found=found[: fleet.PAGE], further=further, **values)

    @get("/fleet/certificates", right="fleet.see", sync_to_thread=True)
    def certificates(request: Request[Any, Any, Any], q: _Text = "") -> Response[Any]:
        """Whose certificate this is."""
        with portal.reading.reading() as db:
            found = lookup.search(db, viewer(request).scope, q, portal.now())
        return portal.page(request, "fleet/certificates.html", q=q, found=found)

    return Router("/", route_handlers=[overview, noise, versions, sets, certificates])
