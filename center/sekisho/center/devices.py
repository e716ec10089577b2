"""What the devices behind each box are called: the newest word of the box's inventory.

A name is what the device says of itself: somebody else's text, to be made harmless where it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from sekisho.center.database import insert_new, metadata
from sekisho.telemetry import events
from sekisho.telemetry.events import Device

if TYPE_CHECKING:
    from sekisho.center.store import NewRow

DEVICE = sa.Table(
    "device",
    metadata,
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("box", sa.Text, primary_key=True),
    sa.Column("mac", sa.Text, primary_key=True),
    sa.Column("at", sa.Text, nullable=False, doc="when the box said so"),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("vendor", sa.Text, nullable=False),
)
_WORD_CAP = 64


class Known(msgspec.Struct, frozen=True):
    """What is known of one device; each may be empty."""

    name: str = ""
    kind: str = ""
    vendor: str = ""


def note(db: sa.Connection, tenant: str, box: str, new: Sequence[NewRow]) -> None:
    """Keep what these rows say of devices; an older word does not replace a newer one."""
    for row in new:
        if row.type != Device.__struct_config__.tag:
            continue
        device = events.decode(row.body)
        if isinstance(device, Device) and device.mac and all(map(_is_word, (device.mac, device.at))):
            _keep(db, {"tenant": tenant, "box": box, "mac": device.mac}, device)


def known(db: sa.Connection, tenant: str, box: str, mac: str) -> Known:
    """What is known of the device with this address."""
    which = (DEVICE.c.tenant == tenant, DEVICE.c.box == box, DEVICE.c.mac == mac)
    row = db.execute(sa.select(DEVICE.c.name, DEVICE.c.kind, DEVICE.c.vendor).where(*which)).first()
    return Known(*row) if row else Known()


def _keep(db: sa.Connection, key: dict[str, str], device: Device) -> None:
    words = (device.name, device.kind, device.vendor)
    said = dict(zip(("name", "kind", "vendor"), (word if _is_word(word) else "" for word in words), strict=True))
    db.execute(insert_new(db, DEVICE), {**key, "at": device.at, **said})
    which = [DEVICE.c[name] == value for name, value in key.items()]
    db.execute(DEVICE.update().where(*which, DEVICE.c.at < device.at).values(at=device.at, **said))


def _is_word(text: str) -> bool:
    return len(text) <= _WORD_CAP and text.isprintable()
