"""Who did what, newest first: a customer's own for its administrator, everything for operators."""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get
from litestar.params import QueryParameter

from sekisho.center.portal import audit
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.portal.words import catalogue

PAGE: Final = 50


def router(portal: Portal) -> Router:
    """/audit."""

    @get("/audit", right="audit.see", sync_to_thread=True)
    def show(
        request: Request[Any, Any, Any],
        before: Annotated[int, QueryParameter(ge=0, le=2**62)] = 0,
        every: Annotated[bool, QueryParameter(name="all")] = False,
    ) -> Response[str]:
        who = viewer(request)
        scope = who.here if who.tenant and not every else who.scope
        with portal.reading.reading() as db:
            rows = audit.of(db, scope, before=before, limit=PAGE + 1)
        return portal.page(
            request,
            "access/audit.html",
            rows=[(row, _key(row.action)) for row in rows[:PAGE]],
            older=rows[PAGE - 1].id if len(rows) > PAGE else 0,
            every=scope.tenants is None,
            many=who.scope.tenants is None,
        )

    return Router("/", route_handlers=[show])


def _key(action: str) -> str:
    """The sentence of an action, or of its kind; empty where no room has written one: it is shown as it is."""
    exact, kind = action.replace(".", "_"), action.partition(".")[0] + "_any"
    return next((key for key in (exact, kind) if catalogue().has("audited", key)), "")
