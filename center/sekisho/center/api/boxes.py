"""/v1/tenants/{tenant}/boxes: the customer's UTMs, whether they are heard and whether they look at traffic."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

import msgspec
import sqlalchemy as sa
from litestar import Router, get
from litestar.exceptions import NotFoundException
from litestar.params import PathParameter

from sekisho.appliance.core.names import NAME
from sekisho.center import health, rulesets, tenants
from sekisho.center.api import problems
from sekisho.center.api.desk import Desk, Tenant, about
from sekisho.center.api.paging import LIMIT, Cursor, Limit, Word, mark, place
from sekisho.center.api.words import moment
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.health import BoxHealth
from sekisho.center.rulesets import Ruleset
from sekisho.center.scope import Scope
from sekisho.center.views import alert_list

_Box = Annotated[str, PathParameter(pattern=f"^{NAME}$")]


class Vitals(msgspec.Struct, frozen=True):
    """What it measured last."""

    at: dt.datetime | None
    version: str
    temperature_celsius: float | None
    disk_free_bytes: int
    disk_size_bytes: int
    memory_free_bytes: int
    memory_size_bytes: int
    uptime_s: int


class Signatures(msgspec.Struct, frozen=True):
    """The rule set it inspects with, by its last word."""

    told_at: dt.datetime | None
    number: int
    """Published number; 0: it does not come from the centre."""
    in_use_since: dt.datetime | None
    built_at: dt.datetime | None
    checked_at: dt.datetime | None
    """When it last learned which set is newest."""
    freshness: rulesets.Grade
    """unknown: there is no certain word; own: it has never taken rules from the centre."""
    rules: int
    yara_rules: int
    failed_rules: int
    muted_rules: list[int]
    """Numbers of rules that are left out."""
    refused_number: int | None
    """The newest set it refused or took back; the one before stays in use."""
    refused_at: dt.datetime | None
    without_rules_since: dt.datetime | None
    """Some part of it works without the rules it should have; null: none does."""


class Box(msgspec.Struct, frozen=True):
    """One UTM."""

    box: str
    site: str
    """What its people call the place."""
    certificate: Literal["expected", "active", "revoked"]
    """expected: it has a code and has not joined yet."""
    state: Literal["on", "lost", "unknown"]
    """unknown: the centre cannot tell now, or has never heard it."""
    changed_at: dt.datetime | None
    """Since when it is on, or lost."""
    heard_at: dt.datetime | None
    not_inspecting_since: dt.datetime | None
    """Some part of it said last that it does not look at traffic; null: none did."""
    vitals: Vitals | None
    """Of the last week; null: there are none."""
    signatures: Signatures | None
    """null: it has not spoken of them."""


class Part(msgspec.Struct, frozen=True):
    """The last word of one part of a UTM."""

    part: str
    at: dt.datetime | None
    state: str
    rules: int
    yara_rules: int


class Boxes(msgspec.Struct, frozen=True):
    """A page of UTMs, by their names."""

    items: list[Box]
    next: str | None


class BoxDetail(msgspec.Struct, frozen=True):
    """One UTM with its parts."""

    box: Box
    parts: list[Part]


class _Place(msgspec.Struct, array_like=True, frozen=True):
    box: Word


def router(desk: Desk) -> Router:
    """The routes."""

    @get(
        "/tenants/{tenant:str}/boxes",
        right="health.see",
        operation_id="list_boxes",
        summary="UTMの一覧と状態",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def overview(tenant: Tenant, limit: Limit = LIMIT, cursor: Cursor = "") -> Boxes:
        """A customer's UTMs."""
        after = place(cursor, _Place)
        with desk.reading.reading() as db:
            found = listed(db, about(tenant), after.box if after else "", limit + 1)
            items = _boxes(db, desk, tenant, found[:limit])
        return Boxes(items, mark(_Place(found[limit - 1].box)) if len(found) > limit else None)

    @get(
        "/tenants/{tenant:str}/boxes/{box:str}",
        right="health.see",
        operation_id="get_box",
        summary="UTMの状態",
        responses=problems.responses(),
        sync_to_thread=True,
    )
    def one(tenant: Tenant, box: _Box) -> BoxDetail:
        """One UTM and what its parts said last."""
        with desk.reading.reading() as db:
            found = [row for row in listed(db, about(tenant), "", 1, box) if row.box == box]
            if not found:
                raise NotFoundException()
            (made,) = _boxes(db, desk, tenant, found)
            parts = health.parts(db, about(tenant), box)
        said = [Part(part.part, moment(part.at), part.state, part.rules, part.yara_rules) for part in parts]
        return BoxDetail(made, said)

    return Router("/", route_handlers=[overview, one])


def listed(db: sa.Connection, scope: Scope, after: str, limit: int, box: str = "") -> list[sa.Row[Any]]:
    """(box, state) of the registry by their names."""
    which = [scope.of(BOX_IDENTITY.c.tenant), BOX_IDENTITY.c.box == box if box else BOX_IDENTITY.c.box > after]
    query = sa.select(BOX_IDENTITY.c.box, BOX_IDENTITY.c.state).where(*which)
    return list(db.execute(query.order_by(BOX_IDENTITY.c.box).limit(limit)))


def _boxes(db: sa.Connection, desk: Desk, tenant: str, rows: list[sa.Row[Any]]) -> list[Box]:
    known = {one.box: one for one in health.boxes(db, about(tenant), tenant, desk.now())}
    off = dict(alert_list.uninspected(db, about(tenant)))
    sites, now = tenants.sites(db, tenant), desk.now()
    sets = {box: _signatures(one, now) for box, one in rulesets.of_boxes(db, about(tenant)).items()}
    return [_box(row, known.get(row.box), sites.get(row.box, ""), off.get(row.box, ""), sets) for row in rows]


def _box(row: sa.Row[Any], known: BoxHealth | None, site: str, off: str, sets: dict[str, Signatures]) -> Box:
    return Box(
        box=row.box,
        site=site,
        certificate=row.state,
        state=known.state if known else "unknown",
        changed_at=moment(known.changed) if known else None,
        heard_at=moment(known.heard) if known else None,
        not_inspecting_since=moment(off),
        vitals=_vitals(known.vital) if known and known.vital else None,
        signatures=sets.get(row.box),
    )


def _signatures(of: Ruleset, now: dt.datetime) -> Signatures:
    return Signatures(
        told_at=moment(of.at),
        number=of.number,
        in_use_since=moment(of.since),
        built_at=moment(of.built),
        checked_at=moment(of.checked),
        freshness=of.grade(now),
        rules=of.rules,
        yara_rules=of.yara,
        failed_rules=of.failed,
        muted_rules=of.muted,
        refused_number=of.refused or None,
        refused_at=moment(of.refused_at),
        without_rules_since=moment(of.silent),
    )


def _vitals(of: health.Vital) -> Vitals:
    return Vitals(
        at=moment(of.at),
        version=of.version,
        temperature_celsius=of.temperature or None,
        disk_free_bytes=of.disk_free,
        disk_size_bytes=of.disk_size,
        memory_free_bytes=of.memory_free,
        memory_size_bytes=of.memory_size,
        uptime_s=of.uptime,
    )
