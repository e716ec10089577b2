"""Notices: what the centre tells its customers, what each UTM says of itself, and where the centre writes them."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from contextlib import suppress
from typing import Any, Final

from litestar import Request, Response, Router, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath

from sekisho.appliance.core import utc
from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.appliance.core.names import is_name
from sekisho.center import bulletins
from sekisho.center.bulletins import Bulletin
from sekisho.center.portal import alert_view, audit
from sekisho.center.portal.forms import Fields
from sekisho.center.portal.rendering import Portal
from sekisho.center.portal.viewer import viewer
from sekisho.center.views import alert_list
from sekisho.center.views.alert_list import Wanted

BOXES: Final = 10
BOX_WINDOW: Final = 2000
"""Alerts that are looked through for them."""
POSTED: Final = 100


def router(portal: Portal) -> Router:
    """The routes."""

    @get("/notices", right="notices.see", sync_to_thread=True)
    def overview(request: Request[Any, Any, Any]) -> Response[Any]:
        """What is told now; who has opened this page has read it."""
        who, now = viewer(request), utc.text(portal.now())
        with portal.reading.reading() as db:
            found = bulletins.of_tenant(db, who.tenant, now)
            fresh = bulletins.unread(db, who.account, found)
            lines = (
                alert_list.listed(db, who.here, Wanted(function="box"), BOXES, BOX_WINDOW).lines if who.tenant else []
            )
            entries = alert_view.entries(db, lines, who.locale)
        if fresh:
            with suppress(DeviceFault), portal.database.transaction() as db:
                bulletins.mark_read(db, who.account, sorted(fresh))
        return portal.page(request, "notices/list.html", found=found, fresh=fresh, entries=entries)

    @get("/notices/post", right="notices.post", sync_to_thread=True)
    def posted(request: Request[Any, Any, Any]) -> Response[Any]:
        """What was posted, and the form for another."""
        return _form(portal, request, {}, "")

    @post("/notices/post", right="notices.post", status_code=200, sync_to_thread=True)
    def publish(request: Request[Any, Any, Any], data: Fields) -> Response[Any]:
        """Post one."""
        who = viewer(request)
        made = _read(data, who.zone, utc.text(portal.now()), who.name)
        if made is None:
            return _form(portal, request, data, "wrong_days", status=400)
        try:
            with portal.database.transaction() as db:
                number = bulletins.post(db, made)
                audit.note(db, who, "notice.post", f"{number} {made.reseller}".strip(), tenant=made.tenant)
        except RejectedInput:
            return _form(portal, request, data, "wrong_text", status=400)
        return portal.go("/notices/post", "notices.said_posted")

    @post("/notices/{bulletin:int}/withdraw", right="notices.post", sync_to_thread=True)
    def withdraw(request: Request[Any, Any, Any], bulletin: FromPath[int]) -> Response[Any]:
        """Take one back."""
        with portal.database.transaction() as db:
            if not 0 < bulletin < 1 << 62 or not bulletins.withdraw(db, bulletin):
                raise NotFoundException()
            audit.note(db, viewer(request), "notice.withdraw", str(bulletin), tenant="")
        return portal.go("/notices/post", "notices.said_withdrawn")

    return Router("/", route_handlers=[overview, posted, publish, withdraw])


def _form(
    portal: Portal, request: Request[Any, Any, Any], entered: dict[str, str], wrong: str, *, status: int = 200
) -> Response[Any]:
    with portal.reading.reading() as db:
        found = bulletins.every(db, POSTED)
    today = portal.now().astimezone(zoneinfo.ZoneInfo(viewer(request).zone)).date()
    empty = {name: "" for name in ("whom", "title_ja", "title_en", "body_ja", "body_en")}
    days = {"since": str(today), "until": str(today + dt.timedelta(days=30)), "audience": "all"}
    return portal.page(
        request,
        "notices/post.html",
        status=status,
        found=found,
        entered={**empty, **days, **entered},
        wrong=wrong,
        audiences=bulletins.AUDIENCES,
        now=utc.text(portal.now()),
        caps=(bulletins.TITLE_CAP, bulletins.BODY_CAP),
    )


def _read(data: dict[str, str], zone: str, now: str, name: str) -> Bulletin | None:
    """What the form says; None where its days or whom it is for are none."""
    audience, whom = data.get("audience", ""), data.get("whom", "").strip()
    try:
        since, until = (dt.date.fromisoformat(data.get(key, "")) for key in ("since", "until"))
        begins, ends = _begins(since, zone), _begins(until + dt.timedelta(days=1), zone)
    except (ValueError, OverflowError):
        return None
    if not 2000 <= since.year <= until.year < 2200 or audience not in bulletins.AUDIENCES:
        return None
    if audience != "all" and not is_name(whom):
        return None
    texts = {key: data.get(key, "").replace("\r\n", "\n").strip() for key in ("title_ja", "title_en")}
    texts |= {key: data.get(key, "").replace("\r\n", "\n").strip() for key in ("body_ja", "body_en")}
    times = {"since": begins, "until": ends, "posted_at": now}
    whose = {key: whom if audience == key else "" for key in ("tenant", "reseller")}
    return Bulletin(id=0, posted_by=name, **whose, **texts, **times)


def _begins(day: dt.date, zone: str) -> str:
    return utc.text(dt.datetime.combine(day, dt.time(), zoneinfo.ZoneInfo(zone)).astimezone(dt.UTC))
