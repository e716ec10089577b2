"""The fleet's pages for the centre's staff: boxes by state, what is noisy across them, certificates by any clue.

The kill switch is here, too: a rule that hurts is switched off on all boxes of all customers (`center.rules`).
"""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Request, Response, Router, get, post
from litestar.params import QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import fleet, roster, rulesets
from sekisho.center.ca import lookup
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.rules import switching

DAYS = (2, 7)
_Text = Annotated[str, QueryParameter(max_length=lookup.CLUE_CAP)]
_Days = Annotated[int, QueryParameter(ge=1, le=366)]
_Name = Annotated[str, QueryParameter(max_length=64)]
_Mark = Annotated[str, QueryParameter(max_length=70)]
_Rule = Annotated[str, QueryParameter(max_length=128)]


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
            off = {one.rule for one in switching.listed(db)}
        return portal.page(request, "fleet/noise.html", found=found, days=span, spans=DAYS, off=off)

    @get("/fleet/rules", right="fleet.see", sync_to_thread=True)
    def rules(request: Request[Any, Any, Any], rule: _Rule = "") -> Response[Any]:
        """What is switched off, and the form that switches off."""
        return _rules(portal, request, rule)

    @post("/fleet/rules/off", right="fleet.act", fresh="/fleet/rules", sync_to_thread=True)
    def off(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        who, rule, why = viewer(request), data.get("rule", ""), data.get("why", "")
        try:
            with portal.database.transaction() as db:
                kind, name = switching.named(rule)
                new = switching.off(db, rule, who.login, why)
                if new:
                    audit.note(db, who, "rule.off", f"{kind} {name}: {why}", tenant="")
        except RejectedInput:
            return _rules(portal, request, rule, why, "rule_wrong")
        return portal.go("/fleet/rules", "fleet.rule_done" if new else "fleet.rule_already")

    @post("/fleet/rules/on", right="fleet.act", fresh="/fleet/rules", sync_to_thread=True)
    def on(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        who, rule = viewer(request), data.get("rule", "")
        try:
            with portal.database.transaction() as db:
                kind, name = switching.named(rule)
                gone = switching.on(db, rule)
                if gone:
                    audit.note(db, who, "rule.on", f"{kind} {name}", tenant="")
        except RejectedInput:
            return _rules(portal, request, rule, "", "rule_not_off")
        return portal.go("/fleet/rules", "fleet.rule_again" if gone else "fleet.rule_not_off")

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

    return Router("/", route_handlers=[overview, noise, rules, off, on, versions, sets, certificates])


def _rules(portal: Portal, request: Request[Any, Any, Any], rule: str, why: str = "", wrong: str = "") -> Response[Any]:
    with portal.reading.reading() as db:
        found = switching.listed(db)
    status = 400 if wrong else 200
    return portal.page(request, "fleet/rules.html", status=status, found=found, rule=rule, why=why, wrong=wrong)
