"""Jobs, for the centre's staff: what operators signed, how far each box has got, and who signed it.

The portal holds no operator's key: it takes what was signed elsewhere, and stops what has not left. What a box has
got is taken back by a job that operators sign, which the page says.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import QueryParameter

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.jobs import book
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer

BOXES: Final = 500
_Job = Annotated[str, QueryParameter(max_length=26)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/fleet/jobs", right="fleet.see", sync_to_thread=True)
    def jobs(request: Request[Any, Any, Any], job: _Job = "") -> Response[Any]:
        """The newest, or one and its boxes."""
        if job:
            return _one(portal, request, job)
        return _all(portal, request)

    @post("/fleet/jobs", right="fleet.act", fresh="/fleet/jobs", sync_to_thread=True)
    def submit(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Take what operators signed off line."""
        who, text = viewer(request), data.get("envelope", "")
        try:
            with portal.database.transaction() as db:
                made = book.submit(db, text.strip().encode(), by=who.login)
                audit.note(db, who, "job.submit", f"{made.kind} {made.id} ({len(made.boxes)})", tenant="")
        except RejectedInput as err:
            return _all(portal, request, wrong=str(err))
        return portal.go(f"/fleet/jobs?job={made.id}", "jobs.submitted")

    @post("/fleet/jobs/stop", right="fleet.act", fresh="/fleet/jobs", sync_to_thread=True)
    def stop(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Send it no more."""
        who, ident = viewer(request), data.get("job", "")[:26]
        with portal.database.transaction() as db:
            found = book.find(db, ident)
            if found is None:
                raise NotFoundException
            left = book.cancel(db, ident)
            audit.note(db, who, "job.stop", f"{found.kind} {ident} ({len(left)})", tenant="")
        return portal.go(f"/fleet/jobs?job={ident}", "jobs.stopped")

    return Router("/", route_handlers=[jobs, submit, stop])


def _all(portal: Portal, request: Request[Any, Any, Any], wrong: str = "") -> Response[Any]:
    with portal.reading.reading() as db:
        found = book.jobs(db)
    status = 400 if wrong else 200
    return portal.page(request, "fleet/jobs.html", status=status, found=found, wrong=wrong)


def _one(portal: Portal, request: Request[Any, Any, Any], ident: str) -> Response[Any]:
    with portal.reading.reading() as db:
        kept, states = book.find(db, ident), list(book.states(db, ident).values())
    if kept is None:
        raise NotFoundException
    counts = Counter(one.state for one in states)
    may_have = [one.box for one in states if not one.over and one.ver + len(one.at)]
    return portal.page(
        request, "fleet/job.html", job=kept, counts=counts, found=states[:BOXES], more=max(0, len(states) - BOXES),
        left=may_have,
    )  # fmt: skip
