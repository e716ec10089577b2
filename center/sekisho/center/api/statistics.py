"""/v1/tenants/{tenant}/statistics: how much each function found and stopped, by the customer's days, weeks, months."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from litestar import Router, get
from litestar.params import QueryParameter

from sekisho.center import protection, statistics, tenants
from sekisho.center.api import problems
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.statistics import By, Count

_By = Annotated[By, QueryParameter(description="日、週、月")]


class Number(msgspec.Struct, frozen=True):
    """One function's counts."""

    function: str
    blocked: int
    detected: int
    """Found and let through: log-only, or known only after delivery."""
    excepted: int
    """Let through by an exception of the customer's."""
    clean: int


class Period(msgspec.Struct, frozen=True):
    """One day, week or month of the customer's calendar."""

    first: dt.date
    """Its first day; weeks begin on Mondays."""
    functions: list[Number]


class Busy(msgspec.Struct, frozen=True):
    """A device on which much was found lately."""

    box: str
    mac: str
    name: str
    functions: list[Number]


class Statistics(msgspec.Struct, frozen=True):
    """The last periods, the running one included, and the devices of the last 31 days."""

    time_zone: str
    periods: list[Period]
    devices: list[Busy]


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/statistics",
        right="statistics.see",
        operation_id="get_statistics",
        summary="統計",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, by: _By = "day") -> Statistics:
        """What each function found and stopped in 14 days, 12 weeks or 12 months."""
        with desk.reading.reading() as db:
            zone = tenants.load(db, tenant).time_zone
            found = statistics.periods(db, about(tenant), by, zone, desk.now())
            busy = statistics.devices(db, about(tenant), desk.now())
            names = protection.names(db, about(tenant), {(one.box, one.mac) for one in busy})
        devices = [Busy(one.box, one.mac, names.get((one.box, one.mac), ""), _numbers(one.functions)) for one in busy]
        return Statistics(zone, [Period(one.first, _numbers(one.functions)) for one in found], devices)

    return Router("/", route_handlers=[overview])


def _numbers(functions: dict[str, Count]) -> list[Number]:
    return [Number(name, c.blocked, c.detected, c.excepted, c.clean) for name, c in sorted(functions.items())]
