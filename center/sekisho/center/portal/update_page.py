"""The software of a box, for its customer: what is new, what it needs, when it may happen, and what came of it."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center import tenants, updates
from sekisho.center.orders import boxes, wishes
from sekisho.center.orders.wishes import ChangedMeanwhile, Wish
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import Viewer, viewer


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/settings/utm/{box:str}/update", right="settings.see", sync_to_thread=True)
    def show(request: Request[Any, Any, Any], box: FromPath[str]) -> Response[Any]:
        """What is in use, what waits, what there is to choose."""
        who = viewer(request)
        with portal.reading.reading() as db:
            places = boxes.named(db, who.here, who.tenant) if who.tenant else {}
            if box not in places:
                raise NotFoundException()
            found = updates.of_box(db, who.here, box)
            wish = wishes.of_box(db, who.here, box) or Wish(box, who.tenant)
        made = wish.overlay.firmware
        chosen = made if made and found.waiting and made.counter == found.waiting.counter else None
        return portal.page(
            request, "settings/update.html", name=places[box], box=box, found=found, wish=wish, chosen=chosen,
            choices=updates.CHOICES, expired=bool(chosen and chosen.until and chosen.until < portal.now().timestamp()),
        )  # fmt: skip

    @post("/settings/utm/{box:str}/update", right="settings.change", fresh="/settings", sync_to_thread=True)
    def choose(request: Request[Any, Any, Any], box: FromPath[str], data: Fields) -> Response[Any]:
        """When the release that waits may interrupt."""
        who, back = viewer(request), f"/settings/utm/{box}/update"
        with portal.reading.reading() as db:
            if not who.tenant or box not in boxes.named(db, who.here, who.tenant):
                raise NotFoundException()
            found = updates.of_box(db, who.here, box)
            wish = wishes.of_box(db, who.here, box) or Wish(box, who.tenant)
            zone = tenants.load(db, who.tenant).time_zone
        waiting, when = found.waiting, data.get("when", "")
        if waiting is None or not found.can_choose or data.get("counter") != str(waiting.counter):
            return portal.go(back, "update.gone")
        if when == "window" and wish.overlay.restart is None:
            return portal.go(back, "update.no_window")
        try:
            change = wishes.prepare(
                wish, lambda now: updates.choice(waiting, when, portal.now(), zone, _name(who), now)
            )
            if change is not None:
                with portal.database.transaction() as db:
                    wishes.commit(db, change, who.name)
                    audit.note(db, who, "settings.update", f"{box}: {waiting.version} {when}")
        except ChangedMeanwhile:
            return portal.go(back, "update.meanwhile")
        except RejectedInput:
            return portal.go(back, "update.wrong")
        return portal.go(back, "update.saved")

    return Router("/", route_handlers=[show, choose])


def _name(who: Viewer) -> str:
    return who.name or who.login
