"""The frame's own routes: which language, which customer, the end of a session, a sign of life."""

from __future__ import annotations

from typing import Any

from litestar import MediaType, Request, Response, Router, get, post
from litestar.exceptions import NotFoundException

from sekisho.center import customers
from sekisho.center.portal import accounts, audit, rendering, sessions
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import of as who_asks
from sekisho.center.portal.viewer import viewer


@get("/health", media_type=MediaType.TEXT, right="public")
async def _health() -> str:
    return "ok\n"


def router(portal: Portal) -> Router:
    """Routes that belong to no room."""

    @post("/language", right="public", sync_to_thread=True)
    def language(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """The other language, for this account or this browser."""
        chosen = "en" if data.get("to") == "en" else "ja"
        who = who_asks(request)
        if who is not None:
            with portal.database.transaction() as db:
                db.execute(accounts.ACCOUNT.update().where(accounts.ACCOUNT.c.id == who.account).values(locale=chosen))
        response = portal.go(data.get("back", "/"))
        response.set_cookie(rendering.cookie(rendering.LANGUAGE, chosen, 31_536_000))
        return response

    @post("/customers/open", right="customers.see", sync_to_thread=True)
    def open_customer(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Show another customer's pages."""
        who, tenant = viewer(request), data.get("tenant", "")
        if not tenant or not who.scope.holds(tenant):
            raise NotFoundException()
        with portal.database.transaction() as db:
            if not customers.known(db, tenant):
                raise NotFoundException()
            sessions.open_customer(db, who, tenant)
            audit.note(db, who, "customer.open", tenant, tenant=tenant)
        return portal.go("/")

    @post("/logout", right="self", sync_to_thread=True)
    def logout(request: Request[Any, Any, Any]) -> Response[Any]:
        with portal.database.transaction() as db:
            sessions.end(db, viewer(request))
        response = portal.go("/login")
        response.set_cookie(rendering.cookie(rendering.COOKIE, "", 0))
        return response

    return Router("/", route_handlers=[_health, language, open_customer, logout])
