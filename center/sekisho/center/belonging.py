"""Which tenant a box speaks for: what the registry says of boxes that enrolled; of others, the tenant first heard."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from sekisho.center import customers
from sekisho.center.ca import registry
from sekisho.center.store import BOX
from sekisho.center.streams import STREAM

_HEARD = [
    sa.select(table.c.box, table.c.tenant).where(table.c.box.in_(sa.bindparam("boxes", expanding=True)))
    for table in (BOX, STREAM)
]


def strangers(db: sa.Connection, claims: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the (box, tenant) pairs that are not to be believed: another's box, a revoked one, an ended contract."""
    claimed = sorted(claims)
    boxes = {box for box, _ in claimed}
    enrolled = registry.identities(db, boxes)
    heard = _first_heard(db, boxes - set(enrolled))
    over = customers.over(db, {tenant for _, tenant in claimed})
    refused = []
    for box, tenant in claimed:
        if box in enrolled:
            believed = enrolled[box].may_speak_for(tenant)
        else:
            believed = heard.setdefault(box, tenant) == tenant
        if not believed or tenant in over:
            refused.append((box, tenant))
    return refused


def heard_for(db: sa.Connection, box: str) -> str:
    """The tenant a box has spoken for, enrolled here or not; empty: it was never heard."""
    return _first_heard(db, [box]).get(box, "")


def _first_heard(db: sa.Connection, boxes: Iterable[str]) -> dict[str, str]:
    """From a box's birth, as nearly always, else from its streams."""
    heard: dict[str, str] = {}
    for query in _HEARD:
        if wanted := sorted(set(boxes) - set(heard)):
            heard |= {box: tenant for box, tenant in db.execute(query, {"boxes": wanted})}
    return heard
