"""Whose data somebody may see. Every query that reads a customer's data takes a scope and says so in its WHERE."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa


class Scope(msgspec.Struct, frozen=True):
    """Some customers, or all of them; there is no default, so that nobody sees everything by forgetting to say."""

    tenants: frozenset[str] | None
    """None: everyone, for the centre's own staff."""

    def of(self, tenant: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """The condition that a row's tenant is one of them."""
        return sa.true() if self.tenants is None else tenant.in_(sorted(self.tenants))

    def holds(self, tenant: str) -> bool:
        return self.tenants is None or tenant in self.tenants


def only(*tenants: str) -> Scope:
    """These customers and nobody else."""
    return Scope(frozenset(tenants))


EVERYONE = Scope(None)
