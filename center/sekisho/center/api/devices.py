"""/v1/tenants/{tenant}/devices: which devices there are, and what share of their traffic was looked at."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

from sekisho.appliance.core.names import NAME
from sekisho.center import protection
from sekisho.center.api import problems
from sekisho.center.api.alerts import MAC
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Word, mark, place
from sekisho.center.api.words import moment
from sekisho.center.protection import Shares, State, Watched

_Box = Annotated[str, PathParameter(pattern=f"^{NAME}$")]
_Mac = Annotated[str, PathParameter(pattern=MAC)]


class Coverage(msgspec.Struct, frozen=True):
    """Bytes of a time, by what became of them."""

    state: State
    """guarded: all but a trace was looked at; partly: not; unknown: nothing is known of that time."""
    inspected_bytes: int
    encrypted_bytes: int
    """Looked at as far as that goes: whom the device talks to was judged."""
    bypassed_bytes: int
    unseen_bytes: int
    until: dt.datetime | None


class Reason(msgspec.Struct, frozen=True):
    """Why bytes were not looked at."""

    reason: str
    bytes: int


class Device(msgspec.Struct, frozen=True):
    """One device of the office."""

    box: str
    mac: str
    random_mac: bool
    name: str
    """What its people call it, else what it calls itself."""
    kind: str
    vendor: str
    addresses: list[str]
    standing: str
    """expected, stranger, or empty: nobody has said."""
    first_seen: dt.datetime | None
    last_seen: dt.datetime | None
    day: Coverage
    week: Coverage
    not_inspected: list[Reason]


class Devices(msgspec.Struct, frozen=True):
    """A page of devices, the last seen first."""

    items: list[Device]
    next: str | None


class _Place(msgspec.Struct, array_like=True, frozen=True):
    last_seen: Word
    box: Word
    mac: Word


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/devices",
        right="devices.see",
        operation_id="list_devices",
        summary="機器と見守りの範囲",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, limit: Limit = LIMIT, cursor: Cursor = "") -> Devices:
        """A customer's devices with the share of their traffic that was looked at."""
        before = place(cursor, _Place)
        place_ = (before.last_seen, before.box, before.mac) if before else ()
        with desk.reading.reading() as db:
            found = protection.listing(db, about(tenant), desk.now(), before=place_, limit=limit + 1)
        last = found[limit - 1] if len(found) > limit else None
        more = mark(_Place(last.last_seen, last.box, last.mac)) if last else None
        return Devices([_device(one) for one in found[:limit]], more)

    @get(
        "/tenants/{tenant:str}/devices/{box:str}/{mac:str}",
        right="devices.see",
        operation_id="get_device",
        summary="機器",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def one(tenant: Tenant, box: _Box, mac: _Mac) -> Device:
        """One device."""
        with desk.reading.reading() as db:
            found = protection.one(db, about(tenant), box, mac, desk.now())
        if found is None:
            raise NotFoundException()
        return _device(found)

    return Router("/", route_handlers=[overview, one])


def _device(one: Watched) -> Device:
    return Device(
        box=one.box,
        mac=one.mac,
        random_mac=bool(one.random_mac),
        name=one.own_name or one.name,
        kind=one.kind,
        vendor=one.vendor,
        addresses=one.addresses.split(),
        standing=one.standing,
        first_seen=moment(one.first_seen),
        last_seen=moment(one.last_seen),
        day=_coverage(one.day),
        week=_coverage(one.week),
        not_inspected=[Reason(why, octets) for why, octets in one.whys],
    )


def _coverage(of: Shares) -> Coverage:
    return Coverage(of.state, of.inspected, of.opaque, of.bypassed, of.unseen, moment(of.until))
