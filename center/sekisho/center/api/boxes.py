"""/v1/tenants/{tenant}/boxes: the customer's UTMs, whether they are heard and whether they look at traffic."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from litestar import Router, get

from sekisho.center import tenants
from sekisho.center.api import problems
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Word, mark, place
from sekisho.center.api.words import moment
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.streams import STREAM
from sekisho.center.views import alert_list


class Box(msgspec.Struct, frozen=True):
    """One UTM."""

    box: str
    site: str
    """What its people call the place."""
    certificate: Literal["expected", "active", "revoked"]
    """expected: it has a code and has not joined yet."""
    online: bool
    changed_at: dt.datetime | None
    """Since when it is online, or not."""
    heard_at: dt.datetime | None
    inspecting: bool
    """False: some part of it said last that it does not look at traffic."""
    not_inspecting_since: dt.datetime | None


class Boxes(msgspec.Struct, frozen=True):
    """A page of UTMs, by their names."""

    items: list[Box]
    next: str | None


class _Place(msgspec.Struct, array_like=True, frozen=True):
    box: Word


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/boxes",
        right="health.see",
        operation_id="list_boxes",
        summary="UTMの状態",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, limit: Limit = LIMIT, cursor: Cursor = "") -> Boxes:
        """A customer's UTMs."""
        scope, after = about(tenant), place(cursor, _Place)
        with desk.reading.reading() as db:
            found = listed(db, scope, after.box if after else "", limit + 1)
            heard = heard_at(db, scope, [row.box for row in found])
            off = dict(alert_list.uninspected(db, scope))
            sites = tenants.sites(db, tenant)
        items = [
            Box(
                box=row.box,
                site=sites.get(row.box, ""),
                certificate=row.standing,
                online=row.state == "on",
                changed_at=moment(row.changed_at or ""),
                heard_at=moment(heard.get(row.box, "")),
                inspecting=row.box not in off,
                not_inspecting_since=moment(off.get(row.box, "")),
            )
            for row in found[:limit]
        ]
        return Boxes(items, mark(_Place(found[limit - 1].box)) if len(found) > limit else None)

    return Router("/", route_handlers=[overview])


def listed(db: sa.Connection, scope: Scope, after: str, limit: int) -> list[sa.Row[Any]]:
    """(box, standing, state, changed_at) by the names; the last two of what has been heard."""
    mine = sa.and_(BOX.c.box == BOX_IDENTITY.c.box, BOX.c.tenant == BOX_IDENTITY.c.tenant)
    columns = (BOX_IDENTITY.c.box, BOX_IDENTITY.c.state.label("standing"), BOX.c.state, BOX.c.changed_at)
    which = (scope.of(BOX_IDENTITY.c.tenant), BOX_IDENTITY.c.box > after)
    query = sa.select(*columns).select_from(BOX_IDENTITY.outerjoin(BOX, mine)).where(*which)
    return list(db.execute(query.order_by(BOX_IDENTITY.c.box).limit(limit)))


def heard_at(db: sa.Connection, scope: Scope, boxes: list[str]) -> dict[str, str]:
    """Box -> when it was last heard."""
    which = (scope.of(STREAM.c.tenant), STREAM.c.box.in_(boxes))
    query = sa.select(STREAM.c.box, sa.func.max(STREAM.c.last_at)).where(*which).group_by(STREAM.c.box)
    return {box: at for box, at in db.execute(query)}
