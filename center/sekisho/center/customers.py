"""Who the customers are, which chamber looks after each, and how far each contract has got."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata

CUSTOMER: Final = sa.Table(
    "customer",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("reseller", sa.Text, nullable=False, server_default="", doc="empty: the centre itself"),
    sa.Column("state", sa.Text, nullable=False, server_default="active", doc="applied, active, ending, ended, deleted"),
    sa.Column("changed_at", sa.Text, nullable=False, server_default=""),
    sa.Index("customer_by_reseller", "reseller", "tenant"),
)


def add(db: sa.Connection, tenant: str, reseller: str = "", *, at: str = "") -> None:
    """Enter a customer; one that is there stays as it is."""
    db.execute(insert_new(db, CUSTOMER), {"tenant": tenant, "reseller": reseller, "state": "active", "changed_at": at})


def of_reseller(db: sa.Connection, reseller: str) -> frozenset[str]:
    """The customers a reseller looks after."""
    query = sa.select(CUSTOMER.c.tenant).where(CUSTOMER.c.reseller == reseller, CUSTOMER.c.reseller != "")
    return frozenset(db.execute(query).scalars())
