"""Which boxes a customer may decide about, and what the place of each is called."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.scope import Scope
from sekisho.center.store import BOX

CAP: Final = 500


def named(db: sa.Connection, scope: Scope, tenant: str) -> dict[str, str]:
    """Box -> what its place is called, else its own name: each that joined or was heard, and was not revoked."""
    if not scope.holds(tenant):
        return {}
    revoked = sa.select(BOX_IDENTITY.c.box).where(BOX_IDENTITY.c.state == "revoked")
    joined = sa.select(BOX_IDENTITY.c.box).where(BOX_IDENTITY.c.tenant == tenant, BOX_IDENTITY.c.state != "revoked")
    elsewhere = sa.select(BOX_IDENTITY.c.box).where(BOX_IDENTITY.c.tenant != tenant)
    heard = sa.select(BOX.c.box).where(BOX.c.tenant == tenant, BOX.c.box.not_in(revoked), BOX.c.box.not_in(elsewhere))
    sites = tenants.sites(db, tenant)
    found = sorted(db.scalars(sa.union(joined, heard).limit(CAP)))
    return {box: sites.get(box, box) for box in found}
