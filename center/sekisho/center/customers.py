"""Who the customers are, which chamber looks after each, and how far each contract has got."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.database import insert_new, metadata

State = Literal["active", "ending", "ended", "deleting", "deleted"]

CUSTOMER: Final = sa.Table(
    "customer",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("reseller", sa.Text, nullable=False, server_default="", doc="empty: the centre itself"),
    sa.Column("state", sa.Text, nullable=False, server_default="active", doc="`State`"),
    sa.Column("changed_at", sa.Text, nullable=False, server_default=""),
    sa.Index("customer_by_reseller", "reseller", "tenant"),
    sa.Index("customer_by_state", "state", "tenant"),
)
SERVED: Final = ("active", "ending")
"""States in which a customer has the service."""


def add(db: sa.Connection, tenant: str, reseller: str = "", *, at: str = "") -> None:
    """Enter a customer; one that is there stays as it is."""
    db.execute(insert_new(db, CUSTOMER), {"tenant": tenant, "reseller": reseller, "state": "active", "changed_at": at})


def admit(db: sa.Connection, tenant: str, at: str) -> None:
    """Enter whoever is to have a box.

    Raises:
        RejectedInput: the contract has not begun, or it is over.

    """
    add(db, tenant, at=at)
    state = db.scalar(sa.select(CUSTOMER.c.state).where(CUSTOMER.c.tenant == tenant))
    if state not in SERVED:
        raise RejectedInput(f"The contract of {tenant} is not in force: it is {state}.")


_OVER = sa.select(CUSTOMER.c.tenant).where(
    CUSTOMER.c.tenant.in_(sa.bindparam("tenants", expanding=True)), CUSTOMER.c.state.not_in(SERVED)
)
"""Made once: ingest asks it for every group of messages."""


def over(db: sa.Connection, tenants: Iterable[str]) -> set[str]:
    """Those of these tenants whose contract is over: nothing is taken for them any more."""
    wanted = sorted(set(tenants))
    return set(db.scalars(_OVER, {"tenants": wanted})) if wanted else set()


def known(db: sa.Connection, tenant: str) -> bool:
    return db.scalar(sa.select(CUSTOMER.c.tenant).where(CUSTOMER.c.tenant == tenant)) is not None


def of_reseller(db: sa.Connection, reseller: str) -> frozenset[str]:
    """The customers a reseller looks after."""
    query = sa.select(CUSTOMER.c.tenant).where(CUSTOMER.c.reseller == reseller, CUSTOMER.c.reseller != "")
    return frozenset(db.execute(query).scalars())
