"""Which box belongs to which tenant, and whether it may speak: what ingest asks before it believes a topic."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
import sqlalchemy as sa

from sekisho.appliance.core.errors import RejectedInput
from sekisho.center.ca.tables import BOX_IDENTITY

State = Literal["expected", "active", "revoked"]

SERVICES: Final = ("center", "centre", "immunity", "orders", "jobs", "broker")
"""The centre's own services, where the settings say nothing else. A broker knows them by their name alone."""


class Identity(msgspec.Struct, frozen=True):
    """A box as the centre knows it; "expected" has a code and no certificate yet."""

    box: str
    tenant: str
    state: State
    changed_at: str

    def may_speak_for(self, tenant: str) -> bool:
        """Whether what arrives under `tenant` may be this box's."""
        return self.tenant == tenant and self.state == "active"


_OF_BOXES = sa.select(BOX_IDENTITY).where(BOX_IDENTITY.c.box.in_(sa.bindparam("boxes", expanding=True)))
"""Made once: ingest asks it for every group of messages."""


def identities(db: sa.Connection, boxes: Iterable[str]) -> dict[str, Identity]:
    """Those of `boxes` the registry knows; one that is absent was never enrolled here."""
    wanted = sorted(set(boxes))
    if not wanted:
        return {}
    found = db.execute(_OF_BOXES, {"boxes": wanted})
    return {row.box: Identity(*row) for row in found}


def is_service(name: str, services: Iterable[str] = ()) -> bool:
    """Whether a certificate with this name would have the rights of a service: `SERVICES`, `services`, center-2, …"""
    return re.sub(r"-[0-9]+$", "", name).lower() in {one.lower() for one in (*SERVICES, *services)} or name in services


def expect(db: sa.Connection, box: str, tenant: str, now: str, services: Iterable[str] = ()) -> None:
    """Note that `box` of `tenant` will enrol; a revoked box is expected again, an active one stays active.

    Raises:
        RejectedInput: the name is a service's (`is_service`), or the box belongs to another tenant.

    """
    if is_service(box, tuple(services)):
        raise RejectedInput(f"{box} is a name of the centre's own services.", "Give the box another name.")
    known = identities(db, [box]).get(box)
    if known and known.tenant != tenant:
        raise RejectedInput(f"{box} belongs to {known.tenant}.", "Give the new box another name.")
    if known is None:
        db.execute(BOX_IDENTITY.insert(), msgspec.structs.asdict(Identity(box, tenant, "expected", now)))
    elif known.state == "revoked":
        _update(db, box, state="expected", changed_at=now)


def activate(db: sa.Connection, box: str, now: str) -> None:
    """Note that `box` has a certificate."""
    _update(db, box, state="active", changed_at=now)


def revoke(db: sa.Connection, box: str, now: str) -> None:
    """Note that nothing of `box` is to be believed any more."""
    _update(db, box, state="revoked", changed_at=now)


def _update(db: sa.Connection, box: str, **values: str) -> None:
    db.execute(BOX_IDENTITY.update().where(BOX_IDENTITY.c.box == box).values(**values))
