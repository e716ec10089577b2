"""/v1/tenants: the customers a partner looks after."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from litestar import Request, Router, get
from litestar.exceptions import NotFoundException

from sekisho.center import roster
from sekisho.center.api import problems
from sekisho.center.api.desk import Desk, Tenant
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Word, mark, place
from sekisho.center.api.words import moment
from sekisho.center.customers import State
from sekisho.center.portal.viewer import viewer


class Customer(msgspec.Struct, frozen=True):
    """One customer."""

    tenant: str
    name: str
    reseller: str
    """The chamber that looks after it; empty: the centre itself."""
    contract: State
    boxes: int
    boxes_online: int
    heard_at: dt.datetime | None
    """When any UTM was last heard."""


class Customers(msgspec.Struct, frozen=True):
    """A page of customers, by their identifiers."""

    items: list[Customer]
    next: str | None


class _Place(msgspec.Struct, array_like=True, frozen=True):
    tenant: Word


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants",
        right="home.see",
        operation_id="list_tenants",
        summary="担当のお客様",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(request: Request[Any, Any, Any], limit: Limit = LIMIT, cursor: Cursor = "") -> Customers:
        """The customers this partner looks after."""
        after = place(cursor, _Place)
        wanted = roster.Wanted(after=after.tenant if after else "")
        with desk.reading.reading() as db:
            found = roster.listed(db, viewer(request).scope, wanted, limit)
        more = mark(_Place(found[limit - 1].tenant)) if len(found) > limit else None
        return Customers([_customer(one) for one in found[:limit]], more)

    @get(
        "/tenants/{tenant:str}",
        right="home.see",
        operation_id="get_tenant",
        summary="お客様",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def one(request: Request[Any, Any, Any], tenant: Tenant) -> Customer:
        """One customer."""
        with desk.reading.reading() as db:
            found = roster.one(db, viewer(request).scope, tenant)
        if found is None:
            raise NotFoundException()
        return _customer(found)

    return Router("/", route_handlers=[overview, one])


def _customer(one: roster.Listed) -> Customer:
    contract = msgspec.convert(one.state, State)
    return Customer(one.tenant, one.name, one.reseller, contract, one.boxes, one.online, moment(one.heard_at))
