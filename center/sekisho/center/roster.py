"""The customers as a list: how far each contract is, how many boxes, when they were last heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.customers import CUSTOMER
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.streams import STREAM
from sekisho.center.views.alerts import ALERT

PAGE: Final = 50
IMPORTANT: Final = 3
NAMES_CAP: Final = 20_000
"""Customers whose names a search looks through."""


class Wanted(msgspec.Struct, frozen=True):
    """Which customers; empty = all of the scope."""

    clue: str = ""
    """A part of the name, or of the identifier."""
    state: str = ""
    reseller: str = ""
    after: str = ""
    """The last identifier of the page before."""


class Listed(msgspec.Struct, frozen=True):
    """One customer as the list shows it."""

    tenant: str
    name: str
    """What it calls itself, else its identifier."""
    reseller: str
    state: str
    changed_at: str
    boxes: int = 0
    online: int = 0
    heard_at: str = ""
    """When any box was last heard; empty: never."""
    important: int = 0
    """Important alerts (★★★) that nobody has closed."""


def listed(db: sa.Connection, scope: Scope, wanted: Wanted, limit: int = PAGE) -> list[Listed]:
    """A page of customers in the order of their identifiers; one more than `limit` where there are more."""
    query = sa.select(CUSTOMER).where(scope.of(CUSTOMER.c.tenant), CUSTOMER.c.tenant > wanted.after)
    if wanted.state:
        query = query.where(CUSTOMER.c.state == wanted.state)
    if wanted.reseller:
        query = query.where(CUSTOMER.c.reseller == wanted.reseller)
    if wanted.clue:
        query = query.where(CUSTOMER.c.tenant.in_(_called(db, scope, wanted.clue)))
    rows = db.execute(query.order_by(CUSTOMER.c.tenant).limit(limit + 1)).all()
    return _filled(db, scope, rows)


def one(db: sa.Connection, scope: Scope, tenant: str) -> Listed | None:
    """One customer; None where the scope does not hold it."""
    rows = db.execute(sa.select(CUSTOMER).where(CUSTOMER.c.tenant == tenant, scope.of(CUSTOMER.c.tenant))).all()
    return next(iter(_filled(db, scope, rows)), None)


def resellers(db: sa.Connection, scope: Scope) -> list[str]:
    """Those who look after customers of the scope."""
    query = sa.select(CUSTOMER.c.reseller).where(scope.of(CUSTOMER.c.tenant), CUSTOMER.c.reseller != "").distinct()
    return list(db.scalars(query.order_by(CUSTOMER.c.reseller).limit(1000)))


def _called(db: sa.Connection, scope: Scope, clue: str) -> list[str]:
    """Names are in the customers' settings: this reads them all, some thousands at most."""
    mine = sa.select(CUSTOMER.c.tenant).where(scope.of(CUSTOMER.c.tenant)).order_by(CUSTOMER.c.tenant).limit(NAMES_CAP)
    found, part = [], clue.casefold()
    names = _names(db, scope, mine)
    for tenant in db.scalars(mine):
        if part in tenant.casefold() or part in names.get(tenant, "").casefold():
            found.append(tenant)
            if len(found) > 10 * PAGE:
                break
    return found


def _names(db: sa.Connection, scope: Scope, which: Sequence[str] | sa.Select[tuple[str]]) -> dict[str, str]:
    return {tenant.id: tenant.name for tenant in tenants.some(db, scope, which)}


def _filled(db: sa.Connection, scope: Scope, rows: Sequence[sa.Row[Any]]) -> list[Listed]:
    which = [row.tenant for row in rows]
    names = _names(db, scope, which)
    number, online = sa.func.count(), sa.func.sum(sa.case((BOX.c.state == "on", 1), else_=0))
    counted = sa.select(BOX.c.tenant, number, online).where(BOX.c.tenant.in_(which), scope.of(BOX.c.tenant))
    boxes = {tenant: (int(n), int(on)) for tenant, n, on in db.execute(counted.group_by(BOX.c.tenant))}
    last = sa.select(STREAM.c.tenant, sa.func.max(STREAM.c.last_at)).where(STREAM.c.tenant.in_(which))
    heard = {t: at for t, at in db.execute(last.where(scope.of(STREAM.c.tenant)).group_by(STREAM.c.tenant))}
    still = (ALERT.c.tenant.in_(which), ALERT.c.state == "open", ALERT.c.stars == IMPORTANT, scope.of(ALERT.c.tenant))
    important = {t: n for t, n in db.execute(sa.select(ALERT.c.tenant, number).where(*still).group_by(ALERT.c.tenant))}
    return [
        Listed(
            row.tenant,
            names.get(row.tenant) or row.tenant,
            row.reseller,
            row.state,
            row.changed_at,
            *boxes.get(row.tenant, (0, 0)),
            heard.get(row.tenant, ""),
            important.get(row.tenant, 0),
        )
        for row in rows
    ]
