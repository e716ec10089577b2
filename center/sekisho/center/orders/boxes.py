"""Which boxes a customer may decide about, what the place of each is called, and which devices each has seen."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from sekisho.center import tenants
from sekisho.center.ca.tables import BOX_IDENTITY
from sekisho.center.devices import OWN
from sekisho.center.scope import Scope
from sekisho.center.store import BOX
from sekisho.center.views.devices import SEEN
from sekisho.policy import source

CAP: Final = 500
DEVICES_CAP: Final = 300


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


def devices(db: sa.Connection, scope: Scope, box: str = "") -> dict[str, str]:
    """Hardware address -> what its people call the device, else what it says of itself, of those seen last."""
    same = sa.and_(OWN.c.tenant == SEEN.c.tenant, OWN.c.box == SEEN.c.box, OWN.c.mac == SEEN.c.mac)
    query = (
        sa.select(SEEN.c.mac, SEEN.c.name, OWN.c.name.label("own_name"))
        .outerjoin(OWN, same)
        .where(scope.of(SEEN.c.tenant), SEEN.c.box == box if box else sa.true())
        .order_by(SEEN.c.last_seen.desc())
        .limit(DEVICES_CAP)
    )
    found = {row.mac: row.own_name or row.name for row in db.execute(query) if source.is_mac(row.mac)}
    return dict(sorted(found.items(), key=lambda pair: (not pair[1], pair[1].casefold(), pair[0])))
