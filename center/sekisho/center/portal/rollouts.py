"""Rollouts, for the centre's staff: how far each is, what halted it, and the buttons that pause, resume and stop it.

None begins here: its jobs are signed by operators on their own machine (`sekisho center rollout`).
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, QueryParameter

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.portal import audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.rollout import book, machine, turn
from sekisho.center.rollout.sending import JOBS

PAGE: Final = 100
GROUPS: Final = {
    "good": ("good",), "under_way": ("trying", "going"),
    "open": ("gone", "choosing", "waiting", "unasked", "passed"), "bad": machine.BAD,
}  # fmt: skip
"""What is one colour of a ring's bar."""
_Name = Annotated[str, QueryParameter(max_length=64)]


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/fleet/rollouts", right="fleet.see", sync_to_thread=True)
    def overview(request: Request[Any, Any, Any]) -> Response[Any]:
        """All of them, the newest first."""
        with portal.reading.reading() as db:
            found = book.listed(db)
        return portal.page(request, "rollouts/list.html", found=found)

    @get("/fleet/rollouts/{rollout:str}", right="fleet.see", sync_to_thread=True)
    def one(request: Request[Any, Any, Any], rollout: FromPath[str], show: _Name = "", after: _Name = "") -> Any:
        """Its rings, its boxes, what happened."""
        with portal.reading.reading() as db:
            try:
                rings = book.rings(db, rollout)
                totals = {how: sum(ring.counts[how] for ring in rings) for how in book.STANDINGS}
                wanted = show if show in book.STANDINGS else _first(totals)
                found = book.show(db, rollout, JOBS, how=wanted, after=after, limit=PAGE + 1)
            except RejectedInput as err:
                raise NotFoundException() from err
        more = found.boxes[PAGE - 1].box if len(found.boxes) > PAGE else ""
        return portal.page(
            request, "rollouts/one.html", found=found, wanted=wanted, standings=book.STANDINGS, groups=GROUPS,
            boxes=found.boxes[:PAGE], more=more, utc=utc.of_unix, able=_able(found), totals=totals,
        )  # fmt: skip

    @post("/fleet/rollouts/{rollout:str}", right="fleet.act", fresh="/fleet/rollouts", sync_to_thread=True)
    def say(request: Request[Any, Any, Any], rollout: FromPath[str], data: Fields) -> Response[Any]:
        """Pause, resume, halt or cancel it."""
        who, what = viewer(request), data.get("what", "")
        wish = next((one for one in turn.WISHES if one == what), None)
        if wish is None:
            raise NotFoundException()
        with portal.database.transaction() as db:
            try:
                turn.load(db, rollout)
            except RejectedInput as err:
                raise NotFoundException() from err
            try:
                turn.say(db, JOBS, rollout, wish, who.login, portal.now().timestamp())
            except RejectedInput:
                return portal.go(f"/fleet/rollouts/{rollout}", "rollouts.cannot")
            audit.note(db, who, f"rollout.{wish}", rollout, tenant="")
        return portal.go(f"/fleet/rollouts/{rollout}", f"rollouts.did_{wish}")

    return Router("/", route_handlers=[overview, one, say])


def _first(totals: dict[machine.Standing, int]) -> str:
    """The gravest standing any box has; else how most are."""
    for how in ("silent", "bad", "worse", "trying"):
        if totals[how]:
            return how
    return max(book.STANDINGS, key=lambda how: totals[how])


def _able(found: book.Shown) -> list[turn.Wish]:
    """What can be said of it now."""
    match found.listed.rollout.state:
        case "running":
            return ["pause", "halt", "cancel"]
        case "paused":
            return ["resume", "halt", "cancel"]
        case "halted":
            return ["resume", "cancel"]
        case _:
            return []
