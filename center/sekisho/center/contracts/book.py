"""Where each contract stands, kept; the days that pass. Each change is one transaction with what follows from it."""

from __future__ import annotations

import datetime as dt
from typing import Final

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core import utc
from sekisho.center import tenants
from sekisho.center.ca import revoking
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.contracts import state
from sekisho.center.contracts.state import Contract
from sekisho.center.contracts.tables import CONTRACT
from sekisho.center.customers import CUSTOMER
from sekisho.center.database import insert_new
from sekisho.center.scope import Scope
from sekisho.center.store import STORE

ENDED: Final = "the contract ended"
PAGE: Final = 100
_COLUMNS = [CONTRACT.c[name] for name in Contract.__struct_fields__ if name not in ("tenant", "state")]


def load(db: sa.Connection, scope: Scope, tenant: str, *, hold: bool = False) -> Contract | None:
    """The contract; None where the scope holds no such customer.

    `hold`: nobody else changes it before this transaction ends. Who takes a contract up again while its deletion
    begins would have it in force and its data deleted.
    """
    if hold:
        db.execute(sa.select(CUSTOMER.c.tenant).where(CUSTOMER.c.tenant == tenant).with_for_update())
    query = (
        sa.select(CUSTOMER.c.tenant, CUSTOMER.c.state, *_COLUMNS)
        .outerjoin(CONTRACT, CONTRACT.c.tenant == CUSTOMER.c.tenant)
        .where(CUSTOMER.c.tenant == tenant, scope.of(CUSTOMER.c.tenant))
    )
    row = db.execute(query).first()
    return Contract(row[0], row[1], *(value or "" for value in row[2:])) if row else None


def save(db: sa.Connection, contract: Contract, now: dt.datetime) -> None:
    """Keep where it stands."""
    values = msgspec.structs.asdict(contract)
    values.pop("state")
    db.execute(insert_new(db, CONTRACT), values)
    db.execute(CONTRACT.update().where(CONTRACT.c.tenant == contract.tenant).values(**values))
    changed = {"state": contract.state, "changed_at": utc.text(now)}
    db.execute(CUSTOMER.update().where(CUSTOMER.c.tenant == contract.tenant).values(**changed))


def today(db: sa.Connection, tenant: str, now: dt.datetime) -> dt.date:
    """The customer's calendar day."""
    return now.astimezone(tenants.load(db, tenant).zone).date()


def sure_day(db: sa.Connection, tenant: str, now: dt.datetime) -> dt.date | None:
    """The same for what cannot be undone: never past the day retention counts from, which no wrong clock moves far.

    None while retention has never run.
    """
    swept = db.scalar(sa.select(STORE.c.swept))
    return min(today(db, tenant, now), dt.date.fromisoformat(swept)) if swept else None


def end_due(db: sa.Connection, now: dt.datetime) -> list[Contract]:
    """End the contracts whose last day is over: no box of theirs is believed any more, and none may be added."""
    ended = []
    tomorrow = str((now + dt.timedelta(days=1)).date())
    due = sa.select(CUSTOMER.c.tenant).join(CONTRACT, CONTRACT.c.tenant == CUSTOMER.c.tenant)
    due = due.where(CUSTOMER.c.state == "ending", CONTRACT.c.ends_on < tomorrow).order_by(CUSTOMER.c.tenant)
    for tenant in db.scalars(due.limit(PAGE)).all():
        contract, day = load(db, Scope(frozenset({tenant})), tenant, hold=True), sure_day(db, tenant, now)
        if contract is None or contract.state != "ending" or day is None or str(day) <= contract.ends_on:
            continue
        contract = state.end(contract, day)
        save(db, contract, now)
        revoke_boxes(db, tenant, now)
        ended.append(contract)
    return ended


def revoke_boxes(db: sa.Connection, tenant: str, now: dt.datetime) -> None:
    """Take every certificate and code of the customer's boxes back."""
    mine = (BOX_IDENTITY.c.tenant == tenant, BOX_IDENTITY.c.state != "revoked")
    for box in db.scalars(sa.select(BOX_IDENTITY.c.box).where(*mine)).all():
        revoking.revoke(db, box, "sekisho", ENDED, now)
